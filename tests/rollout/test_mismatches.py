from datetime import timedelta

import pytest
from django.utils import timezone

from apps.rollout import mismatches
from apps.rollout.comparison import Comparison, Result
from apps.rollout.mismatches import (
    ComparisonCount,
    Mismatch,
    MismatchShape,
    Opinion,
    UnexplainedMute,
    record,
)
from apps.vocabulary import UserId

pytestmark = pytest.mark.django_db

SHAPE = "main: TEXT_MESSAGE_CONTENT.delta differs"
DIFFERENT = Comparison(Result.MISMATCHED, SHAPE, "-old\n+new")
LEAK = Comparison(Result.LEGACY_WRONG, SHAPE, "-hers\n+his")


def meet(found, times=1, user=1, seam="billing"):
    return [record(UserId(user), seam, f"work {number}", found) for number in range(times)][-1]


def decide(opinion, **how):
    fields = {"owner": "anna", "reason": "it rounds better"} | how
    MismatchShape.objects.decide(MismatchShape.objects.get(), opinion, **fields)


def today():
    return timezone.now().date()


def totals():
    return {name: number for name, number in ComparisonCount.objects.totals("billing").items() if number}


def test_results_are_counted_by_the_hour_and_mismatches_grouped_by_their_shape():
    meet(Comparison(Result.MATCHED), times=3)
    meet(DIFFERENT, times=2)
    meet(LEAK)
    assert totals() == {"matched": 3, "mismatched": 2, "legacy_wrong": 1}
    assert [(row.result, row.count, row.examples.count()) for row in MismatchShape.objects.order_by("-count")] == [
        ("mismatched", 2, 2),
        ("legacy_wrong", 1, 1),
    ]
    assert Mismatch.objects.owned(UserId(1)).count() == 3
    assert Mismatch.objects.owned(UserId(2)).count() == 0


def test_a_found_leak_does_not_stand_in_the_way_up_and_a_mismatch_does():
    meet(LEAK)
    assert not MismatchShape.objects.open("billing").exists()
    meet(DIFFERENT)
    assert [row.shape for row in MismatchShape.objects.open("billing")] == [SHAPE]
    assert not MismatchShape.objects.open("search").exists()


def test_a_muted_shape_is_ignored_and_counted_until_its_day_has_passed():
    meet(DIFFERENT)
    decide(Opinion.MUTED, until=today() + timedelta(days=1))
    assert meet(DIFFERENT) is Result.IGNORED
    assert (totals(), MismatchShape.objects.get().ignored) == ({"mismatched": 1, "ignored": 1}, 1)
    assert not MismatchShape.objects.open("billing").exists()
    MismatchShape.objects.update(until=today() - timedelta(days=1))
    assert MismatchShape.objects.open("billing").count() == MismatchShape.objects.expired_mutes("billing").count() == 1
    assert meet(DIFFERENT) is Result.MISMATCHED


def test_where_the_new_path_is_right_the_difference_is_ignored_for_good():
    meet(DIFFERENT)
    decide(Opinion.NEW_IS_RIGHT)
    assert meet(DIFFERENT) is Result.IGNORED
    assert not MismatchShape.objects.open("billing", today() + timedelta(days=10_000)).exists()
    decide(Opinion.OPEN, owner="", reason="")
    assert meet(DIFFERENT) is Result.MISMATCHED


@pytest.mark.parametrize(
    ("opinion", "how", "says"),
    [
        (Opinion.MUTED, {"owner": " "}, "owner and a reason"),
        (Opinion.NEW_IS_RIGHT, {"reason": ""}, "owner and a reason"),
        (Opinion.MUTED, {}, "day in the future"),
        (Opinion.MUTED, {"until": today()}, "day in the future"),
    ],
)
def test_a_mute_needs_an_owner_a_reason_and_an_end(opinion, how, says):
    meet(DIFFERENT)
    with pytest.raises(UnexplainedMute, match=says):
        decide(opinion, **how)
    assert MismatchShape.objects.get().opinion == "open"


def test_noise_is_counted_as_ignored():
    assert meet(Comparison(Result.IGNORED, "noise: all three differ", "-a\n+b")) is Result.IGNORED
    assert totals() == {"ignored": 1}
    assert not MismatchShape.objects.open("billing").exists()


def test_the_newest_examples_of_a_seam_are_kept(monkeypatch):
    monkeypatch.setattr(mismatches, "EXAMPLES_PER_SEAM", 3)
    meet(DIFFERENT, times=5)
    meet(DIFFERENT, times=2, seam="search")
    kept = Mismatch.objects.filter(shape__seam="billing")
    assert [row.work_id for row in kept.order_by("pk")] == ["work 2", "work 3", "work 4"]
    assert Mismatch.objects.filter(shape__seam="search").count() == 2


def test_a_seam_has_a_bounded_number_of_shapes(monkeypatch):
    monkeypatch.setattr(mismatches, "SHAPES_PER_SEAM", 2)
    for number in range(4):
        meet(Comparison(Result.MISMATCHED, f"shape {number}", "-a"))
    assert MismatchShape.objects.count() == 2
    assert totals() == {"mismatched": 4}


def test_old_counts_are_dropped():
    meet(Comparison(Result.MATCHED))
    ComparisonCount.objects.update(hour=timezone.now() - timedelta(days=91))
    assert ComparisonCount.objects.drop_old() == 1
