"""Do the books balance? What budgets count, what is reserved, what waits for approval, and who has a lease.

Each look is one SELECT that compares rows with rows, so that a live system is never accused of being between states.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import BigIntegerField, Count, Exists, F, IntegerField, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from apps.execution import approvals
from apps.execution.approvals import Closing
from apps.execution.models import Interrupt, Lease, Run, UserBudget
from apps.execution.settlement import leave
from apps.execution.states import ENDED, RunStatus
from apps.operations.auditing import Check, Tally
from apps.operations.models import ProcessReport
from apps.realtime.log import EventLog
from apps.vocabulary import UserId

COUNTED: Final = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING)
FIX: Final = "run it with --fix"
EXPIRES_WITHIN: Final = timedelta(minutes=1)  # the sweep that ends what has expired is no finding before


class Books:
    """The checks of execution's books; `silent_s` is when a process counts as missing."""

    def __init__(self, log: EventLog, silent_s: float) -> None:
        self._log = log
        self._silent_s = silent_s

    def before_runs(self) -> Sequence[Check]:
        """What must be put right before the runs: a lease that nobody keeps protects its runs."""
        return (Check("Leases have an owner", self._kept_leases, FIX, self._end_leases),)

    def after_runs(self) -> Sequence[Check]:
        """What counts the runs, when they have been put right."""
        return (
            Check("Approvals do not stay open", self._overdue_approvals, FIX, self._end_approvals),
            Check("Budgets count their runs", self._wrong_budgets, FIX, self._recount),
            Check("Reservations are settled", self._unsettled, FIX, self._settle),
        )

    # -- leases

    def _kept_leases(self) -> Tally:
        tally = Tally("leases", seen=Lease.objects.count())
        for lease in self._left_leases().order_by("pk"):
            tally.add_wrong(f"{lease}, which does not report")
        return tally

    def _left_leases(self) -> QuerySet[Lease]:
        living = ProcessReport.objects.running(self._silent_s).filter(pk=OuterRef("pk"))
        return Lease.objects.filter(~Exists(living))

    def _end_leases(self) -> None:
        for lease in self._left_leases():
            Lease.objects.take_away(lease.pk, lease.beat)  # one that moves belongs to somebody, reports or not

    # -- approvals

    def _overdue_approvals(self) -> Tally:
        tally = Tally("approvals", seen=Interrupt.objects.filter(decision="").count())
        for call in _overdue(timezone.now() - EXPIRES_WITHIN).order_by("pk"):
            tally.add_wrong(f"{call} of user {call.user_id}, until {call.expires_at:%Y-%m-%d %H:%M} UTC")
        for run in _waiting_for_nothing().order_by("pk"):
            tally.add_wrong(f"run {run.pk} of user {run.user_id} waits, and no call of it does")
        return tally

    def _end_approvals(self) -> None:
        while approvals.expire(self._log, timezone.now()):
            pass
        for call in _overdue(timezone.now()):
            with transaction.atomic():
                UserBudget.objects.locked(call.owner)
                approvals.close(call, Closing.CANCELLED)
        for run in _waiting_for_nothing():
            with transaction.atomic():
                budget = UserBudget.objects.locked(run.owner)
                stored = Run.objects.owned(run.owner).filter(pk=run.pk, status=RunStatus.WAITING).first()
                if stored is not None:
                    leave(budget, stored, RunStatus.TIMED_OUT)

    # -- budgets

    def _wrong_budgets(self) -> Tally:
        tally = Tally("budgets", seen=UserBudget.objects.count())
        for user_id, wrong in _wrong_budgets():
            tally.add_wrong(f"user {user_id}: {wrong}")
        return tally

    def _recount(self) -> None:
        for user_id, _ in _wrong_budgets():
            with transaction.atomic():
                budget = UserBudget.objects.locked(user_id)
                counted = Run.objects.owned(user_id).open().values_list("status").annotate(Count("pk"))
                actual = dict(counted.order_by())
                for status in COUNTED:
                    setattr(budget, status, actual.get(status, 0))
                budget.save(update_fields=list(COUNTED))

    # -- reservations

    def _unsettled(self) -> Tally:
        tally = Tally("budgets", seen=UserBudget.objects.count())
        for run in _ended_with_reservation().order_by("pk"):
            tally.add_wrong(f"run {run.pk} of user {run.user_id} has ended and holds {run.reserved_tokens} tokens")
        for budget in _wrong_reservations().order_by("pk"):
            tally.add_wrong(f"user {budget.user_id}: {budget.reserved_tokens} tokens, and its runs hold others")
        return tally

    def _settle(self) -> None:
        users = set(_ended_with_reservation().values_list("user_id", flat=True))
        users |= set(_wrong_reservations().values_list("pk", flat=True))
        for user_id in sorted(users):
            with transaction.atomic():
                budget = UserBudget.objects.locked(UserId(user_id))
                runs = Run.objects.owned(UserId(user_id))
                runs.filter(status__in=sorted(ENDED)).exclude(reserved_tokens=0).update(reserved_tokens=0)
                budget.reserved_tokens = runs.aggregate(held=Sum("reserved_tokens", default=0))["held"]
                budget.save(update_fields=["reserved_tokens"])


def _overdue(before: datetime) -> QuerySet[Interrupt]:
    """Calls that are open and should not be: their time is over, or their run waits no more."""
    waiting = Run.objects.filter(pk=OuterRef("run_id"), status=RunStatus.WAITING)
    return Interrupt.objects.filter(Q(expires_at__lte=before) | ~Exists(waiting), decision="")


def _waiting_for_nothing() -> QuerySet[Run]:
    open_call = Interrupt.objects.filter(run_id=OuterRef("pk"), decision="")
    return Run.objects.filter(~Exists(open_call), status=RunStatus.WAITING)


def _ended_with_reservation() -> QuerySet[Run]:
    return Run.objects.filter(status__in=sorted(ENDED)).exclude(reserved_tokens=0)


def _wrong_reservations() -> QuerySet[UserBudget]:
    runs = Run.objects.filter(user_id=OuterRef("user_id"), status__in=["queued", "running"]).order_by()
    held = runs.values("user_id").annotate(held=Sum("reserved_tokens")).values("held")
    actual = Coalesce(Subquery(held, output_field=BigIntegerField()), 0)
    return UserBudget.objects.annotate(held=actual).exclude(reserved_tokens=F("held"))


def _wrong_budgets() -> list[tuple[UserId, str]]:
    actual = {f"{status}_runs": _count_of(status) for status in COUNTED}
    wrong = []
    for budget in UserBudget.objects.annotate(**actual).order_by("pk"):
        differing = [
            f"{getattr(budget, status)} {status} counted, {getattr(budget, f'{status}_runs')} there"
            for status in COUNTED
            if getattr(budget, status) != getattr(budget, f"{status}_runs")
        ]
        if differing:
            wrong.append((UserId(budget.user_id), "; ".join(differing)))
    return wrong


def _count_of(status: RunStatus) -> Coalesce:
    runs = Run.objects.filter(user_id=OuterRef("user_id"), status=status).order_by()
    number = runs.values("user_id").annotate(number=Count("pk")).values("number")
    return Coalesce(Subquery(number, output_field=IntegerField()), 0)
