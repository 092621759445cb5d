"""A run's end in the books: its status, its usage, and its user's counts, in the transaction of its terminal
event.
"""

from collections.abc import Sequence

from django.db.models import F, QuerySet
from django.utils import timezone

from apps.execution.models import Run, UserBudget
from apps.execution.states import RunStatus, move
from apps.realtime.locking import lock_free
from apps.realtime.values import EndedRun
from apps.vocabulary import RunId, UserId


class Settlement:
    """The participant that execution sends into the log's commits. Holds nothing; all methods are
    synchronous.
    """

    def lock(self, ended: Sequence[EndedRun]) -> None:
        """Lock the budgets of all users in the commit, in the order of their ids."""
        _in_order(UserBudget.objects.select_for_update(no_key=True), ended)

    def lock_free(self, ended: Sequence[EndedRun]) -> frozenset[RunId]:
        """As `lock`, but wait for nobody: returns the runs whose user's budget somebody else holds."""
        held = lock_free(UserBudget.objects.all(), {run.user_id for run in ended})
        return frozenset(run.run_id for run in ended if run.user_id in held)

    def write(self, ended: Sequence[EndedRun]) -> None:
        """Move each run that the given fence still owns, store its usage, and give its slot back.

        A run that was ended under a newer fence is passed over: the ledger's compare-and-swap, which follows
        in the same transaction, refuses its events, and all of this is rolled back. Raises IllegalMove for a
        status no run can end in.
        """
        budgets = {UserId(budget.user_id): budget for budget in _in_order(UserBudget.objects.all(), ended)}
        now = timezone.now()
        changed: set[UserId] = set()
        for run in ended:
            to = move(RunStatus.RUNNING, RunStatus(run.status))
            owned = Run.objects.owned(run.user_id).running().filter(pk=run.run_id, fence=run.fence)
            settled = owned.update(
                status=to,
                ended_at=now,
                error_code=run.error_code,
                input_tokens=F("input_tokens") + run.usage.get("input_tokens", 0),
                output_tokens=F("output_tokens") + run.usage.get("output_tokens", 0),
            )
            if settled:
                budgets[run.user_id].count_move(RunStatus.RUNNING, to)
                changed.add(run.user_id)
        for user_id in sorted(changed):
            budgets[user_id].save(update_fields=["running", "waiting"])


def _in_order(budgets: QuerySet[UserBudget], ended: Sequence[EndedRun]) -> list[UserBudget]:
    return list(budgets.filter(pk__in={run.user_id for run in ended}).order_by("user_id"))
