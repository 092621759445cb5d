import asyncio
from contextlib import asynccontextmanager

import pytest
from django.db import OperationalError

from apps.execution.apps import execution_config
from apps.execution.models import Run
from apps.execution.service import RunService
from apps.realtime.bridge import OwnerBridge
from apps.realtime.protocol import IfBusy
from apps.vocabulary import Identity, UserId
from tests.execution.odd_agents import LET_GO
from tests.execution.running_room import ANN, BOB, TERMINAL, eventually, open_running_room

pytestmark = pytest.mark.django_db(transaction=True)

AN_HOUR = 3_600.0


async def test_a_wake_up_starts_a_run_without_waiting_for_the_sweep():
    async with open_running_room(sweep_s=AN_HOUR) as room, room.executing():
        await room.ended(ANN, await room.start(ANN, "metronome"))
        await room.ended(ANN, await room.start(ANN, "metronome"))


async def test_a_cancellation_reaches_an_agent_that_says_nothing_without_waiting_for_the_sweep():
    async with open_running_room(sweep_s=AN_HOUR) as room, room.executing():
        run_id = await room.start(ANN, "faulty", "mode=hang after=1")
        await room.seen(ANN, run_id, "TEXT_MESSAGE_CONTENT")
        await room.cancel(ANN, run_id)
        assert (await room.ended(ANN, run_id))["outcome"]["type"] == "cancelled"


async def test_lost_wake_ups_are_healed_by_the_sweep():
    async with open_running_room() as room, room.executing() as executor:
        execution_config().services = None  # wake-ups go nowhere
        run_id = await room.start(ANN, "faulty", "mode=hang after=1")
        await room.seen(ANN, run_id, "TEXT_MESSAGE_CONTENT")  # the last that it says, so no commit tells it
        await room.cancel(ANN, run_id)
        assert (await room.ended(ANN, run_id))["outcome"]["type"] == "cancelled"
        assert executor.is_alive


async def test_no_more_runs_are_at_work_than_the_process_has_slots():
    async with open_running_room(run_slots=2, run_slots_per_user=2) as room, room.executing() as executor:
        ids = [await room.start(Identity(UserId(number), "u"), "tidy") for number in (1, 2, 3)]
        await room.seen(Identity(UserId(2), "u"), ids[1], "TEXT_MESSAGE_CONTENT")
        assert executor.census()["running"] == 2
        assert (await room.run(ids[2])).status == "queued"
        await room.cancel(ANN, ids[0])
        await room.seen(Identity(UserId(3), "u"), ids[2], "TEXT_MESSAGE_CONTENT")
        assert executor.census()["running"] == 2


async def test_an_agent_that_was_left_behind_keeps_its_slot():
    limits = {"run_slots": 1, "run_slots_per_user": 1, "cancel_timeout_s": 0.02}
    async with open_running_room(**limits) as room, room.executing():
        run_id = await room.start(ANN, "stubborn")
        await room.seen(ANN, run_id, "TEXT_MESSAGE_CONTENT")
        await room.cancel(ANN, run_id)
        await room.ended(ANN, run_id)
        following = await room.start(BOB, "metronome")
        assert (await room.run(following)).status == "queued"
        LET_GO.pop(run_id).set()
        await room.ended(BOB, following)


async def test_an_interrupted_run_ends_and_the_new_one_follows_it():
    async with open_running_room() as room, room.executing():
        old = await room.start(ANN, "tidy", thread_id="t")
        await room.seen(ANN, old, "TEXT_MESSAGE_CONTENT")
        new = await room.start(ANN, "metronome", "count=1", thread_id="t", if_busy=IfBusy.INTERRUPT)
        assert (await room.ended(ANN, old))["outcome"]["type"] == "cancelled"
        assert (await room.ended(ANN, new))["outcome"]["type"] == "success"
        order = [
            (entry["run_id"], entry["event"]["type"])
            for entry in room.tabs.entries[ANN.user_id]
            if entry["event"]["type"] in {"RUN_STARTED", *TERMINAL}
        ]
        assert order == [(old, "RUN_STARTED"), (old, "RUN_FINISHED"), (new, "RUN_STARTED"), (new, "RUN_FINISHED")]


async def test_the_runs_of_a_thread_follow_each_other_in_their_order():
    async with open_running_room() as room, room.executing():
        ids = [
            await room.start(ANN, "metronome", "count=2 interval_ms=1", thread_id="t", if_busy=IfBusy.ENQUEUE)
            for _ in range(4)
        ]
        await room.ended(ANN, ids[-1])
        seen = [
            (entry["run_id"], entry["event"]["type"])
            for entry in room.tabs.entries[ANN.user_id]
            if entry["event"]["type"] in {"RUN_STARTED", "RUN_FINISHED"}
        ]
        assert seen == [(run_id, kind) for run_id in ids for kind in ("RUN_STARTED", "RUN_FINISHED")]


