"""One connection over a real log: what is committed arrives, what stalls is closed, what is closed hears why."""

import asyncio
import gc
import sys

import pytest

from apps.realtime.connection import Health
from apps.realtime.models import Stream, new_epoch
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
        await room.append(1)
        await dead.until(lambda w: w.seqs())
        await alive.until(lambda w: w.seqs())
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
        assert len(dead.of("ping")) == 1, "the one that it left unanswered"
        assert alive.close_code is None
        assert len(alive.of("ping")) == 3
        assert room.pool.closed_for == {"no_progress": 1}, "a tick that closes is counted like every other close"


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
        for second, health in ((16, Health.HEALTHY), (25, Health.HEALTHY), (27, Health.STALLED)):
            connection.tick(connection._opened_at + second)
            assert connection.health is health, "10 s after the ping that it left unanswered"
        connection.ponged(Pong(t=connection._ping_t or 0, acked=100))
        assert connection.health is Health.HEALTHY
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


class BrokenWire(Wire):
    async def send_text(self, text):
        raise ValueError("wire")


class DeafWire(Wire):
    """A server whose `send` waits for a client that does not read."""

    def __init__(self):
        super().__init__()
        self.reading = asyncio.Event()
        self.given = 0

    async def send_text(self, text):
        self.given += 1
        self.changed.set()
        await self.reading.wait()
        await super().send_text(text)


async def test_a_sender_that_fails_ends_its_connection_at_once_and_is_reported_and_counted(caplog):
    async with open_connected_room() as room:
        async with room.bridges.open_connection(Identity(UserId(1), "x"), BrokenWire(), "p") as connection:
            await asyncio.Event().wait()  # as a consumer waits for the next frame of its tab
        assert f"sending to {connection.connection_id} failed" in caplog.text
        assert connection.last_words is not None
        assert connection.last_words.code is CloseCode.GOING_AWAY
        assert 0 < connection.last_words.retry_after_ms <= 1000
        assert room.pool.closed_for == {"going_away": 1}
        assert room.pool.census()["connections"] == 0


async def test_a_defect_of_who_holds_a_connection_is_not_taken_for_one_of_its_sender(caplog):
    async with open_connected_room() as room:
        with pytest.raises(KeyError):
            async with room.bridges.open_connection(Identity(UserId(1), "x"), Wire(), "p"):
                raise KeyError("consumer")
        assert "failed" not in caplog.text
        assert room.pool.census()["connections"] == 0


async def test_a_defect_of_who_holds_a_connection_goes_on_beside_one_of_its_sender(caplog):
    async def hold(bridges):
        async with bridges.open_connection(Identity(UserId(1), "x"), BrokenWire(), "p"):
            try:
                await asyncio.Event().wait()
            finally:
                raise KeyError("consumer")

    async with open_connected_room() as room:
        with pytest.raises(KeyError):
            await hold(room.bridges)
        assert "failed" in caplog.text
        assert room.pool.census()["connections"] == 0


async def test_a_send_that_never_returns_is_given_up_when_the_tab_was_told_to_go():
    async with open_connected_room() as room:
        deaf = DeafWire()
        async with room.bridges.open_connection(Identity(UserId(1), "x"), deaf, "p") as connection:
            await deaf.until(lambda w: w.given)
            opened = connection._opened_at
            connection.subscribe(FROM_HEAD)
            for second in range(1, 100):
                connection.tick(opened + second)
                if connection.health is Health.DRAINING:
                    break
            assert 45 <= second <= 47, "a heartbeat, then the time that a ping may stay unanswered"
            for _ in range(4):  # and two seconds to take what it was sent before
                second += 1
                connection.tick(opened + second)
                await asyncio.sleep(0)
            await asyncio.Event().wait()
        assert connection.last_words is not None
        assert connection.last_words.code is CloseCode.NO_PROGRESS
        assert room.pool.census()["connections"] == 0
        assert room.pool.closed_for == {"no_progress": 1}


async def test_replies_that_nobody_reads_have_a_bound_and_of_the_pongs_one_waits():
    async with open_connected_room(waiting_frames=5) as room:
        deaf = DeafWire()
        connection = await room.connect(1, deaf)
        await deaf.until(lambda w: w.given)
        for number in range(1000):
            connection.pinged(Ping(number))
        for number in range(5):
            connection.reply(f'{{"type":"reply","id":"{number}"}}')
        assert connection.health is Health.HEALTHY
        connection.reply('{"type":"reply","id":"5"}')
        assert connection.health is Health.DRAINING
        deaf.reading.set()
        await deaf.until(lambda w: w.close_code is not None)
        assert [frame["t"] for frame in deaf.of("pong")] == [999]
        assert [frame["id"] for frame in deaf.of("reply")] == list("01234")
        assert deaf.close_code == CloseCode.TOO_FAST


