"""Clients that do not read, do not answer or come in floods: they cost what the bounds say, and nobody else anything.

Faults 6, 7, 15 and 18 of the fault list, against a real server.
"""

import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress

import pytest

from tests.faults.stalled_tabs import StalledTab, counts, descriptors, grow_streams, resident_bytes, sockets
from tests.proxy import Proxy
from tests.serving import serving
from tests.socket_client import Client

QUICK = {
    "TURNOUT_METRICS": "1",
    "TURNOUT_HEARTBEAT_S": "1",
    "TURNOUT_STALLED_AFTER_S": "1",
    "TURNOUT_STALL_TIMEOUT_S": "8",
    "TURNOUT_CLOSING_S": "1",
}
WINDOW_BYTES = 262_144
TOLD_TO_GO = 'pool_connections_closed_total{reason="no_progress"}'


@pytest.fixture(scope="module")
def stalled_tabs(request):
    """How many; all of them must be there before the first one is closed."""
    return 1_000 if request.config.getoption("--proof") else 100


@pytest.fixture(scope="module")
def server(tmp_path_factory, migrated, stalled_tabs):
    bounds = QUICK | {"TURNOUT_CONNECTIONS_PER_USER": "200"}
    if stalled_tabs > 100:
        bounds |= {"TURNOUT_STALL_TIMEOUT_S": "60", "TURNOUT_CONNECTIONS_PER_ADDRESS": "2000"}
    with serving(tmp_path_factory.mktemp("slow"), migrated, bounds) as started:
        started.names = started.tokens(f"user{number}" for number in range(10))
        yield started
        assert "Traceback" not in "".join(started.output), "".join(started.output)


async def settled(server, condition, timeout_s=30):
    """Wait until what the server says that it holds fulfils the condition."""
    deadline = time.monotonic() + timeout_s
    while not condition(found := await asyncio.to_thread(counts, server)):
        assert time.monotonic() < deadline, {k: v for k, v in found.items() if "pool" in k and v}
    return found


async def pings(client, number):
    """How long the slowest of so many pings took, in seconds."""
    slowest = 0.0
    for sent in range(number):
        started = time.monotonic()
        await client.ping(sent)
        slowest = max(slowest, time.monotonic() - started)
    return slowest


class Bystander(Client):
    """Another tab, which measures how long the server takes to answer."""

    async def open(self):
        await super().open()
        self.answered = asyncio.Event()

    async def _frame(self, frame):
        if frame["type"] == "pong":
            self.answered.set()
        await super()._frame(frame)

    async def ping(self, t):
        self.answered.clear()
        await self.send({"type": "ping", "t": t})
        async with asyncio.timeout(30):
            await self.answered.wait()


@contextmanager
def flooding(server, token, number):
    """So many handshakes at once, whatever becomes of each."""
    with ExitStack() as stack:
        for _ in range(number):
            with suppress(ConnectionError):
                stack.enter_context(StalledTab(server, token))
        yield


async def test_6_stalled_tabs_are_sent_a_window_each_and_cost_no_more_and_nobody_else_waits_for_them(
    server, time_budget
):
    number = 1_000 if time_budget("simulation").seconds > 60 else 100
    users = list(server.names)
    began = grow_streams(server, 60, 8_000)
    open_before = sockets(server)
    bystander = Bystander(server.url, server.ws_url, server.names[users[0]])

    async def stall(stack, position):
        name = users[position % len(users)]
        tab = stack.enter_context(await asyncio.to_thread(StalledTab, server, server.names[name]))
        await asyncio.to_thread(tab.shake_hands)
        tab.say({"type": "subscribe", "after": began[name]})
        return tab

    async with AsyncExitStack() as stack, bystander.connected():
        with ExitStack() as warm_up:  # what the process takes once, for its first tabs, is no tab's
            for position in range(20):
                await stall(warm_up, position)
            await settled(server, lambda found: found['pool_connections_by_health{health="stalled"}'] == 20)
        await settled(server, lambda found: found["pool_connections"] == 1)
        before = resident_bytes(server)
        alone = await pings(bystander, 50)
        for position in range(number):
            tab = await stall(stack, position)
        held = []

        def all_stall(found):
            held.append(resident_bytes(server) - before)
            return found['pool_connections_by_health{health="stalled"}'] + found.get(TOLD_TO_GO, 0) >= number

        await settled(server, all_stall, timeout_s=60)
        beside = await pings(bystander, 50)
        print(
            f"{number} stalled tabs: {max(held) / number / 1024:.0f} KiB each; slowest ping {alone:.3f}, {beside:.3f} s"
        )
        assert max(held) <= number * WINDOW_BYTES * 1.05
        assert beside < alone + 0.5
        sent = await asyncio.to_thread(tab.sent_so_far)
        in_flight = sum(len(json.dumps(frame["events"])) for frame in sent if frame["type"] == "events")
        assert 0.7 * WINDOW_BYTES < in_flight <= WINDOW_BYTES * 1.05, "one window, of more that there is"
        gone = await settled(server, lambda found: found["pool_connections"] <= 2, timeout_s=200)
        assert gone[TOLD_TO_GO] >= number - 1
    await settled(server, lambda _: sockets(server) <= open_before + 5)


