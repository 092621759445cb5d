"""Whose run is next: the user with the fewest running runs, among those who waits longest, then that user's
oldest run.

How long a user waits counts from the later of their last start and their oldest queued admission, so neither
a user who queues fifty runs at once nor a stream of newcomers keeps another from their turn: with W users
whose work was queued before, a user without a running run waits until at most W + 1 slots came free. The
choice reads one index of budgets, however long the queue is.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from apps.agents.base import Decision
from apps.execution.lifecycle import queued
from apps.execution.models import Run, UserBudget
from apps.execution.states import RunStatus
from apps.realtime.values import LogEntry, RunLease
from apps.vocabulary import Identity, PinnedPaths, UserId


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that this process owns from the commit of its claim on, under the fence of its lease."""

    lease: RunLease
    identity: Identity
    run: Run
    paths: PinnedPaths
    resume: tuple[Decision, ...] = ()


def next_in_turn(slots_per_user: int, passed_over: Collection[UserId] = ()) -> tuple[UserBudget, Run] | None:
    """The next user's budget, locked, and their next run. Must be called in a transaction.

    A budget that somebody else holds is skipped: its user is being served at this moment.
    """
    passed = set(passed_over)
    while True:
        claimable = Run.objects.filter(user_id=OuterRef("user_id")).claimable()
        budget = (
            UserBudget.objects.select_for_update(no_key=True, skip_locked=_can_skip_locked())
            .filter(Exists(claimable), turn_at__isnull=False, running__lt=slots_per_user)
            .exclude(pk__in=passed)
            .order_by("running", "turn_at", "user_id")
            .first()
        )
        if budget is None:
            return None
        # Read again under the lock: the choice above may have been made on rows that have changed since.
        claimable_now = Run.objects.owned(UserId(budget.user_id)).claimable()
        run = claimable_now.select_for_update(no_key=True).order_by("ordinal").first()
        if run is not None and budget.running < slots_per_user:
            return budget, run
        passed.add(UserId(budget.user_id))


def start(budget: UserBudget, run: Run, paths: PinnedPaths, process_id: str) -> None:
    """Move the run to `running` under a new fence, with the paths that were chosen for it, and count it. From the
    commit on it hangs on the lease of `process_id`.
    """
    now = timezone.now()
    pins = {seam: {"path": pin.path, "version": pin.version} for seam, pin in paths.items()}
    run.move(RunStatus.RUNNING, fence=run.fence + 1, started_at=now, paths=pins, process_id=process_id)
    budget.start(now)
    budget.save(update_fields=["queued", "running", "last_started_at", "turn_at"])


def places_behind(user_id: UserId, ordinals: Iterable[int]) -> list[LogEntry]:
    """The new places of this user's queued runs, those that changed because the runs with `ordinals` left the
    queue.
    """
    left = min(ordinals, default=None)
    if left is None:
        return []
    waiting = Run.objects.owned(user_id).queued().order_by("ordinal")
    return [queued(run.thread, run.run_id, place) for place, run in enumerate(waiting, start=1) if run.ordinal > left]


def _can_skip_locked() -> bool:
    return bool(transaction.get_connection().features.has_select_for_update_skip_locked)
