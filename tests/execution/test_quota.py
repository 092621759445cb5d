"""Tokens a day: reserved when a run is admitted, settled when it ends, whatever way it ends."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from apps.agents.base import TokenCount
from apps.execution import lifecycle
from apps.execution.admission import check_quota
from apps.execution.lifecycle import RunErrorCode
from apps.execution.models import Run, UserBudget
from apps.realtime.protocol import IfBusy
from apps.vocabulary import ErrorCode, Refusal
from tests.execution.admitting_desk import Desk, assert_books_balance, events_of
from tests.execution.running_room import ANN, BOB, PLAN

pytestmark = pytest.mark.django_db

RUN_TOKENS = 1_000  # of the desk's metronome


def refused(call, *args, **changes):
    with pytest.raises(Refusal) as refusal:
        call(*args, **changes)
    assert refusal.value.code == ErrorCode.QUOTA_EXCEEDED
    return refusal.value


def budget_of(identity=ANN):
    return UserBudget.objects.get(pk=identity.user_id)


def finish(desk, how=lifecycle.succeeded, usage=TokenCount(30, 70)):  # noqa: B008 - read only
    claimed = desk.runs.claim()
    lease = claimed.lease
    assert desk.runs.end(lease, how(lease.thread_id, lease.run_id, usage))
    return lease.run_id


def failed(_thread_id, _run_id, usage):
    return lifecycle.failed(RunErrorCode.AGENT_ERROR, "no", usage)


def interrupted(_thread_id, _run_id, usage):
    return lifecycle.interrupted(usage)


def test_a_run_reserves_what_its_agent_may_use_and_pays_what_it_used():
    desk = Desk()
    run_id = desk.admit(ANN).run_id
    assert budget_of().reserved_tokens == Run.objects.get().reserved_tokens == RUN_TOKENS
    assert budget_of().tokens_per_day == PLAN.tokens_per_day
    assert finish(desk) == run_id
    budget = budget_of()
    assert (budget.reserved_tokens, budget.used_tokens, budget.day) == (0, 100, timezone.now().date())
    assert_books_balance()


@pytest.mark.parametrize("how", [lifecycle.succeeded, lifecycle.cancelled, failed, interrupted])
def test_every_end_pays_what_was_used_and_gives_the_reservation_back(how):
    desk = Desk()
    desk.admit(ANN)
    finish(desk, how)
    assert (budget_of().reserved_tokens, budget_of().used_tokens) == (0, 100)


def test_a_run_that_leaves_the_queue_gives_its_reservation_back_unused():
    desk = Desk(tokens_per_day=2 * RUN_TOKENS)
    desk.admit(ANN, thread_id="t")
    desk.claim()
    waiting = desk.admit(ANN, thread_id="t", if_busy=IfBusy.ENQUEUE)
    refused(desk.admit, ANN)
    assert desk.cancel(ANN, waiting.run_id) == "cancelled"
    assert (budget_of().reserved_tokens, budget_of().used_tokens) == (RUN_TOKENS, 0)
    desk.admit(ANN)
    assert_books_balance()


def test_a_run_that_sends_a_queued_one_away_may_use_its_reservation():
    desk = Desk(tokens_per_day=RUN_TOKENS)
    desk.admit(ANN, thread_id="t")
    desk.admit(ANN, thread_id="t", if_busy=IfBusy.INTERRUPT)
    assert budget_of().reserved_tokens == RUN_TOKENS
    assert_books_balance()


def test_a_refusal_names_the_numbers_and_whether_a_run_or_the_day_must_end_first():
    desk = Desk(tokens_per_day=RUN_TOKENS + 100)
    desk.admit(ANN)
    held = refused(desk.admit, ANN)
    assert held.details == {"limit": 1_100, "used": 0, "reserved": 1_000, "wanted": 1_000}
    assert "wait for one to end" in held.message
    assert held.retry_after_s == 5
    finish(desk, usage=TokenCount(100, 1))
    spent = refused(desk.admit, ANN)
    assert spent.details == {"limit": 1_100, "used": 101, "reserved": 0, "wanted": 1_000}
    assert "midnight" in spent.message
    assert 0 < spent.retry_after_s <= 86_400
    never = refused(Desk(tokens_per_day=10).admit, BOB)
    assert "too many" in never.message


def test_the_time_to_wait_is_the_time_to_midnight_in_utc():
    now = datetime(2030, 1, 31, 23, 59, 30, tzinfo=UTC)
    budget = UserBudget(user_id=1, day=now.date(), used_tokens=PLAN.tokens_per_day)
    assert refused(check_quota, budget, PLAN, 1, now).retry_after_s == 30


def test_a_new_day_begins_with_nothing_used_and_keeps_what_is_reserved():
    desk = Desk(tokens_per_day=2 * RUN_TOKENS)
    desk.admit(ANN)
    finish(desk, usage=TokenCount(0, 2_000))
    refused(desk.admit, ANN)
    UserBudget.objects.update(day=timezone.now().date() - timedelta(days=1))
    desk.admit(ANN)
    desk.admit(ANN)
    refused(desk.admit, ANN)


def test_usage_is_told_behind_the_terminal_event_to_its_user_alone():
    desk = Desk(tokens_per_day=5_000)
    desk.admit(BOB)
    finish(desk)
    run_id = desk.admit(ANN).run_id
    finish(desk)
    last, told = events_of(ANN)[-2:]
    assert last["type"] == "RUN_FINISHED"
    assert (told["name"], told["value"]) == (
        "turnout.usage",
        {"run_id": run_id, "input_tokens": 30, "output_tokens": 70, "today": 100, "quota": 5_000},
    )
    assert len([event for event in events_of(BOB) if event.get("name") == "turnout.usage"]) == 1


def test_usage_names_the_quota_what_is_used_and_what_open_runs_hold():
    desk = Desk(tokens_per_day=5_000)
    assert desk.runs.usage(ANN) == {
        "today": {"input_tokens": 0, "output_tokens": 0},
        "total": {"input_tokens": 0, "output_tokens": 0},
        "runs": 0,
        "quota": 5_000,
        "used": 0,
        "reserved": 0,
    }
    desk.admit(ANN)
    finish(desk)
    desk.admit(ANN)
    usage = desk.runs.usage(ANN)
    assert (usage["used"], usage["reserved"], usage["runs"]) == (100, 1_000, 2)
    assert usage["today"] == usage["total"] == {"input_tokens": 30, "output_tokens": 70}
