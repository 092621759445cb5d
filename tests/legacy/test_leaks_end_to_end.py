"""The positive control of the promise of isolation, on a real server, and flips between the two paths."""

import asyncio
import json
import sqlite3
from contextlib import AsyncExitStack, closing

from tests.promises.test_isolation_everywhere import USERS, search_everywhere
from tests.socket_client import Client


def set_stages(server, stage: str) -> None:
    for seam in ("execution_engine", "websocket_bridge"):
        moved = server.manage("move_stage", seam, stage, "--reason", "test of isolation")
        assert moved.returncode == 0, moved.stderr + moved.stdout


async def test_the_same_search_finds_the_leaks_of_the_singletons(tmp_path, migrated, time_budget):
    search = await search_everywhere(tmp_path, migrated, time_budget("isolation"), USERS, stage="off")
    leaky = search.sinks_with_finds()
    assert leaky >= {"frames", "rows", "provider"}, "the positive control found nothing: this test can no longer fail"
    assert not leaky & {"log", "public", "/metrics", "redis", "commands"}, "what it finds elsewhere is not legacy's"


async def test_a_flip_changes_no_run_in_flight_and_holds_from_the_next_claim(server):
    client = Client(server.url, server.ws_url, server.token("anna"))
    thread_id = await client.new_thread()
    paths = []
    async with client.connected():
        for stage in ("off", "on", "off", "on"):
            run_id = await client.run(thread_id, "count=60 interval_ms=10 tag=x")
            await client.until(lambda c, run_id=run_id: "TEXT_MESSAGE_CONTENT" in str(c.events(run_id)))
            before = pinned_paths(server, run_id)
            await asyncio.to_thread(set_stages, server, stage)
            await client.until_ended(run_id)
            assert pinned_paths(server, run_id) == before
            assert client.text(run_id) == "".join(f"{i}:x " for i in range(60))
            paths.append(before)
    assert paths == ["factory", "legacy", "factory", "legacy"]


def pinned_paths(server, run_id: str) -> str:
    """The one path that both seams of this run are pinned to."""
    with closing(sqlite3.connect(server.database)) as database:
        stored = json.loads(database.execute("SELECT paths FROM execution_run WHERE id = ?", [run_id]).fetchone()[0])
    found = {pin["path"] for pin in stored.values()}
    assert len(found) == 1, stored
    return found.pop()


async def test_after_a_kill_on_the_singletons_path_the_server_starts_and_ends_every_run_once(server):
    await asyncio.to_thread(set_stages, server, "off")
    tokens = server.tokens([f"user{n}" for n in range(4)])
    clients = [Client(server.url, server.ws_url, token) for token in tokens.values()]
    run_ids = {}
    async with AsyncExitStack() as stack:
        for client in clients:
            await stack.enter_async_context(client.connected())
            run_ids[client] = await client.run(await client.new_thread(), "count=3000 interval_ms=10 tag=x")
        await clients[-1].until(lambda c: len(c.seen) > 40)
        server.kill()
    await asyncio.to_thread(server.start)
    for client, run_id in run_ids.items():
        client.url, client.ws_url = server.url, server.ws_url
        async with client.connected():
            await client.until_ended(run_id)
        assert [event["code"] for event in client.terminals(run_id)] == ["interrupted"]
