"""Tabs that come back: many at once, and with a place that cannot be served any more."""

import asyncio
import json
import sqlite3
import time
from contextlib import AsyncExitStack, closing

import pytest
from websockets.asyncio.client import connect

from tests.faults.stalled_tabs import grow_streams
from tests.serving import serving
from tests.socket_client import Client

USERS, TABS_A_USER, MISSED = 20, 5, 500


@pytest.fixture(scope="module")
def server(tmp_path_factory, migrated):
    with serving(tmp_path_factory.mktemp("back"), migrated, {"TURNOUT_RETENTION_S": "3600"}) as started:
        started.names = started.tokens(f"user{number}" for number in range(USERS))
        yield started
        assert "Traceback" not in "".join(started.output), "".join(started.output)


async def test_a_storm_of_tabs_that_missed_five_hundred_events_is_live_within_seconds(server):
    tabs = [Client(server.url, server.ws_url, token) for token in server.names.values() for _ in range(TABS_A_USER)]
    async with AsyncExitStack() as stack:
        for tab in tabs:
            await stack.enter_async_context(tab.connected())
            tab.position, tab.seq = tab.hello["head"], int(tab.hello["head"].split(".")[1])
        for tab in tabs:
            tab.drop()
    await asyncio.to_thread(grow_streams, server, MISSED, 100)
    started = time.monotonic()
    waits = []
    async with AsyncExitStack() as stack:

        async def come_back(tab):
            await stack.enter_async_context(tab.connected())
            await tab.until(lambda client: len(client.seen) == MISSED)
            waits.append(time.monotonic() - started)

        await asyncio.gather(*map(come_back, tabs))
        waits.sort()
        print(
            f"{len(tabs)} tabs that missed {MISSED} events each: half live after {waits[len(waits) // 2]:.2f} s, ",
            end="",
        )
        print(f"all after {waits[-1]:.2f} s")
        assert waits[-1] < 10, "on a machine that does other things; the benchmark has the figure"
        for tab in tabs:
            assert [entry["seq"] for entry in tab.seen] == list(range(tab.seq - MISSED + 1, tab.seq + 1))
            assert tab.resets == []


class Socket:
    """A socket that says what it is told, and looks for one kind of frame."""

    def __init__(self, server, name):
        self.opening = connect(
            server.ws_url,
            subprotocols=["turnout.v1"],
            additional_headers={"Authorization": f"Bearer {server.names[name]}"},
            max_size=None,
        )

    async def __aenter__(self):
        self.socket = await self.opening.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self.opening.__aexit__(*error)

    async def say(self, **frame):
        await self.socket.send(json.dumps(frame))

    async def frame(self, kind):
        async with asyncio.timeout(30):
            while (frame := json.loads(await self.socket.recv()))["type"] != kind:
                pass
        return frame


async def test_each_reason_of_a_reset_is_told_over_the_socket_and_after_it_the_stream_goes_on(server):
    began = (await asyncio.to_thread(grow_streams, server, 40, 8_000))["user0"]
    asked = {}
    async with Socket(server, "user0") as tab:
        epoch, seq, _ = (await tab.frame("hello"))["head"].split(".")
        asked["ahead"] = f"{epoch}.{int(seq) + 1}.{'a' * 16}"
        asked["forked"] = f"{epoch}.{seq}.{'a' * 16}"
        asked["epoch_changed"] = f"{'f' * 16}.{seq}.{'a' * 16}"
        asked["trimmed"] = began
    with closing(sqlite3.connect(server.database, timeout=30)) as database, database:
        (user_id,) = database.execute("SELECT id FROM auth_user WHERE username = 'user0'").fetchone()
        place = "SELECT last_seq, tag FROM realtime_segment WHERE user_id = ? AND first_seq > ? ORDER BY first_seq"
        tail, tag = database.execute(place, (user_id, began.split(".")[1])).fetchone()
        database.execute("DELETE FROM realtime_segment WHERE user_id = ? AND last_seq <= ?", (user_id, tail))
        database.execute("UPDATE realtime_stream SET tail = ?, tail_tag = ? WHERE user_id = ?", (tail, tag, user_id))
    for reason, after in asked.items():
        async with Socket(server, "user0") as tab:
            await tab.say(type="subscribe", after=after)
            reset = await tab.frame("reset")
            assert reset["reason"] == reason
            await tab.say(type="ack", seq=10**9)  # under way when the reset came: ignored
            await tab.say(type="subscribe", after=reset["head"])
            await tab.say(type="ping", t=1)
            await tab.frame("pong")


async def test_a_connected_tab_is_told_of_a_new_epoch_within_two_polls(server):
    client = Client(server.url, server.ws_url, server.names["user1"])
    async with client.connected():
        with closing(sqlite3.connect(server.database, timeout=30)) as database, database:
            (user_id,) = database.execute("SELECT id FROM auth_user WHERE username = 'user1'").fetchone()
            database.execute("UPDATE realtime_stream SET epoch = ? WHERE user_id = ?", ("e" * 16, user_id))
        await client.until(lambda tab: tab.resets, timeout_s=10)
        assert client.resets[0]["reason"] == "epoch_changed"
        assert client.position.split(".")[0] == "e" * 16
        await client.until_ended(await client.run(await client.new_thread(), "count=1 interval_ms=1 tag=x"))
        assert client.close_code is None
