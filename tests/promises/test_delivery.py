"""Every event reaches its user once, in order, though sockets drop at random moments; and nobody else."""

import asyncio
import json
import random

from tests.serving import serving
from tests.socket_client import Client

USERS, RUNS, DELTAS, INTERVAL_MS = 50, 2, 200, 20


def is_done(client: Client, run_ids: list[str]) -> bool:
    return bool(run_ids) and set(run_ids) <= client.ended()


async def listen_through_drops(client: Client, chance: random.Random, run_ids: list[str]):
    """Stay connected until all runs have ended; until then the network cuts 0.2-1.5 s after each connect."""
    first = True
    while not is_done(client, run_ids):
        async with client.connected():
            if first:
                thread_ids = [await client.new_thread() for _ in range(RUNS)]
                text = f"count={DELTAS} interval_ms={INTERVAL_MS} tag=of-{client.name}"
                run_ids.extend([await client.run(thread_id, text) for thread_id in thread_ids])
                first = False
            cut = asyncio.get_running_loop().call_later(chance.uniform(0.2, 1.5), client.drop)
            await client.until(lambda c: c.close_code is not None or is_done(c, run_ids))
            cut.cancel()


async def test_fifty_users_lose_nothing_see_nothing_twice_and_nothing_of_each_other(server, time_budget, tmp_path):
    seed = time_budget("soak").seed
    names = [f"user{n}" for n in range(USERS)]
    tokens = server.tokens(names)
    clients, runs = [], []
    async with asyncio.TaskGroup() as group:
        for number, name in enumerate(names):
            client = Client(server.url, server.ws_url, tokens[name])
            client.name = name
            clients.append(client)
            runs.append([])
            group.create_task(listen_through_drops(client, random.Random(seed + number), runs[-1]))
    assert sum(client.connections for client in clients) > 2 * USERS, "the drops must bite"
    everyones = {run_id: client for client, run_ids in zip(clients, runs, strict=True) for run_id in run_ids}
    for client, run_ids in zip(clients, runs, strict=True):
        assert not client.resets
        for run_id in run_ids:
            assert client.text(run_id) == "".join(f"{i}:of-{client.name} " for i in range(DELTAS))
            assert [event["type"] for event in client.terminals(run_id)] == ["RUN_FINISHED"]
        client._note("done")
        foreign = {entry["run_id"] for entry in client.seen} - set(run_ids) - {None}
        assert not foreign, f"{client.name} saw runs of {[everyones[run_id].name for run_id in foreign]}"
    file = tmp_path / "history.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for client in clients for line in client.history))
    judged = server.manage("check_history", str(file))
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert f"{sum(len(client.seen) for client in clients)} events to {USERS} clients" in judged.stdout


async def test_a_second_tab_and_a_late_tab_see_the_same_events(server):
    token = server.token("anna")
    first, second = (Client(server.url, server.ws_url, token) for _ in range(2))
    thread_id = await first.new_thread()
    start = (await first.snapshot(thread_id))["position"]
    late = Client(server.url, server.ws_url, token)
    late.position, late.seq = start, int(start.split(".")[1])
    async with first.connected(), second.connected():
        await asyncio.gather(
            *(c.until(lambda c: c.hello) for c in (first, second)),
        )
        run_id = await first.run(thread_id, "count=300 interval_ms=1 tag=x")
        await asyncio.gather(*(tab.until_ended(run_id) for tab in (first, second)))
        async with late.connected():
            await late.until_ended(run_id)
    assert first.seen == second.seen
    assert late.seen[-len(first.seen) :] == first.seen


class SilentTab(Client):
    """Acknowledges only when it is told to."""

    told = 0

    async def send(self, frame):
        if frame["type"] != "ack":
            await super().send(frame | ({"acked": self.told} if frame["type"] == "pong" else {}))

    async def acknowledge(self):
        self.told = self.seq
        await super().send({"type": "ack", "seq": self.seq})


async def test_a_tab_that_never_acknowledges_is_sent_a_window_and_no_more_and_the_rest_after_its_ack(
    tmp_path, migrated
):
    small = {"TURNOUT_WINDOW_EVENTS": "160", "TURNOUT_SEGMENT_EVENTS": "8"}
    with serving(tmp_path / "server", migrated, small) as server:
        client = Client(server.url, server.ws_url, server.token("anna"))
        thread_id = await client.new_thread()
        silent = SilentTab(server.url, server.ws_url, client.token)
        async with client.connected(), silent.connected():
            while len(client.seen) <= 160:  # a busy machine merges more deltas into fewer events
                await client.until_ended(await client.run(thread_id, "count=300 interval_ms=10 tag=x"))
            assert silent.hello["window"]["events"] == 160
            assert 0 < len(silent.seen) <= 160
            while silent.seq < client.seq:
                seen = silent.seq
                await silent.acknowledge()
                await silent.until(lambda c, seen=seen: c.seq > seen)
            assert silent.seen == client.seen
