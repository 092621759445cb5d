from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from random import Random

import pytest
from django.db import IntegrityError, connections, transaction
from django.utils import timezone

from apps.agents.base import TokenCount
from apps.execution import lifecycle
from apps.execution.models import LONG_AGO, Run, UserBudget
from apps.execution.states import RunStatus
from apps.realtime.protocol import IfBusy
from apps.vocabulary import Identity, PinnedPath, UserId
from tests.execution.admitting_desk import Desk, assert_books_balance, places_of
from tests.execution.running_room import ANN, BOB

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


@pytest.mark.parametrize("seed", range(4))
def test_nobody_without_a_running_run_waits_for_more_slots_than_the_users_before_them_and_one(seed):
    """Random arrivals; slots come free one by one. W: users whose work was queued before."""
    chance = Random(seed)
    slots = 2
    desk = Desk(run_slots_per_user=slots, open_runs_per_user=50)
    users = [Identity(UserId(number), f"user {number}") for number in range(1, 7)]
    running, waiting_since, came_free = [], {}, 0
    worst = Counter()

    def admit(identity):
        if Run.objects.filter(user_id=identity.user_id, status="queued").count() < 12:
            desk.admit(identity)

    def note_who_waits():
        idle = {user.user_id for user in users if not any(owner == user.user_id for owner, _ in running)}
        queued = set(UserBudget.objects.filter(queued__gt=0).values_list("pk", flat=True))
        for user_id in queued & idle:
            waiting_since.setdefault(user_id, (came_free, len(queued - {user_id})))

    for _ in range(60):
        for _ in range(chance.choice([0, 1, 1, 4])):
            admit(chance.choice([users[0], users[0], *users]))
        note_who_waits()
        while len(running) < slots and (run_id := desk.claim()):
            owner = owner_of(run_id)
            running.append((owner, run_id))
            if owner in waiting_since:
                since, before = waiting_since.pop(owner)
                assert came_free - since <= before + 1
                worst[owner] = max(worst[owner], came_free - since)
        if running:
            end(desk, running.pop(chance.randrange(len(running)))[1])
            came_free += 1
    assert len(worst) == len(users)
    assert_books_balance()


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
