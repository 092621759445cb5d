"""One connection over a real log: what is committed arrives, what stalls is closed, what is closed hears why."""

import asyncio
import gc

import pytest

from apps.realtime.connection import Health
from apps.realtime.protocol import UNREADABLE_POSITION, Ack, CloseCode, Ping, Pong, ProtocolViolation, Subscribe
from apps.vocabulary import Identity, Position, UserId
from tests.realtime.connected_room import Wire, open_connected_room

pytestmark = pytest.mark.django_db(transaction=True)
FROM_HEAD = Subscribe(None, None)


async def test_hello_comes_first_and_names_the_user_the_head_and_the_bounds():
    async with open_connected_room() as room:
        await room.append(1, 3)
        wire = Wire()
        await room.connect(1, wire)
        await wire.until(lambda w: w.frames)
        hello = wire.frames[0]
        assert hello["type"] == "hello"
        assert hello["user"] == {"id": "1", "name": "user1"}
        assert hello["head"].split(".")[1] == "3"
        assert hello["window"] == {"events": 512, "bytes": 262_144}


async def test_what_is_committed_reaches_all_tabs_of_its_user_and_no_other():
    async with open_connected_room() as room:
        wires = {(user, tab): Wire() for user in (1, 2) for tab in "ab"}
        for (user, _), wire in wires.items():
            (await room.connect(user, wire)).subscribe(FROM_HEAD)
        await room.append(1, 5)
        for tab in "ab":
            await wires[1, tab].until(lambda w: w.seqs() == [1, 2, 3, 4, 5])
            assert wires[2, tab].seqs() == []


async def test_a_tab_resumes_after_its_position_and_a_position_of_another_history_is_reset():
    async with open_connected_room() as room:
        await room.append(1, 2)
        wire, other = Wire(), Wire()
        connection = await room.connect(1, wire)
        await room.append(1, 2)
        await wire.until(lambda w: w.frames)
        connection.subscribe(Subscribe(Position.parse(wire.frames[0]["head"]), None))
        await wire.until(lambda w: w.seqs() == [3, 4])
        foreign = await room.connect(1, other)
        foreign.subscribe(Subscribe(UNREADABLE_POSITION, None))
        await other.until(lambda w: w.of("reset"))
        assert other.of("reset")[0]["reason"] == "epoch_changed"
        await room.append(1, 1)
        foreign.acknowledged(Ack(2**40))
        foreign.subscribe(Subscribe(Position.parse(other.of("reset")[0]["head"]), None))
        await other.until(lambda w: w.seqs() == [5])


async def test_a_full_window_stops_this_tab_only_until_it_acknowledges():
    async with open_connected_room(window_events=64) as room:
        silent, lively = Wire(), Wire()
        slow = await room.connect(1, silent)
        slow.subscribe(FROM_HEAD)
        quick = await room.connect(1, lively)
        quick.subscribe(FROM_HEAD)
        for total in range(20, 201, 20):
            await room.append(1, 20)
            await lively.until(lambda w, total=total: w.seqs()[-1:] == [total])
            quick.acknowledged(Ack(total))
        assert len(silent.seqs()) <= 64
        while silent.seqs() != list(range(1, 201)):
            seen = len(silent.seqs())
            slow.acknowledged(Ack(seen))
            await silent.until(lambda w, seen=seen: len(w.seqs()) > seen)


async def test_a_tab_that_neither_acknowledges_nor_answers_a_ping_is_closed_with_4408_and_a_pong_saves_it():
    async with open_connected_room() as room:
        dead, alive = Wire(), Wire()
        silent, answering = await room.connect(1, dead), await room.connect(1, alive)
        opened = silent._opened_at
        for connection in (silent, answering):
            connection.subscribe(FROM_HEAD)
        await dead.until(lambda w: w.of("hello"))
        await room.append(1)
        await dead.until(lambda w: w.seqs())
        for second in range(1, 48):
            for connection in (silent, answering):
                connection.tick(opened + second)
            if second % 15 == 1:
                answering.ponged(Pong(t=answering._ping_t or 0, acked=0))
                silent.ponged(Pong(t=-1, acked=0))  # says that it lives, and has read no ping
                silent.acknowledged(Ack(0))
        await dead.until(lambda w: w.close_code is not None)
        assert dead.close_code == CloseCode.NO_PROGRESS
        assert dead.of("bye")[0]["code"] == 4408
        assert alive.close_code is None
        assert len(alive.of("ping")) == 3


async def test_a_tab_that_never_subscribes_is_closed():
    async with open_connected_room() as room:
        wire = Wire()
        connection = await room.connect(1, wire)
        connection.tick(connection._opened_at + 11)
        await wire.until(lambda w: w.close_code is not None)
        assert wire.close_code == CloseCode.VIOLATION


async def test_an_ack_of_the_future_is_a_violation_and_a_ping_is_answered_with_its_number():
    async with open_connected_room() as room:
        wire = Wire()
        connection = await room.connect(1, wire)
        connection.subscribe(FROM_HEAD)
        connection.pinged(Ping(12.5))
        await wire.until(lambda w: w.of("pong"))
        assert wire.of("pong")[0]["t"] == 12.5
        await room.append(1)
        await wire.until(lambda w: w.seqs() == [1])
        with pytest.raises(ProtocolViolation):
            connection.acknowledged(Ack(5))


async def test_health_names_how_a_connection_keeps_up():
    async with open_connected_room() as room:
        wire = Wire()
        connection = await room.connect(1, wire)
        connection.subscribe(FROM_HEAD)
        await room.append(1, 100)
        await wire.until(lambda w: len(w.seqs()) == 100)
        assert connection.health is Health.LAGGING
        connection.acknowledged(Ack(100))
        assert connection.health is Health.HEALTHY
        for second in (16, 32):
            connection.tick(connection._opened_at + second)
        assert connection.health is Health.STALLED
        connection.close(CloseCode.GOING_AWAY, "test")
        assert connection.health is Health.DRAINING
        assert "1 " not in repr(connection).split()[0]


async def test_a_connection_that_is_collected_while_open_is_a_resource_warning():
    async with open_connected_room() as room:
        opened = room.bridges.open_connection
        manager = opened(Identity(UserId(1), "x"), Wire(), "p")
        connection = await manager.__aenter__()
        sender = connection._sender
        room.pool.remove(connection)
        with pytest.warns(ResourceWarning, match="collected while open"):
            connection.__del__()
        await manager.__aexit__(None, None, None)
        assert sender is not None
        assert sender.done()
        gc.collect()


async def test_a_sender_that_fails_is_reported_when_its_connection_is_left(caplog):
    class BrokenWire(Wire):
        async def send_text(self, text):
            raise ValueError("wire")

    async with open_connected_room() as room:
        connection = await room.connect(1, BrokenWire())
        assert connection._sender is not None
        await asyncio.wait([connection._sender])
    assert f"sending to {connection.connection_id} failed" in caplog.text
