"""What one run says can never stop the writer that all runs depend on, nor the loop they share."""

import asyncio

import orjson
import pytest
from ag_ui.core import (
    RunFinishedEvent,
    RunStartedEvent,
    StateSnapshotEvent,
    TextMessageContentEvent,
    TextMessageStartEvent,
    ToolCallStartEvent,
)

from apps.realtime.group_commit import FlushLimits
from apps.realtime.log import LogLimits
from apps.realtime.publisher import EventBudgetExceeded, EventRefused, PublisherLimits
from apps.realtime.values import Ending
from tests.realtime.logging_room import open_log_room

pytestmark = pytest.mark.django_db(transaction=True)


def finished(lease) -> Ending:
    return Ending(RunFinishedEvent(thread_id=lease.thread_id, run_id=lease.run_id), "succeeded", {})


async def test_ids_that_cannot_be_stored_are_made_storable_like_any_text():
    async with open_log_room() as room:
        lease = await room.lease(1)
        publisher = room.publisher(lease)
        await publisher.publish(TextMessageStartEvent(message_id="m\ud800"))
        await publisher.publish(TextMessageContentEvent(message_id="m\ud800", delta="a"))
        await publisher.finish(finished(lease))
        ids = {entry["event"].get("messageId") for entry in await room.entries(1)} - {None}
        assert ids == {"m\ufffd"}


async def test_a_bridge_that_raises_ends_its_own_run_and_not_the_writer():
    class BrokenBridge:
        def recipients(self, event_type):
            raise RuntimeError("bridge")

    async with open_log_room() as room:
        broken, healthy = await room.lease(1), await room.lease(2)
        bad, good = room.publisher(broken, BrokenBridge()), room.publisher(healthy)
        await bad.publish(TextMessageStartEvent(message_id="m"))
        await good.publish(TextMessageStartEvent(message_id="m"))
        await good.finish(finished(healthy))
        with pytest.raises(EventRefused):
            await bad.publish(TextMessageStartEvent(message_id="n"))
        assert room.log.is_open
        assert [run.user_id for run in room.settle.ended] == [2]


async def test_an_agent_that_never_waits_lets_others_run_and_pays_for_what_nobody_sees():
    async with open_log_room(LogLimits(publisher=PublisherLimits(run_events=500))) as room:
        publisher = room.publisher(await room.lease(1))
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        with pytest.raises(EventBudgetExceeded):
            await flood(publisher)
        beside.cancel()
        assert turns > 10
        assert publisher.hidden_events == 500


async def flood(publisher):
    while True:
        await publisher.publish(StateSnapshotEvent(snapshot={"secret": 1}))


async def test_a_flooding_run_leaves_room_for_its_users_other_runs():
    limits = LogLimits(flush=FlushLimits(events_per_user=8), publisher=PublisherLimits(waiting_events=64))
    async with open_log_room(limits) as room:
        flooding, modest = await room.lease(1), await room.lease(1)
        flooder, publisher = room.publisher(flooding), room.publisher(modest)

        async def pour():
            number = 0
            while True:
                number += 1
                await flooder.publish(RunStartedEvent(thread_id="t", run_id="r") if number == 1 else message(number))

        pouring = asyncio.create_task(pour())
        async with asyncio.timeout(10):
            await publisher.publish(TextMessageStartEvent(message_id="modest"))
            await publisher.finish(finished(modest))
        assert not pouring.done(), "the flood must still go on"
        pouring.cancel()


def message(number):
    return TextMessageStartEvent(message_id=f"m{number}")


async def test_a_delta_of_thirty_megabytes_never_holds_more_than_a_run_may_and_ends_at_its_budget():
    limits = LogLimits(publisher=PublisherLimits(waiting_bytes=65_536, event_bytes=16_384, run_bytes=1_000_000))
    async with open_log_room(limits) as room:
        publisher = room.publisher(await room.lease(1))
        most = 0

        async def watch():
            nonlocal most
            while True:
                most = max(most, publisher._waiting_bytes)
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        await publisher.publish(TextMessageStartEvent(message_id="m"))
        with pytest.raises(EventBudgetExceeded):
            await publisher.publish(TextMessageContentEvent(message_id="m", delta="\x1f" * 30_000_000))
        watching.cancel()
        assert most <= 65_536 + 2 * 16_384, "one piece more than the bound, at most as it grows into JSON"
        await publisher.finish(finished(publisher._lease))
        entries = await room.entries(1)
        assert max(len(str(entry["event"].get("delta", "")).encode()) for entry in entries) < 16_384
        assert 500_000 < publisher._run_bytes < 1_100_000


async def test_a_large_delta_is_told_whole_in_events_that_are_small_enough():
    async with open_log_room(LogLimits(publisher=PublisherLimits(event_bytes=8_192))) as room:
        lease = await room.lease(1)
        publisher = room.publisher(lease)
        text = "".join(chr(32 + n % 5_000) for n in range(100_000))
        await publisher.publish(TextMessageStartEvent(message_id="m"))
        await publisher.publish(TextMessageContentEvent(message_id="m", delta=text))
        await publisher.finish(finished(lease))
        entries = await room.entries(1)
        assert "".join(entry["event"].get("delta", "") for entry in entries) == text
        assert max(len(orjson.dumps(entry)) for entry in entries) <= 8_192 + 24  # the seq that the commit adds


@pytest.mark.parametrize(
    "event",
    [
        TextMessageStartEvent(message_id="m" * 129),
        TextMessageContentEvent(message_id="m" * 129, delta="x"),
        ToolCallStartEvent(tool_call_id="t" * 129, tool_call_name="clock"),
        ToolCallStartEvent(tool_call_id="t", tool_call_name="clock", parent_message_id="p" * 129),
    ],
)
async def test_an_id_that_is_too_long_is_refused_and_the_message_says_what_is_accepted(event):
    async with open_log_room() as room:
        publisher = room.publisher(await room.lease(1))
        with pytest.raises(EventRefused, match="129 characters; an id has at most 128"):
            await publisher.publish(event)
