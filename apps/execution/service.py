"""Runs, as the rest of Turnout asks for them: admit, cancel, describe, claim. One call a command, all
synchronous.

Each is called on a database thread. `admit`, `cancel` and `cancel_in_thread` belong into the transaction of
the command they serve; the user's budget is the first row that they lock, so a caller that locks a thread
calls `lock_user` before.
"""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from functools import partial
from typing import Any, Literal

from django.db import transaction
from django.utils import timezone

from apps.agents.base import TokenCount
from apps.execution import admission, approvals, fairness, lifecycle
from apps.execution.admission import Admission, RunRequest
from apps.execution.approvals import Answer, Closing
from apps.execution.fairness import ClaimedRun
from apps.execution.limits import PlanLimits, Plans, RunLimits
from apps.execution.models import Interrupt, Run, UserBudget
from apps.execution.recovery import Recovery
from apps.execution.settlement import leave
from apps.execution.states import RunStatus
from apps.execution.tasks import cancel_run, wake_executor
from apps.realtime.commit import Participant
from apps.realtime.log import EventLog, RunClosed
from apps.realtime.values import EndedRun, Ending, LogEntry, RunLease
from apps.vocabulary import ErrorCode, Identity, MessageId, PinnedPaths, Refusal, RunId, ThreadId, UserId

logger = logging.getLogger(__name__)

# Nothing else can be a key, and PostgreSQL fails on a NUL in a parameter where it should find nothing.
_KEY = re.compile(r"[!-~]{1,36}", re.ASCII)

Cancelled = Literal["cancelling", "cancelled"]


def open_for_work() -> str:
    """Nothing keeps work from beginning."""
    return ""


