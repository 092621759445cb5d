"""The lease on a real database, with real threads and locks. What is judged, tests/execution/test_leases.py says."""

import asyncio
import dataclasses
import threading
import time

import pytest
from django.db import OperationalError

from apps.execution import lifecycle
from apps.execution.approvals import Answer, Closing
from apps.execution.keeper import LeaseKeeper
from apps.execution.limits import LeaseLimits
from apps.execution.models import Lease, LeaseQuerySet, Run
from apps.execution.service import RunService
from apps.realtime.bridge import OwnerBridge
from apps.realtime.database import DatabaseThreads
from apps.vocabulary import new_id
from tests.execution.running_room import ANN, BOB, LEASES, a_request, eventually, in_transaction, open_running_room

pytestmark = pytest.mark.django_db(transaction=True)


class Owner:
    """Takes note of what its lease tells."""

    def __init__(self):
        self.renewals, self.losses = [], 0

    def lease_renewed(self, renewal):
        self.renewals.append(renewal)

    def lease_lost(self):
        self.losses += 1


async def ask(function, *args):
    async with DatabaseThreads(1) as database:
        return await database.call(function, *args)


def keeper(limits: LeaseLimits = LEASES):
    return LeaseKeeper(new_id(), limits)


async def test_a_lease_is_counted_up_while_it_is_open_and_given_back_at_the_end():
    owner, one = Owner(), keeper()
    async with one.open(owner, lambda _: None):
        await one.confirmed()
        await eventually(lambda: len(owner.renewals) > 3)
        lease = await ask(Lease.objects.get)
        assert (lease.pk, lease.beat > 0) == (one.process_id, True)
        assert one.is_confirmed
    assert not await ask(Lease.objects.exists)


async def test_a_blocked_loop_keeps_no_lease():
    one = keeper()
    async with one.open(Owner(), lambda _: None):
        await one.confirmed()
        await eventually(lambda: one.census()["beats_total"] > 2)
        before = one.census()
        time.sleep(0.5)  # noqa: ASYNC251 - blocking the loop is what this is about
        after = one.census()
        assert after["beats_total"] - before["beats_total"] <= 1
        assert after["skipped_beats_total"] - before["skipped_beats_total"] > 3


async def test_of_two_processes_each_lets_the_other_live():
    gone = []
    one, two = keeper(), keeper()
    async with one.open(Owner(), gone.append), two.open(Owner(), gone.append):
        beats = 3 * LEASES.dead_s / LEASES.renew_s
        await eventually(lambda: min(one.census()["beats_total"], two.census()["beats_total"]) > beats)
        assert one.census()["other_processes"] == two.census()["other_processes"] == 1
    assert not gone


async def test_a_lease_without_a_living_process_is_taken_away_by_one_and_told_once():
    dead = new_id()
    await ask(Lease.objects.take, dead)
    told = []
    one, two = keeper(), keeper()
    async with one.open(Owner(), told.append), two.open(Owner(), told.append):
        await eventually(lambda: told)
        await eventually(lambda: one.census()["other_processes"] == two.census()["other_processes"] == 1)
    assert [(gone.process_id, gone.beat) for gone in told] == [(dead, 0)]
    assert "its lock is free" in told[0].why


async def test_who_has_lost_its_lease_is_told_and_has_a_new_one():
    owner, one = Owner(), keeper()
    async with one.open(owner, lambda _: None):
        await one.confirmed()
        await ask(Lease.objects.all().delete)
        await eventually(lambda: owner.losses)
        assert await ask(Lease.objects.filter(pk=one.process_id).exists)
        assert one.census()["losses_total"] == 1


async def test_a_process_that_lost_its_lease_stops_its_runs():
    async with open_running_room() as room, room.executing() as executor:
        run_id = await room.start(ANN, "tidy")
        await room.seen(ANN, run_id, "TEXT_MESSAGE_CONTENT")
        await ask(Lease.objects.all().delete)
        assert (await room.ended(ANN, run_id))["code"] == "interrupted"
        again = await room.start(ANN, "metronome")
        await room.ended(ANN, again)
        assert executor.is_alive


async def test_a_database_that_is_away_for_longer_than_a_lease_lives_ends_no_run(monkeypatch, caplog):
    limits = dataclasses.replace(LEASES, hold_s=0.6, ttl_s=0.8)
    away = threading.Event()
    real = LeaseQuerySet.renew

    def renew(self, process_id):
        if away.is_set():
            raise OperationalError("the database is away")
        return real(self, process_id)

    monkeypatch.setattr(LeaseQuerySet, "renew", renew)
    async with open_running_room() as room, room.executing(leases=limits):
        other = keeper(limits)
        gone = []
        async with other.open(Owner(), gone.append):
            run_id = await room.start(ANN, "metronome", "count=400 interval_ms=1")
            await room.seen(ANN, run_id, "TEXT_MESSAGE_CONTENT")
            away.set()
            await eventually(lambda: not room.keeper.is_confirmed)
            held = len(room.events(ANN, run_id))
            await asyncio.sleep(2 * limits.ttl_s)  # an outage, of which its length is all that matters
            assert len(room.events(ANN, run_id)) - held < 50
            away.clear()
            assert (await room.ended(ANN, run_id))["outcome"]["type"] == "success"
        assert not gone
    assert caplog.text.count("cannot be renewed now") == 2