async def test_an_ack_counts_only_for_what_was_handed_over():
    async with open_connected_room() as room:
        deaf = DeafWire()
        connection = await room.connect(1, deaf)
        await deaf.until(lambda w: w.given)
        connection.subscribe(FROM_HEAD)
        await room.append(1)
        while connection._cursor.sent < 1:
            await room.append(1)
        with pytest.raises(ProtocolViolation, match="only 0 was sent"):
            connection.acknowledged(Ack(1))  # as another tab of this user may have read it
        deaf.reading.set()
        await deaf.until(lambda w: w.seqs())
        connection.acknowledged(Ack(1))


async def test_text_that_waits_takes_no_more_than_its_bytes_on_the_wire():
    async with open_connected_room() as room:
        deaf = DeafWire()
        connection = await room.connect(1, deaf)
        await deaf.until(lambda w: w.given)
        wide = '{"type":"reply","id":"' + "a" * 10_000 + '😀"}'
        connection.reply(wide)
        assert sys.getsizeof(connection._emitter._frames[-1].content) < 10_200, "as str it would be 40 KB"
        deaf.reading.set()
        await deaf.until(lambda w: w.of("reply"))
        assert deaf.of("reply")[0]["id"] == "a" * 10_000 + "😀"


async def test_the_tabs_of_a_user_share_one_encoded_frame_and_one_compressed_frame():
    async with open_connected_room(connections_per_user=9) as room:
        plain, packed = [Wire(), Wire()], [Wire(), Wire(), Wire()]
        for wire in plain:
            (await room.connect(1, wire)).subscribe(FROM_HEAD)
        for wire in packed:
            (await room.connect(1, wire)).subscribe(Subscribe(None, "deflate-raw"))
        await room.append(1, 1)
        for wire in (*plain, *packed):
            await wire.until(lambda w: w.seqs() == [1])
        await room.append(1, 200)
        for wire in (*plain, *packed):
            await wire.until(lambda w: len(w.seqs()) == 201)
        assert not any(wire.packed for wire in plain)
        first = packed[0].packed
        assert first
        assert all(mine is theirs for wire in packed for mine, theirs in zip(wire.packed, first, strict=True))
        await room.append(1, 1)
        for wire in packed:
            await wire.until(lambda w: len(w.seqs()) == 202)
            assert len(wire.packed) == len(first), "a small frame is not worth it"


async def test_a_tab_is_heard_before_it_was_greeted_and_what_it_asked_comes_after_hello():
    async with open_connected_room() as room:
        wire = Wire()
        async with room.bridges.open_connection(Identity(UserId(1), "x"), wire, "p") as connection:
            assert room.pool.census()["connections"] == 1
            connection.subscribe(FROM_HEAD)
            connection.reply('{"type":"reply","id":"early"}')
            with pytest.raises(ProtocolViolation):
                connection.subscribe(FROM_HEAD)
            connection.acknowledged(Ack(0))
            await wire.until(lambda w: w.frames)
            await room.append(1, 2)
            await wire.until(lambda w: w.seqs() == [1, 2])
            assert [frame["type"] for frame in wire.frames] == ["hello", "reply", "events"]


async def test_who_is_closed_before_the_stream_was_found_hears_why_and_no_hello():
    async with open_connected_room() as room:
        wire = Wire()
        async with room.bridges.open_connection(Identity(UserId(1), "x"), wire, "p") as connection:
            connection.tick(connection._opened_at + 11)
            await wire.until(lambda w: w.close_code is not None)
            assert wire.close_code == CloseCode.OVERLOADED, "it is not the tab that is late"
        assert [frame["type"] for frame in wire.frames] == ["bye"]


async def test_an_epoch_that_changes_under_a_connected_tab_resets_it_with_the_next_poll_and_with_the_next_commit():
    def rotate():
        Stream.objects.filter(user_id=1).update(epoch=new_epoch())

    async with open_connected_room() as room:
        wire = Wire()
        connection = await room.connect(1, wire)
        connection.subscribe(FROM_HEAD)
        await room.append(1, 2)
        await wire.until(lambda w: w.seqs() == [1, 2])
        await room.database.call(rotate)
        await room.pool._poll_heads()
        await wire.until(lambda w: w.of("reset"))
        connection.subscribe(Subscribe(Position.parse(wire.of("reset")[0]["head"]), None))
        await room.append(1, 1)
        await wire.until(lambda w: w.seqs() == [1, 2, 3])
        await room.database.call(rotate)
        await room.append(1, 1)
        await wire.until(lambda w: len(w.of("reset")) == 2)
        assert [frame["reason"] for frame in wire.of("reset")] == ["epoch_changed"] * 2
        connection.acknowledged(Ack(2**40))  # under way when the reset was sent
        connection.subscribe(Subscribe(Position.parse(wire.of("reset")[1]["head"]), None))
        await room.append(1, 1)
        await wire.until(lambda w: w.seqs() == [1, 2, 3, 5])
