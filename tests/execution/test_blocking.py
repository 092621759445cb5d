"""Agents that block their thread: to everybody else they are as any other."""

import threading

import pytest

from apps.execution.watchdog import LoopWatchdog
from tests.execution.odd_agents import LET_GO
from tests.execution.running_room import ANN, BOB, TERMINAL, eventually, open_running_room

pytestmark = pytest.mark.django_db(transaction=True)


def blocking_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("blocking-")]


async def test_an_agent_that_sleeps_blocks_nobody_and_the_watchdog_says_nothing():
    async with open_running_room() as room, room.executing(), LoopWatchdog(0.6).open() as watchdog:
        slow = await room.start(ANN, "sleeper", "once 1.2")
        await room.seen(ANN, slow, "TEXT_MESSAGE_CONTENT")
        await room.ended(BOB, await room.start(BOB, "metronome", "count=3 interval_ms=1"))
        assert not TERMINAL & set(room.kinds(ANN, slow))
        assert (await room.ended(ANN, slow))["outcome"]["type"] == "success"
        assert watchdog.census()["stalls_total"] == 0
        await eventually(lambda: not blocking_threads())


async def test_a_blocking_agent_that_yields_is_cancelled_as_any_other():
    async with open_running_room() as room, room.executing() as executor:
        run_id = await room.start(ANN, "sleeper", "step 0.01")
        await room.seen(ANN, run_id, "TEXT_MESSAGE_CONTENT")
        await room.cancel(ANN, run_id)
        assert (await room.ended(ANN, run_id))["outcome"]["type"] == "cancelled"
        await eventually(lambda: not blocking_threads())
        assert executor.census()["abandoned_total"] == 0


@pytest.mark.parametrize("stopped", ["timeout", "cancelled"])
async def test_a_blocking_agent_that_never_yields_is_left_behind_with_its_slot_and_its_run_ends(stopped):
    limits = {"cancel_timeout_s": 0.05, "run_timeout_s": 0.5 if stopped == "timeout" else 30.0}
    async with open_running_room(run_slots=1, run_slots_per_user=1, **limits) as room, room.executing() as executor:
        run_id = await room.start(ANN, "sleeper", "hold")
        await eventually(lambda: run_id in LET_GO)
        if stopped == "cancelled":
            await room.cancel(ANN, run_id)
        ended = await room.ended(ANN, run_id)
        assert stopped in {ended.get("code"), (ended.get("outcome") or {}).get("type")}
        assert len([kind for kind in room.kinds(ANN, run_id) if kind in TERMINAL]) == 1
        following = await room.start(BOB, "metronome")
        await eventually(lambda: executor.census()["left_behind"] == 1)
        assert (await room.run(following)).status == "queued"
        assert len(blocking_threads()) == 1
        LET_GO.pop(run_id).set()
        await room.ended(BOB, following)
        await eventually(lambda: not blocking_threads())
        assert "slept" not in str(room.events(ANN, run_id))


async def test_a_blocking_agent_that_exits_ends_its_own_run_and_nothing_else():
    async with open_running_room() as room, room.executing() as executor:
        run_id = await room.start(ANN, "sleeper", "exit")
        assert (await room.ended(ANN, run_id))["code"] == "agent_error"
        assert executor.is_alive
        await eventually(lambda: not blocking_threads())
