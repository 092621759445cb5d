"""The lease on a real database, with real threads and locks. What is judged, tests/execution/test_leases.py says."""

import asyncio
import dataclasses
import threading
import time

import pytest
from django.db import OperationalError

from apps.execution.keeper import LeaseKeeper
from apps.execution.limits import LeaseLimits
from apps.execution.models import Lease, LeaseQuerySet, Run
from apps.execution.service import RunService
from apps.realtime.database import DatabaseThreads
from apps.vocabulary import new_id
from tests.execution.running_room import ANN, LEASES, eventually, open_running_room

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


async def test_a_claim_whose_commits_answer_was_lost_is_found_and_run(caplog):
    class Deaf(RunService):
        left = 1

        def claim(self):
            claimed = super().claim()
            if claimed is not None and self.left:
                self.left -= 1
                raise OperationalError("the connection broke while it waited for the answer")
            return claimed

    async with open_running_room() as room, room.executing(runs=room.new_service(Deaf)):
        run_id = await room.start(ANN, "metronome", "count=3 interval_ms=1")
        assert (await room.ended(ANN, run_id))["outcome"]["type"] == "success"
    assert "claimed by a commit whose answer was lost" in caplog.text


async def test_a_claimed_run_that_has_said_something_and_that_nobody_runs_is_ended_not_run_twice():
    async with open_running_room() as room:
        run_id = await room.start(ANN, "metronome", "count=3 interval_ms=1")
        claimed = await room.database.call(room.runs.claim)
        await room.database.call(Run.objects.filter(pk=run_id).update, cancel_requested=False)
        assert claimed.lease.run_id == run_id
        async with room.executing():
            assert (await room.ended(ANN, run_id))["code"] == "interrupted"
            assert room.kinds(ANN, run_id).count("RUN_STARTED") == 1
