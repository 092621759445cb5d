"""SIGTERM under load: every tab hears why, every run ends once, exit 0; and a start after a kill ends what was left."""

import asyncio
import contextlib
import signal
import subprocess

from tests.socket_client import Client

RUNS = 20


async def begin_runs(server) -> tuple[list[Client], list[str]]:
    tokens = server.tokens([f"user{n}" for n in range(RUNS)])
    clients = [Client(server.url, server.ws_url, token) for token in tokens.values()]
    return clients, []


async def start_one(client: Client) -> str:
    thread_id = await client.new_thread()
    run_id = await client.run(thread_id, "count=6000 interval_ms=20 tag=x")
    await client.until(lambda c: len(c.events(run_id)) > 4)
    return run_id


async def test_sigterm_with_twenty_running_runs_tells_every_tab_ends_every_run_once_and_exits_0(server):
    clients, _ = await begin_runs(server)
    async with asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        ready = asyncio.Barrier(RUNS + 1)
        run_ids: dict[Client, str] = {}

        async def one(client: Client) -> None:
            async with client.connected():
                run_ids[client] = await start_one(client)
                await ready.wait()
                await client.until(lambda c: c.close_code is not None)
                await stop.wait()

        for client in clients:
            group.create_task(one(client))
        await ready.wait()
        code = await asyncio.to_thread(server.stop)
        stop.set()
    assert code == 0, "".join(server.output)
    assert [client.close_code for client in clients] == [4012] * RUNS
    for client in clients:
        assert client.bye is not None
        assert client.bye["code"] == 4012
        assert 0 < client.bye["retry_after_ms"] <= 2_000
    assert len({client.bye["retry_after_ms"] for client in clients}) > RUNS // 2, "reconnects are spread"
    await asyncio.to_thread(server.start)
    for client in clients:
        client.url, client.ws_url = server.url, server.ws_url
        async with client.connected():
            await client.until_ended(run_ids[client])
        terminals = client.terminals(run_ids[client])
        assert [event.get("code") for event in terminals] == ["interrupted"]


async def test_after_a_kill_each_run_is_ended_once_and_every_tab_resumes_without_a_gap(server):
    clients, _ = await begin_runs(server)
    run_ids = {}
    for client in clients[:5]:
        async with client.connected():
            run_ids[client] = await start_one(client)
    server.kill()
    await asyncio.to_thread(server.start)
    for client, run_id in run_ids.items():
        client.url, client.ws_url = server.url, server.ws_url
        async with client.connected():
            await client.until_ended(run_id)
            types = [event["type"] for event in client.events(run_id)]
            assert types.count("RUN_ERROR") == 1
            assert types.count("TEXT_MESSAGE_START") == types.count("TEXT_MESSAGE_END") == 1
            assert not client.resets


async def test_queued_runs_wait_for_the_next_start(server):
    client = Client(server.url, server.ws_url, server.token("anna"))
    async with client.connected():
        running = [await start_one(client) for _ in range(3)]
        thread_id = await client.new_thread()
        queued = await client.run(thread_id, "count=3 interval_ms=1 tag=y")
    assert await asyncio.to_thread(server.stop) == 0
    await asyncio.to_thread(server.start)
    client.url, client.ws_url = server.url, server.ws_url
    async with client.connected():
        await client.until_ended(queued, *running)
    assert client.text(queued) == "0:y 1:y 2:y "


async def test_signals_that_come_again_while_the_process_drains_and_ends_change_nothing(server):
    client = Client(server.url, server.ws_url, server.token("anna"))
    async with client.connected():
        run_id = await start_one(client)
        code = None
        while code is None:
            server.process.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = await asyncio.to_thread(server.process.wait, 0.02)
        assert code == 0, "".join(server.output)
        await client.until(lambda c: c.close_code is not None)
    assert client.close_code == 4012
    assert [event["code"] for event in client.terminals(run_id)] == ["interrupted"]
