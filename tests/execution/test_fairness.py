from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import IntegrityError, connections, transaction
from django.utils import timezone
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from apps.agents.base import TokenCount
from apps.execution import lifecycle
from apps.execution.models import LONG_AGO, Run, UserBudget
from apps.execution.states import RunStatus
from apps.realtime.protocol import IfBusy
from apps.vocabulary import Identity, PinnedPath, UserId
from tests.execution.admitting_desk import Desk, assert_books_balance, places_of
from tests.execution.running_room import ANN, BOB
from tests.execution.turns import Turns

pytestmark = pytest.mark.django_db
CEM = Identity(UserId(3), "cem")


def owner_of(run_id):
    return Run.objects.get(pk=run_id).user_id


def end(desk, run_id):
    run = Run.objects.get(pk=run_id)
    assert desk.runs._recovery.end(run_id, lifecycle.succeeded(run.thread, run.run_id, TokenCount()))


def test_a_claim_owns_the_run_under_a_new_fence_and_pins_its_paths(desk):
    desk.admit(ANN, text="count=9")
    claimed = desk.runs.claim()
    run = Run.objects.get()
    assert (run.status, run.fence, claimed.lease.fence) == ("running", 1, 1)
    assert claimed.identity == ANN
    assert claimed.run.text == "count=9"
    assert claimed.paths == run.pinned_paths == {"execution_engine": PinnedPath("factory", 3)}
    assert run.started_at is not None
    assert desk.runs.claim() is None


def test_the_user_with_fewer_running_runs_is_first_however_many_the_other_queued_before(desk):
    for _ in range(5):
        desk.admit(ANN)
    desk.admit(BOB)
    assert [owner_of(desk.claim()) for _ in range(4)] == [1, 2, 1, 1]


def test_the_user_with_fewer_running_runs_is_first_also_when_the_other_waits_longer(desk):
    desk.admit(ANN)
    desk.admit(ANN)
    assert owner_of(desk.claim()) == 1
    desk.admit(BOB)
    assert UserBudget.objects.get(pk=1).turn_at < UserBudget.objects.get(pk=2).turn_at
    assert owner_of(desk.claim()) == 2


def test_of_users_with_equally_many_the_one_who_waits_longest_is_first(desk):
    for identity in (ANN, BOB, CEM):
        desk.admit(identity)
        desk.admit(identity)
    order = [owner_of(desk.claim()) for _ in range(6)]
    assert order == [1, 2, 3, 1, 2, 3]


def test_a_newcomer_comes_after_those_who_already_wait(desk):
    desk.admit(ANN)
    first = desk.claim()
    end(desk, first)
    desk.admit(ANN)  # started before, and waits again
    desk.admit(BOB)  # never started
    assert owner_of(desk.claim()) == 1
    assert UserBudget.objects.get(pk=2).last_started_at == LONG_AGO


def test_a_user_has_no_more_running_runs_than_slots(desk):
    desk = Desk(run_slots_per_user=2)
    ids = [desk.admit(ANN).run_id for _ in range(3)]
    assert [desk.claim() for _ in range(3)] == [ids[0], ids[1], None]
    end(desk, ids[0])
    assert desk.claim() == ids[2]
    assert_books_balance()


def test_two_runs_of_one_thread_never_run_at_once_and_keep_their_order(desk):
    ids = [desk.admit(ANN, thread_id="t", if_busy=IfBusy.ENQUEUE).run_id for _ in range(3)]
    other = desk.admit(ANN, thread_id="u").run_id
    assert [desk.claim() for _ in range(3)] == [ids[0], other, None]
    end(desk, ids[0])
    assert desk.claim() == ids[1]
    # The database holds it too, whatever the code says.
    with pytest.raises(IntegrityError), transaction.atomic():
        Run.objects.filter(pk=ids[2]).update(status=RunStatus.RUNNING)


def test_threads_of_one_name_of_two_users_do_not_meet(desk):
    ids = [desk.admit(identity, thread_id="t").run_id for identity in (ANN, BOB)]
    assert [desk.claim(), desk.claim()] == ids


def test_a_user_whose_work_cannot_start_holds_nobody_up(desk):
    desk.admit(ANN, thread_id="t")
    desk.claim()
    desk.admit(ANN, thread_id="t", if_busy=IfBusy.ENQUEUE)
    UserBudget.objects.filter(pk=1).update(running=0, turn_at=timezone.now() - timedelta(days=1))
    bobs = desk.admit(BOB).run_id
    assert desk.claim() == bobs


def test_places_are_told_again_when_they_change(desk):
    ids = [desk.admit(ANN).run_id for _ in range(3)]
    desk.claim()
    assert places_of(ANN)[3:] == [(ids[1], 1, False), (ids[2], 2, False)]
    desk.cancel(ANN, ids[1])
    assert places_of(ANN)[5:] == [(ids[2], 1, False)]
    desk.claim()
    assert len(places_of(ANN)) == 6


class TestRandomArrivals(TestCase):
    @settings(max_examples=25)
    @given(
        st.integers(1, 4),
        st.integers(1, 3),
        st.lists(st.tuples(st.lists(st.integers(1, 5), max_size=4), st.integers(0, 3)), max_size=20),
    )
    @example(2, 2, [([1, 1, 1, 1], 0), ([2], 0), ([1, 3, 1], 0), ([2, 1, 1, 4], 1), ([3], 0), ([], 0), ([], 1)])
    def test_nobody_without_a_running_run_waits_for_more_slots_than_the_users_before_them_and_one(
        self, slots, slots_per_user, arrivals
    ):
        turns = Turns(Desk(run_slots_per_user=slots_per_user, open_runs_per_user=200), slots)
        for user_ids, which in arrivals:
            turns.arrive(*user_ids)
            turns.claim()
            turns.end(which)
            turns.claim()
        while turns.running:
            turns.end(0)
            turns.claim()
        assert not Run.objects.open().exists()
        assert_books_balance()


def test_one_user_with_fifty_queued_runs_keeps_none_of_twenty_with_one_waiting():
    turns = Turns(Desk(run_slots_per_user=3, open_runs_per_user=60), slots=10)
    turns.arrive(*[1] * 50)
    turns.claim()
    turns.arrive(*range(2, 22))
    turns.claim()
    while turns.running:
        turns.end(0)
        turns.claim()
    # Seven slots were free at once. The thirteen others had the next ones that came free, but one: when all that the
    # first user had running was over, it was their turn once.
    waited = {user_id: slots[0] for user_id, slots in turns.waited.items() if user_id > 1}
    assert len(waited) == 20
    assert sorted(waited.values()) == [0] * 7 + [1, 2, *range(4, 15)]


def test_claims_of_many_threads_at_once_take_each_run_once(transactional_db):
    desk = Desk(run_slots_per_user=2)
    for number in range(1, 9):
        for _ in range(3):
            desk.admit(Identity(UserId(number), f"user {number}"))

    def claim(_):
        try:
            return desk.claim()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        claimed = [run_id for run_id in pool.map(claim, range(40)) if run_id]
    assert len(claimed) == len(set(claimed)) == 16
    per_user = defaultdict(int)
    for run_id in claimed:
        per_user[owner_of(run_id)] += 1
    assert set(per_user.values()) == {2}
    assert_books_balance()