class Deaf(RunService):
    """Of the first claim it takes, the commit's answer is lost; `lost` is set then."""

    def __init__(self, **parts):
        super().__init__(**parts)
        self.lost = threading.Event()

    def claim(self):
        claimed = super().claim()
        if claimed is not None and not self.lost.is_set():
            self.lost.set()
            raise OperationalError("the connection broke while it waited for the answer")
        return claimed


class Late(Deaf):
    """The commit itself is late: the first look after it does not see the claim yet."""

    looks = 0

    def claimed_before(self, known):
        found = super().claimed_before(known)
        self.looks += bool(found)
        return [] if self.looks == 1 else found


async def test_a_claim_whose_commits_answer_was_lost_is_found_and_run(caplog):
    async with open_running_room() as room, room.executing(runs=room.new_service(Deaf)):
        run_id = await room.start(ANN, "metronome", "count=3 interval_ms=1")
        assert (await room.ended(ANN, run_id))["outcome"]["type"] == "success"
    assert "claimed by a commit whose answer was lost" in caplog.text


@pytest.mark.parametrize("kind", [Deaf, Late])
async def test_a_claim_whose_answer_was_lost_is_run_also_when_later_claims_come_before_the_sweep(kind):
    runs_later = 3
    async with open_running_room(sweep_s=0.3) as room, room.executing(runs=room.new_service(kind)) as executor:
        lost = await room.start(ANN, "metronome", "count=3 interval_ms=1")
        later = [await room.start(BOB, "metronome") for _ in range(runs_later)]
        for run_id in later:
            assert (await room.ended(BOB, run_id))["outcome"]["type"] == "success"
        assert (await room.ended(ANN, lost))["outcome"]["type"] == "success"
        assert room.kinds(ANN, lost).count("RUN_STARTED") == 1
        assert executor.census()["claimed_total"] == 1 + runs_later


async def test_a_resumed_run_whose_claims_answer_was_lost_goes_on_from_its_users_word():
    async with open_running_room() as room:
        async with room.executing():
            asked = await room.start(ANN, "asking", "it")
            interrupt = (await room.ended(ANN, asked))["outcome"]["interrupts"][0]
        async with room.executing(runs=room.new_service(Deaf)):
            call = await room.database.call(room.runs.open_call, ANN.user_id, interrupt["id"])
            request = a_request("asking", "it", thread_id=call.thread_id)
            answer = Answer(Closing.APPROVED, "yes", request.run_id)
            await room.database.call(in_transaction, room.runs.resume, ANN, call, answer, request)
            said = await room.seen(ANN, request.run_id, "TEXT_MESSAGE_CONTENT")
            assert said["delta"].startswith("done: write")


async def test_a_process_that_ends_while_it_is_in_doubt_looks_once_more_and_asks_again_what_it_leaves():
    async with open_running_room(sweep_s=3_600.0) as room:
        runs = room.new_service(Deaf)
        async with room.executing(runs=runs) as executor:
            run_id = await room.start(ANN, "patient")
            await asyncio.to_thread(runs.lost.wait, 20)
            await executor.drain(10.0)
            assert (await room.run(run_id)).status == "interrupted"
        again = await ask(Run.objects.exclude(pk=run_id).get)
        assert (again.status, again.retry_of) == ("queued", run_id)


async def test_a_claimed_run_that_has_said_something_and_that_nobody_runs_is_ended_not_run_twice():
    async with open_running_room() as room:
        run_id = await room.start(ANN, "metronome", "count=3 interval_ms=1")
        claimed = await room.database.call(room.runs.claim)
        publisher = room.log.publisher(claimed.lease, OwnerBridge(claimed.lease))
        await publisher.publish(lifecycle.started(claimed.run.thread, run_id, claimed.run.message, None))
        await room.seen(ANN, run_id, "RUN_STARTED")
        async with room.executing():
            assert (await room.ended(ANN, run_id))["code"] == "interrupted"
            assert room.kinds(ANN, run_id).count("RUN_STARTED") == 1


async def test_a_run_whose_attempt_could_not_write_its_end_is_ended_by_the_next_look_not_run_again():
    class Failing(RunService):
        failed = 0

        def end(self, lease, ending):
            self.failed += 1
            if self.failed == 1:
                raise RuntimeError("a defect")
            return super().end(lease, ending)

    def no_bridge(*_):
        raise RuntimeError("no bridge")

    async with open_running_room() as room:
        runs = room.new_service(Failing)
        async with room.executing(runs=runs, open_bridge=no_bridge) as executor:
            run_id = await room.start(ANN, "metronome")
            assert (await room.ended(ANN, run_id))["code"] == "interrupted"
            assert (executor.census()["claimed_total"], runs.failed) == (1, 2)
