from datetime import timedelta

import pytest
from django.utils import timezone

from apps.rollout.recordings import RecordedWork, Recording
from apps.vocabulary import UserId

pytestmark = pytest.mark.django_db


def work(number=1, user=1, seam="billing"):
    return RecordedWork(UserId(user), seam, f"work {number}", f"payload {number}")


def keep(*works, at_most=100):
    return [Recording.objects.keep(each, at_most) for each in works]


def test_recordings_are_replayed_in_their_order_each_by_one_process():
    keep(work(1), work(2))
    first, second = Recording.objects.take("p1", 60), Recording.objects.take("p2", 60)
    assert (first.work, second.work) == (work(1), work(2))
    assert Recording.objects.take("p3", 60) is None


def test_above_the_bound_nothing_more_is_kept():
    assert keep(work(1), work(2), work(3), at_most=2) == [True, True, False]
    assert Recording.objects.count() == 2


def test_what_a_dead_process_took_is_taken_again_after_its_time():
    keep(work())
    assert Recording.objects.take("p1", 60)
    assert Recording.objects.take("p2", 60) is None
    Recording.objects.update(taken_at=timezone.now() - timedelta(seconds=61))
    assert Recording.objects.take("p2", 60).work == work()


def test_what_waited_too_long_is_thrown_away():
    keep(work(1), work(2))
    Recording.objects.filter(work_id="work 1").update(at=timezone.now() - timedelta(minutes=61))
    assert Recording.objects.drop_older_than(60) == 1
    assert Recording.objects.get().work == work(2)


def test_a_users_recordings_are_reached_by_their_owner_and_counted_by_seam():
    keep(work(1, user=1), work(2, user=2), work(3, user=2, seam="search"))
    assert {row.work_id for row in Recording.objects.owned(UserId(2))} == {"work 2", "work 3"}
    assert Recording.objects.waiting() == {"billing": 2, "search": 1}