class RunService:
    """See the module. `choose_paths` is asked in the claim's transaction; `fold` writes the messages of ended
    runs; `known_agents` says what a run of each agent may use, in tokens; `plans` what each user may hold;
    `why_closed` why no work may begin, or nothing; `process_id` is the owner of what is claimed here.
    """

    def __init__(
        self,
        *,
        log: EventLog,
        limits: RunLimits,
        choose_paths: Callable[[Identity], PinnedPaths],
        known_agents: Mapping[str, int],
        plans: Plans,
        fold: Participant,
        process_id: str,
        why_closed: Callable[[], str] = open_for_work,
    ) -> None:
        self._log = log
        self._why_closed = why_closed
        self._limits = limits
        self._choose_paths = choose_paths
        self._known_agents = dict(known_agents)
        self._plans = plans
        self._fold = fold
        self._process_id = process_id
        self._recovery = Recovery(log, fold)

    # -- commands; inside the caller's transaction

    def lock_user(self, user_id: UserId) -> UserBudget:
        """Take the first lock of the lock order, until the caller's transaction ends."""
        return UserBudget.objects.locked(user_id)

    def plan_of(self, identity: Identity) -> PlanLimits:
        """What this user may hold and use."""
        return self._plans(identity)

    def admit(self, identity: Identity, request: RunRequest) -> Admission:
        """Queue a run. Raises Refusal (unavailable, agent_unknown, not_found, thread_busy, too_many_runs,
        queue_full, quota_exceeded); then nothing was written, nor any other run cancelled.
        """
        if closed := self._why_closed():
            raise Refusal(ErrorCode.UNAVAILABLE, closed, {}, admission.QUEUE_RETRY_S)
        wanted = admission.most_tokens(request.agent, self._known_agents)
        user_id = identity.user_id
        budget = self.lock_user(user_id)
        plan = self._plans(identity)
        now = timezone.now()
        with transaction.atomic():  # a savepoint: a refusal takes back what was sent away for the new run
            admission.check_retry(user_id, request)
            sent_away = admission.check_thread(user_id, request)
            leaving = self._cancel_all(budget, sent_away)
            admission.check_bounds(budget, plan, self._limits)
            admission.check_quota(budget, plan, wanted, now)
            run = admission.insert_run(identity, request, budget, plan, wanted, now)
            place = Run.objects.owned(user_id).queued().filter(ordinal__lt=run.ordinal).count() + 1
            self._log.open_run(user_id, run.run_id, run.thread)
            self._tell(user_id, leaving, [lifecycle.queued(run.thread, run.run_id, place, run.message)])
        transaction.on_commit(wake_executor.enqueue, robust=True)
        return Admission(run.run_id, place, tuple(gone.run_id for gone in sent_away))

    def cancel(self, user_id: UserId, run_id: RunId) -> Cancelled:
        """Ask a run to stop; a queued or waiting one has ended at once. Raises Refusal (not_found,
        run_finished).
        """
        budget = self.lock_user(user_id)
        run = self._get(user_id, run_id)
        if not RunStatus(run.status).is_open:
            raise Refusal(ErrorCode.RUN_FINISHED, f"the run has ended: it is {run.status}")
        self._tell(user_id, self._cancel_all(budget, [run]))
        return "cancelling" if run.status == RunStatus.RUNNING else "cancelled"

    def open_call(self, user_id: UserId, interrupt_id: str) -> Interrupt:
        """The tool call that waits under this id. Raises Refusal (not_found, already_decided)."""
        return approvals.open_call(user_id, interrupt_id)

    def resume(self, identity: Identity, call: Interrupt, answer: Answer, request: RunRequest) -> Admission:
        """Answer a call that waits, and queue the run that goes on from the answer.

        Raises Refusal (already_decided, and what `admit` refuses); then the call waits on.
        """
        budget = self.lock_user(identity.user_id)
        with transaction.atomic():  # a savepoint: a refusal takes the answer back
            self._log.append(identity.user_id, approvals.decide(budget, call, answer))
            return self.admit(identity, request)

    def expire_approvals(self) -> None:
        """End the runs whose calls nobody answered in time, of all users. Opens transactions of its own."""
        if ended := approvals.expire(self._log, timezone.now()):
            logger.info("%d calls that waited for approval have expired", ended)

    def may_wait(self, user_id: UserId) -> bool:
        """Whether one more run of this user may wait for an approval."""
        budget = UserBudget.objects.filter(pk=user_id).first()
        most = None if budget is None else budget.waiting_runs_per_user
        return budget is None or most is None or budget.waiting < most

    def cancel_in_thread(self, user_id: UserId, thread_id: ThreadId) -> tuple[RunId, ...]:
        """Cancel all of a thread's open runs (for deleting it) and return their ids."""
        budget = self.lock_user(user_id)
        runs = list(Run.objects.owned(user_id).open().filter(thread_id=thread_id).order_by("ordinal"))
        self._tell(user_id, self._cancel_all(budget, runs))
        approvals.forget_thread(user_id, thread_id)
        return tuple(run.run_id for run in runs)

    # -- questions

    def describe(self, user_id: UserId, run_id: RunId) -> dict[str, Any]:
        """One run for its user, as JSON values. Raises Refusal(not_found)."""
        run = self._get(user_id, run_id)
        place: int | None = None
        if run.status == RunStatus.QUEUED:
            place = Run.objects.owned(user_id).queued().filter(ordinal__lt=run.ordinal).count() + 1
        return {
            "id": run.id,
            "thread_id": run.thread_id,
            "message_id": run.message_id,
            "agent": run.agent,
            "status": run.status,
            "cancel_requested": run.cancel_requested,
            "place": place,
            "parent_run_id": run.parent_run_id,
            "retry_of": run.retry_of,
            "error_code": run.error_code,
            "error_message": run.error_message,
            "usage": {"input_tokens": run.input_tokens, "output_tokens": run.output_tokens},
            "admitted_at": run.admitted_at.isoformat(),
            "started_at": run.started_at.isoformat() if run.started_at else None,
            "ended_at": run.ended_at.isoformat() if run.ended_at else None,
        }

    def stored_request(self, user_id: UserId, run_id: RunId) -> RunRequest:
        """What was asked in a run, for asking it again. Raises Refusal(not_found)."""
        return request_of(self._get(user_id, run_id))

    def usage(self, identity: Identity) -> dict[str, Any]:
        """What the user's own runs used, and may use in a day, as JSON values."""
        today = timezone.now().date()
        budget = UserBudget.objects.filter(pk=identity.user_id).first() or UserBudget(user_id=identity.user_id)
        midnight = datetime.combine(today, time(), UTC)
        sums = Run.objects.owned(identity.user_id).used_since(midnight)
        return {
            "today": {"input_tokens": sums["input_today"], "output_tokens": sums["output_today"]},
            "total": {"input_tokens": sums["input_total"], "output_tokens": sums["output_total"]},
            "runs": sums["runs"],
            "quota": self._plans(identity).tokens_per_day,
            "used": budget.used_on(today),
            "reserved": budget.reserved_tokens,
        }

    # -- for the executor; each is a transaction of its own

    def claim(self) -> ClaimedRun | None:
        """Take the run whose turn it is and pin its paths; None when no run may start now."""
        if self._why_closed():
            return None
        passed_over: set[UserId] = set()
        while True:
            with transaction.atomic():
                turn = fairness.next_in_turn(self._limits.run_slots_per_user, passed_over)
                if turn is None:
                    return None
                claimed = self._claim(*turn)
            if claimed is not None:
                return claimed

    def claimed_before(self, known: Collection[RunId]) -> list[ClaimedRun]:
        """The runs that are claimed for this process, except those that it knows: of such a claim the commit's answer
        was lost.
        """
        unknown = Run.objects.of_process(self._process_id).exclude(pk__in=list(known)).order_by("pk")
        return [self._as_claimed(run) for run in unknown]

    def end(self, lease: RunLease, ending: Ending) -> bool:
        """End a run whose owner cannot write its end through the publisher; False when it was no longer the
        owner's.
        """
        return self._recovery.end(lease.run_id, ending, lease.fence)

    # -- inside

    def _get(self, user_id: UserId, run_id: RunId) -> Run:
        run = Run.objects.owned(user_id).filter(pk=run_id).first() if _KEY.fullmatch(run_id) else None
        if run is None:
            raise Refusal(ErrorCode.NOT_FOUND, "there is no such run")
        return run

    def _claim(self, budget: UserBudget, run: Run) -> ClaimedRun | None:
        identity = Identity(run.owner, run.user_name)
        try:
            logged = self._log.claim_run(run.owner, run.run_id, run.fence + 1)
        except RunClosed:
            # Status and ledger change in one transaction, so this is damage from outside; it must not stop
            # the queue.
            logger.error(  # noqa: TRY400 - the run matters
                "the ledger of queued run %s is closed; it ends without event", run.pk, extra={"run_id": run.pk}
            )
            leave(budget, run, RunStatus.INTERRUPTED)
            return None
        paths = self._choose_paths(identity)
        fairness.start(budget, run, paths, self._process_id)
        if places := fairness.places_behind(run.owner, [run.ordinal]):
            self._log.append(run.owner, places)
        lease = RunLease(run.run_id, run.thread, run.owner, run.fence, logged)
        return ClaimedRun(lease, identity, run, paths, approvals.decision_for(run.owner, run.run_id))

    def _as_claimed(self, run: Run) -> ClaimedRun:
        logged = self._log.logged(run.owner, run.run_id)
        lease = RunLease(run.run_id, run.thread, run.owner, run.fence, logged)
        resume = approvals.decision_for(run.owner, run.run_id)
        return ClaimedRun(lease, Identity(run.owner, run.user_name), run, run.pinned_paths, resume)

    def _cancel_all(self, budget: UserBudget, runs: Sequence[Run]) -> "_Leaving":
        queued = [run for run in runs if run.status == RunStatus.QUEUED]
        ended = [_ended(run, lifecycle.cancelled(run.thread, run.run_id, TokenCount())) for run in queued]
        self._fold.lock(ended)
        closed: list[LogEntry] = []
        for run in runs:
            if run.status == RunStatus.RUNNING:
                self._ask_to_stop(run)
            else:
                closed += approvals.close_of(run, Closing.CANCELLED) if run.status == RunStatus.WAITING else []
                leave(budget, run, RunStatus.CANCELLED)
        for run in queued:
            self._log.close_run(run.owner, run.run_id)
        entries = [entry for run in queued for entry in _cancelled_in_queue(run)]
        entries += fairness.places_behind(UserId(budget.user_id), [run.ordinal for run in queued])
        return _Leaving(closed + entries, ended)

    def _tell(self, user_id: UserId, leaving: "_Leaving", more: Iterable[LogEntry] = ()) -> None:
        entries = [*leaving.entries, *more]
        if entries:
            self._log.append(user_id, entries)
        if leaving.ended:
            self._fold.write(leaving.ended)

    def _ask_to_stop(self, run: Run) -> None:
        Run.objects.filter(pk=run.pk).update(cancel_requested=True)
        self._log.request_cancel(run.owner, run.run_id)
        transaction.on_commit(partial(cancel_run.enqueue, run.id, process_id=run.process_id), robust=True)


@dataclass(frozen=True, slots=True)
class _Leaving:
    """What is to be told of queued runs that were cancelled: to tabs, and to whoever folds."""

    entries: Sequence[LogEntry]
    ended: Sequence[EndedRun]


def request_of(run: Run) -> RunRequest:
    """What was asked in this run, for asking it again."""
    return RunRequest(
        run_id=run.run_id,
        thread_id=run.thread,
        agent=run.agent,
        text=run.text,
        message_id=MessageId(run.message_id),
        message=run.message,
        attachments=tuple(run.attachments),
        parent_run_id=run.parent,
        retry_of=None if run.retry_of is None else RunId(run.retry_of),
    )


def _ended(run: Run, ending: Ending) -> EndedRun:
    return EndedRun(
        run.run_id,
        run.thread,
        run.owner,
        run.fence,
        ending.status,
        ending.usage,
        ending.error_code,
        error_message=ending.error_message,
    )


def _cancelled_in_queue(run: Run) -> list[LogEntry]:
    begun = lifecycle.started(run.thread, run.run_id, run.message, run.parent)
    ending = lifecycle.cancelled(run.thread, run.run_id, TokenCount())
    return [LogEntry(event, run.thread, run.run_id) for event in (begun, ending.event)]
