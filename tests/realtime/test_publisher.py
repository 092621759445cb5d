"""What one run says can never stop the writer that all runs depend on, nor the loop they share."""

import asyncio

import pytest
from ag_ui.core import (
    RunFinishedEvent,
    RunStartedEvent,
    StateSnapshotEvent,
    TextMessageContentEvent,
    TextMessageStartEvent,
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
