"""A run's end in the books: its status, its usage, and its user's counts, in the transaction of its terminal
event.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final

from ag_ui.core import CustomEvent
from django.db.models import F, QuerySet
from django.utils import timezone

from apps.execution.lifecycle import AskedApproval
from apps.execution.models import Interrupt, Run, UserBudget
from apps.execution.states import RunStatus, move
from apps.realtime.locking import lock_free
from apps.realtime.values import EndedRun, LogEntry, Told
from apps.vocabulary import RunId, UserId

USAGE: Final = "turnout.usage"


class Settlement:
    """The books, which execution sends into the log's commits. Holds nothing; all methods are synchronous."""

    def lock(self, ended: Sequence[EndedRun]) -> None:
        """Lock the budgets of all users in the commit, in the order of their ids."""
        _in_order(UserBudget.objects.select_for_update(no_key=True), ended)

    def lock_free(self, ended: Sequence[EndedRun]) -> frozenset[RunId]:
        """As `lock`, but wait for nobody: returns the runs whose user's budget somebody else holds."""
        held = lock_free(UserBudget.objects.all(), {run.user_id for run in ended})
        return frozenset(run.run_id for run in ended if run.user_id in held)

    def write(self, ended: Sequence[EndedRun]) -> Sequence[Told]:
        """Move each run that the given fence still owns, settle its tokens, and give its slot back. What the users
        are to be told of their usage.

        A run that was ended under a newer fence is passed over: the ledger's compare-and-swap, which follows
        in the same transaction, refuses its events, and all of this is rolled back. Raises IllegalMove for a
        status no run can end in.
        """
        budgets = {UserId(budget.user_id): budget for budget in _in_order(UserBudget.objects.all(), ended)}
        reserved = _reservations(ended)
        now = timezone.now()
        told: list[Told] = []
        changed: set[UserId] = set()
        for run in ended:
            if not _end(run, now):
                continue
            budget = budgets[run.user_id]
            if isinstance(run.waits_for, AskedApproval):
                _begin_to_wait(run, run.waits_for, budget)
            budget.count_move(RunStatus.RUNNING, RunStatus(run.status))
            budget.settle(now.date(), reserved[run.run_id], used_tokens(run))
            changed.add(run.user_id)
            told.append(_usage_told(run, budget, now.date()))
        for user_id in sorted(changed):
            budgets[user_id].save(update_fields=["running", "waiting", "day", "used_tokens", "reserved_tokens"])
        return told


class TooManyWaiting(RuntimeError):  # noqa: N818 - names the bound that was met
    """As many of the user's runs wait for an approval as may: this one ends in another way."""


def leave(budget: UserBudget, run: Run, to: RunStatus) -> None:
    """End a run that has no owner: queued, or waiting. The caller holds the budget's lock. Raises IllegalMove."""
    before, reserved, now = RunStatus(run.status), run.reserved_tokens, timezone.now()
    run.move(to, ended_at=now, reserved_tokens=0)
    budget.count_move(before, to)
    budget.settle(now.date(), reserved, 0)
    budget.save(update_fields=["queued", "waiting", "turn_at", "day", "used_tokens", "reserved_tokens"])


def _begin_to_wait(run: EndedRun, asked: AskedApproval, budget: UserBudget) -> None:
    most = budget.waiting_runs_per_user
    if most is not None and budget.waiting >= most:
        raise TooManyWaiting(f"run {run.run_id}: {most} runs of its user wait")
    request = asked.request
    Interrupt.objects.create(
        id=asked.interrupt_id,
        user_id=run.user_id,
        run_id=run.run_id,
        thread_id=run.thread_id,
        tool_call_id=request.tool_call_id,
        tool=request.tool,
        arguments=request.arguments,
        digest=request.digest,
        question=request.question,
        asked_at=timezone.now(),
        expires_at=asked.expires_at,
    )


def used_tokens(run: EndedRun) -> int:
    """What the run costs its user: input and output alike."""
    return run.usage.get("input_tokens", 0) + run.usage.get("output_tokens", 0)


def _usage_told(run: EndedRun, budget: UserBudget, today: date) -> Told:
    """Of the user and not of the thread: it outlives a thread that is deleted."""
    value = {
        "run_id": run.run_id,
        "input_tokens": run.usage.get("input_tokens", 0),
        "output_tokens": run.usage.get("output_tokens", 0),
        "today": budget.used_on(today),
        "quota": budget.tokens_per_day,
    }
    return Told(run.user_id, LogEntry(CustomEvent(name=USAGE, value=value)))


def _end(run: EndedRun, now: datetime) -> bool:
    to = move(RunStatus.RUNNING, RunStatus(run.status))
    owned = Run.objects.owned(run.user_id).running().filter(pk=run.run_id, fence=run.fence)
    return bool(
        owned.update(
            status=to,
            ended_at=now,
            error_code=run.error_code,
            error_message=run.error_message,
            reserved_tokens=0,
            input_tokens=F("input_tokens") + run.usage.get("input_tokens", 0),
            output_tokens=F("output_tokens") + run.usage.get("output_tokens", 0),
        )
    )


def _reservations(ended: Sequence[EndedRun]) -> Mapping[RunId, int]:
    """What each run had reserved; the budgets' locks keep it as it is."""
    runs = Run.objects.running().filter(pk__in=[run.run_id for run in ended])
    return {RunId(run_id): tokens for run_id, tokens in runs.values_list("pk", "reserved_tokens")}


def _in_order(budgets: QuerySet[UserBudget], ended: Sequence[EndedRun]) -> list[UserBudget]:
    return list(budgets.filter(pk__in={run.user_id for run in ended}).order_by("user_id"))