async def test_a_drain_ends_running_runs_and_leaves_queued_ones_for_the_next_start():
    async with open_running_room(run_slots_per_user=1) as room:
        async with room.executing() as executor:
            ids = [await room.start(ANN, "tidy") for _ in range(2)]
            other = await room.start(BOB, "faulty", "mode=hang after=1")
            await room.seen(ANN, ids[0], "TEXT_MESSAGE_CONTENT")
            await room.seen(BOB, other, "TEXT_MESSAGE_CONTENT")
            await executor.drain(10.0)
            assert not executor.is_alive
            for identity, run_id in ((ANN, ids[0]), (BOB, other)):
                event = await room.ended(identity, run_id)
                assert (event["type"], event["code"]) == ("RUN_ERROR", "interrupted")
                kinds = room.kinds(identity, run_id)
                assert [kind for kind in kinds if kind in TERMINAL] == ["RUN_ERROR"]
            assert (await room.run(ids[0])).status == "interrupted"
            assert (await room.run(ids[1])).status == "queued"
            late = await room.start(BOB, "metronome")
            assert (await room.run(late)).status == "queued"
        async with room.executing() as executor:
            await room.ended(BOB, late)
            await room.seen(ANN, ids[1], "TEXT_MESSAGE_CONTENT")
            assert room.reaper.census()["recovered_total"] == 0


async def test_a_run_that_does_not_end_within_the_grace_is_an_orphan_that_the_next_start_ends(caplog):
    async with open_running_room(cancel_timeout_s=60.0) as room:
        async with room.executing() as executor:
            run_id = await room.start(ANN, "stubborn")
            await room.seen(ANN, run_id, "TEXT_MESSAGE_CONTENT")
            await executor.drain(0.05)
            assert "left to others" in caplog.text
            assert (await room.run(run_id)).status == "running"
            LET_GO.pop(run_id).set()
        await room.dies()
        async with room.executing():
            assert (await room.ended(ANN, run_id))["code"] == "interrupted"
            await eventually(lambda: room.reaper.census()["recovered_total"] == 1)
        logged = await room.database.call(room.log.read_run, ANN.user_id, run_id)
        assert len([event for event in logged if event["type"] in TERMINAL]) == 1
        assert "after the end" not in str(logged)


async def test_an_outage_while_claiming_ends_and_nothing_was_lost(caplog):
    class Flaky(RunService):
        left = 3

        def claim(self):
            if self.left:
                self.left -= 1
                raise OperationalError("the database is away")
            return super().claim()

    async with open_running_room() as room, room.executing(runs=room.new_service(Flaky)):
        await room.ended(ANN, await room.start(ANN, "metronome"))
    assert "cannot be asked" in caplog.text


async def test_a_defect_in_a_claim_is_logged_and_the_next_sweep_claims_again(caplog):
    class Broken(RunService):
        left = 1

        def claim(self):
            if self.left:
                self.left -= 1
                raise ZeroDivisionError
            return super().claim()

    async with open_running_room() as room, room.executing(runs=room.new_service(Broken)) as executor:
        await room.ended(ANN, await room.start(ANN, "metronome"))
        assert executor.is_alive
    assert "claiming failed" in caplog.text


async def test_a_clean_up_that_fails_is_counted_and_the_run_ended_all_the_same():
    @asynccontextmanager
    async def broken_bridge(lease, _identity, _paths):
        yield OwnerBridge(lease)
        raise LookupError("no")

    async with open_running_room() as room, room.executing(open_bridge=broken_bridge) as executor:
        run_id = await room.start(ANN, "metronome")
        assert (await room.ended(ANN, run_id))["outcome"]["type"] == "success"
        await eventually(lambda: executor.census()["cleanup_failures_total"] == 1)


async def test_an_executor_that_was_left_takes_wake_ups_for_nothing():
    async with open_running_room() as room:
        async with room.executing() as executor:
            pass
        executor.wake()
        executor.cancel("run-1")
        await executor.drain(0.1)
        assert repr(executor) == "<Executor draining running=0 of 50>"


async def test_after_many_runs_of_all_kinds_nothing_is_left_open():
    kinds = [
        ("metronome", "count=3 interval_ms=1"),
        ("faulty", "mode=raise after=1"),
        ("faulty", "mode=garbage after=1"),
        ("tidy", ""),
        ("deaf", ""),
        ("choosy", ""),
    ]
    users = [Identity(UserId(number), f"user {number}") for number in range(1, 6)]
    async with open_running_room() as room, room.executing() as executor:
        tasks = len(asyncio.all_tasks())
        started = [(user, agent, await room.start(user, agent, text)) for user in users for agent, text in kinds]

        async def end(user, agent, run_id):
            if agent in {"tidy", "deaf"}:
                await room.seen(user, run_id, "TEXT_MESSAGE_CONTENT")
                await room.cancel(user, run_id)
            await room.ended(user, run_id)

        await asyncio.gather(*(end(*run) for run in started))
        await eventually(lambda: not executor.census()["running"])
        census = executor.census()
        assert (census["left_behind"], census["claimed_total"]) == (0, len(started))
        assert room.engines.census() == {"live": 0, "opened_total": len(started)}
        await eventually(lambda: len(asyncio.all_tasks()) == tasks)
        for user, _, run_id in started:
            kinds_seen = room.kinds(user, run_id)
            assert [kind in TERMINAL for kind in kinds_seen].count(True) == 1
        open_runs = await room.database.call(Run.objects.open().count)
        assert open_runs == 0
        for user in users:
            assert (await room.budget(user)).open_runs == 0
            assert {entry["event"].get("runId") for entry in room.tabs.entries[user.user_id]} <= {
                None,
                *(run_id for owner, _, run_id in started if owner == user),
            }
