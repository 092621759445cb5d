"""Who is connected, who must go, and that nobody is forgotten."""

from itertools import pairwise

import pytest

from apps.realtime.pool import ConnectionRefused
from apps.realtime.protocol import CloseCode, Subscribe
from tests.realtime.connected_room import Wire, open_connected_room

pytestmark = pytest.mark.django_db(transaction=True)
FROM_HEAD = Subscribe(None, None)


async def test_over_the_limit_of_a_user_the_oldest_connection_goes_with_4409_and_no_other_users():
    async with open_connected_room(connections_per_user=2) as room:
        wires = [Wire() for _ in range(4)]
        other = Wire()
        await room.connect(2, other)
        for wire in wires:
            await room.connect(1, wire)
        for wire in wires[:2]:
            await wire.until(lambda w: w.close_code is not None)
        assert [wire.close_code for wire in (*wires, other)] == [
            CloseCode.REPLACED,
            CloseCode.REPLACED,
            None,
            None,
            None,
        ]


async def test_a_full_process_refuses_with_4013_and_says_when_to_come_back():
    async with open_connected_room(connections=1) as room:
        await room.connect(1, Wire())
        with pytest.raises(ConnectionRefused) as refused:
            await room.connect(2, Wire())
        assert refused.value.close_code is CloseCode.OVERLOADED
        assert 0 < refused.value.retry_after_ms <= 1000


async def test_a_drain_refuses_newcomers_and_sends_every_tab_away_spread_over_time():
    async with open_connected_room(connections_per_user=50) as room:
        wires = [Wire() for _ in range(20)]
        for wire in wires:
            await room.connect(1, wire)
        room.pool.refuse_newcomers()
        with pytest.raises(ConnectionRefused) as refused:
            await room.connect(2, Wire())
        assert refused.value.close_code is CloseCode.RESTARTING
        room.pool.say_goodbye()
        for wire in wires:
            await wire.until(lambda w: w.close_code is not None)
        assert {wire.close_code for wire in wires} == {CloseCode.RESTARTING}
        assert len({wire.of("bye")[0]["retry_after_ms"] for wire in wires}) > 10
        await room.stack.aclose()
        await room.pool.wait_until_empty()


async def test_who_lost_the_right_to_be_here_is_closed_with_4401_and_nobody_else():
    async with open_connected_room() as room:
        gone, staying = Wire(), Wire()
        await room.connect(1, gone, principal="session-a")
        await room.connect(1, staying, principal="session-b")
        room.invalid.add("session-a")
        await room.pool._revalidate()
        await gone.until(lambda w: w.close_code is not None)
        assert gone.close_code == CloseCode.NO_USER
        assert staying.close_code is None


async def test_a_lost_hint_costs_one_poll_and_no_event():
    async with open_connected_room() as room:
        wire = Wire()
        (await room.connect(1, wire)).subscribe(FROM_HEAD)
        await room.append(1, 1)
        await wire.until(lambda w: w.seqs() == [1])  # it has caught up, so no reading of its own is under way
        room.log._audience = None  # another process commits, and its hint is lost
        await room.append(1, 3)
        assert wire.seqs() == [1]
        await room.pool._poll_heads()
        await wire.until(lambda w: w.seqs() == [1, 2, 3, 4])


async def test_a_connection_that_cannot_go_on_is_sent_away_and_the_users_other_tab_goes_on(monkeypatch):
    async with open_connected_room() as room:
        broken, whole = Wire(), Wire()
        connection = await room.connect(1, broken)

        def lost_its_place(_page):
            raise LookupError("no such place")

        monkeypatch.setattr(connection, "committed", lost_its_place)
        for wire, tab in ((broken, connection), (whole, await room.connect(1, whole))):
            tab.subscribe(FROM_HEAD)
            await wire.until(lambda w: w.frames)
        await room.append(1, 2)
        await whole.until(lambda w: w.seqs() == [1, 2])
        await broken.until(lambda w: w.close_code is not None)
        assert broken.close_code == CloseCode.GOING_AWAY


async def test_closing_a_user_closes_all_their_tabs_and_the_pool_forgets_who_left():
    async with open_connected_room() as room:
        wires = [Wire(), Wire()]
        for wire in wires:
            await room.connect(1, wire)
        assert room.pool.close_user(1, CloseCode.FORBIDDEN, "gone") == 2
        assert room.pool.close_user(2, CloseCode.FORBIDDEN, "gone") == 0
        for wire in wires:
            await wire.until(lambda w: w.close_code is not None)
        census = room.pool.census()
        assert census["connections"] == 2
        assert census["connections_draining"] == 2
        await room.stack.aclose()
        census = room.pool.census()
        assert (census["connections"], census["connected_users"]) == (0, 0)
        assert census["connections_closed_forbidden_total"] == 2


async def test_an_address_has_its_own_bound_and_gets_its_places_back():
    async with open_connected_room(connections_per_address=2) as room:
        for _ in range(2):
            await room.connect(1, Wire(), address="192.0.2.1")
        with pytest.raises(ConnectionRefused, match="one address may have 2") as refused:
            await room.connect(2, Wire(), address="192.0.2.1")
        assert refused.value.close_code is CloseCode.OVERLOADED
        await room.connect(2, Wire(), address="192.0.2.2")
        await room.connect(3, Wire())
        assert room.pool.census()["connections_refused_total"] == 1
        assert room.pool.census()["addresses"] == 2
        await room.stack.aclose()
        assert room.pool.census()["addresses"] == 0
        await room.connect(2, Wire(), address="192.0.2.1")


async def test_a_socket_that_shakes_hands_has_its_place_already():
    async with open_connected_room(connections=2) as room:
        with room.pool.place("a"), room.pool.place("b"):
            assert room.pool.census()["handshakes"] == 2
            with pytest.raises(ConnectionRefused), room.pool.place("c"):
                pass
        assert room.pool.census()["handshakes"] == 0
        with room.pool.place("c"):
            pass


async def test_time_in_which_the_process_stood_still_counts_against_no_tab():
    times = iter([100.0, 101.0, 102.0, 102.5, 162.5, 163.5])
    now = [0.0]

    def clock():
        return now[0]

    async with open_connected_room(clock=clock) as room:
        seen = []
        for now[0] in times:
            await room.pool._tick()
            seen.append(room.pool.now - 100.0)
        steps = [round(after - before, 1) for before, after in pairwise(seen)]
        assert steps == [1.0, 1.0, 0.5, 2.0, 1.0], "of the minute two seconds count"