async def test_7_a_tab_behind_a_dead_line_is_closed_and_leaves_nothing(server):
    async with Proxy(("127.0.0.1", server.port)) as line, AsyncExitStack() as stack:
        address = f"ws://127.0.0.1:{line.port}/ws/chat/"
        clients = [Client(server.url, address, token) for token in server.names.values()]
        for client in clients:
            await stack.enter_async_context(client.connected())
        await settled(server, lambda found: found["pool_connections"] == len(clients))
        line.blackhole("up", "down")
        await settled(server, lambda found: not found["pool_connections"])
        assert line.lost_bytes, "the fault must bite"
        for client in clients:
            client.drop()


async def test_15_a_process_that_stood_still_closes_nobody_for_it(tmp_path, migrated):
    with serving(tmp_path / "server", migrated, QUICK | {"TURNOUT_STALL_TIMEOUT_S": "2"}) as server:
        tokens = server.tokens(f"user{number}" for number in range(5))
        clients = [Client(server.url, server.ws_url, token) for token in tokens.values()]
        async with AsyncExitStack() as stack:
            for client in clients:
                await stack.enter_async_context(client.connected())
            await settled(server, lambda found: found["pool_connections"] == len(clients))
            server.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(5)  # longer than a ping may stay unanswered: the fault itself
            server.process.send_signal(signal.SIGCONT)
            for client in clients:
                await client.until_ended(await client.run(await client.new_thread(), "count=1 interval_ms=1 tag=x"))
            assert [client.close_code for client in clients] == [None] * len(clients)
            assert TOLD_TO_GO not in await asyncio.to_thread(counts, server)


async def test_18_without_descriptors_newcomers_are_told_to_back_off_and_pages_and_tabs_go_on(tmp_path, migrated):
    bounds = QUICK | {"TURNOUT_CONNECTIONS_PER_USER": "500"}
    with serving(tmp_path / "server", migrated, bounds, most_files=160) as server:
        assert any("this process may open 160 files" in line for line in server.output)
        token = server.token("anna")
        staying = Client(server.url, server.ws_url, token)
        open_before = sockets(server)
        async with AsyncExitStack() as stack, staying.connected(), staying.http() as http:
            told = []
            for _ in range(105):
                tab = stack.enter_context(await asyncio.to_thread(StalledTab, server, token))
                told.append(await asyncio.to_thread(tab.frame))
            kinds = [frame["type"] for frame in told]
            assert kinds == ["hello"] * 99 + ["bye"] * 6, "five eighths of 160, one of them the tab that stays"
            assert told[-1]["code"] == 4013
            assert told[-1]["retry_after_ms"] > 0
            assert (await http.get("/healthz")).status_code == 200
            with flooding(server, token, 300):
                for _ in range(50):
                    assert (await http.get("/healthz")).status_code == 200, "over the connection that it has"
                    assert descriptors(server) < 160, "the last ones are not for clients"
            await staying.until_ended(await staying.run(await staying.new_thread(), "count=1 interval_ms=1 tag=x"))
        await settled(server, lambda found: not found["pool_connections"])
        # SQLite keeps the files of connections that were closed while another one held a lock, and takes them again.
        await settled(server, lambda _: sockets(server) <= open_before + 5)
