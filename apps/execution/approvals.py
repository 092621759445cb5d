"""Tool calls that wait for their user's word: a run that asked for one has ended, and its answer starts a new run.

A waiting run holds no slot, engine or lease: only its row, and one `Interrupt` with the call as it was asked for. What
is decided is that stored call, never a copy that a client sends. The first answer wins; all changes are made under the
lock of the user's budget.
"""

import enum
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ag_ui.core import CustomEvent
from django.db import transaction
from django.utils import timezone

from apps.agents.base import ApprovalRequest, Decision
from apps.execution.models import Interrupt, Run, UserBudget
from apps.execution.settlement import leave
from apps.execution.states import RunStatus
from apps.realtime.log import EventLog
from apps.realtime.values import LogEntry
from apps.vocabulary import ID_LENGTH, ErrorCode, Refusal, RunId, ThreadId, UserId

logger = logging.getLogger(__name__)

CLOSED: Final = "turnout.interrupt.closed"
EXPIRED_AT_ONCE: Final = 500  # runs that one look ends
COMMENT_CHARACTERS: Final = 1_000

Entries = list[LogEntry]


class Closing(enum.StrEnum):
    """How a call stops waiting."""

    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def status(self) -> RunStatus:
        """Where the run that asked stands then."""
        match self:
            case Closing.EXPIRED:
                return RunStatus.TIMED_OUT
            case Closing.CANCELLED:
                return RunStatus.CANCELLED
            case _:
                return RunStatus.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Answer:
    """What the user said to one call, and the run that it starts."""

    how: Closing
    comment: str
    resumed_run_id: RunId


def open_call(user_id: UserId, interrupt_id: str) -> Interrupt:
    """The call that waits under this id. Raises Refusal (not_found, already_decided)."""
    call = Interrupt.objects.owned(user_id).filter(pk=interrupt_id).first() if _is_key(interrupt_id) else None
    if call is None:
        raise Refusal(ErrorCode.NOT_FOUND, "there is no tool call that waits under this id")
    if call.decision or call.expires_at <= timezone.now():
        how = call.decision or Closing.EXPIRED
        raise Refusal(ErrorCode.ALREADY_DECIDED, f"this call waits no more: it is {how}", {"how": str(how)})
    return call


def decide(budget: UserBudget, call: Interrupt, answer: Answer) -> Entries:
    """Answer an open call, and end the run that asked. The caller holds the budget's lock.

    Raises Refusal(already_decided) when somebody was first.
    """
    run = Run.objects.owned(call.owner).filter(pk=call.run_id, status=RunStatus.WAITING).first()
    if run is None or not close(call, answer.how, answer.comment[:COMMENT_CHARACTERS], answer.resumed_run_id):
        raise Refusal(ErrorCode.ALREADY_DECIDED, "this call waits no more")
    leave(budget, run, answer.how.status)
    return [_told(call, answer.how)]


def close_of(run: Run, how: Closing) -> Entries:
    """Close the call of a waiting run that ends without an answer. The caller holds the budget's lock and ends it."""
    calls = Interrupt.objects.owned(run.owner).filter(run_id=run.pk, decision="")
    return [_told(call, how) for call in calls if close(call, how)]


def expire(log: EventLog, now: datetime) -> int:
    """End the runs whose calls were not answered in time, each in a transaction of its own. How many."""
    due = Interrupt.objects.filter(decision="", expires_at__lte=now).order_by("user_id", "pk")[:EXPIRED_AT_ONCE]
    return sum(_expire(log, call) for call in due)


def decision_for(user_id: UserId, run_id: RunId) -> tuple[Decision, ...]:
    """The answer that this run goes on from; none for a run that was not resumed."""
    call = Interrupt.objects.owned(user_id).filter(resumed_run_id=run_id).first()
    if call is None:
        return ()
    stored = ApprovalRequest(call.tool_call_id, call.tool, call.arguments, call.question)
    if stored.digest != call.digest:
        logger.error("the stored call %s was changed; it is taken as denied", call.pk)
        return (_decision(call, approved=False, comment="The stored call was changed."),)
    return (_decision(call, approved=call.decision == Closing.APPROVED, comment=call.comment),)


def forget_thread(user_id: UserId, thread_id: ThreadId) -> None:
    """Delete what the calls of a thread hold."""
    Interrupt.objects.owned(user_id).filter(thread_id=thread_id).delete()


def _expire(log: EventLog, call: Interrupt) -> bool:
    with transaction.atomic():
        budget = UserBudget.objects.locked(call.owner)
        if not close(call, Closing.EXPIRED):
            return False
        run = Run.objects.owned(call.owner).filter(pk=call.run_id, status=RunStatus.WAITING).first()
        if run is not None:
            leave(budget, run, RunStatus.TIMED_OUT)
            log.append(call.owner, [_told(call, Closing.EXPIRED)])
        return True


def close(call: Interrupt, how: Closing, comment: str = "", resumed_run_id: RunId | None = None) -> bool:
    """Compare and set: the first who answers, cancels or notices the time has it."""
    undecided = Interrupt.objects.owned(call.owner).filter(pk=call.pk, decision="")
    changed = undecided.update(decision=how, decided_at=timezone.now(), comment=comment, resumed_run_id=resumed_run_id)
    return bool(changed)


def _told(call: Interrupt, how: Closing) -> LogEntry:
    event = CustomEvent(name=CLOSED, value={"interrupt_id": call.pk, "how": str(how)})
    return LogEntry(event, ThreadId(call.thread_id), RunId(call.run_id))


def _decision(call: Interrupt, *, approved: bool, comment: str) -> Decision:
    return Decision(
        interrupt_id=call.pk,
        run_id=RunId(call.run_id),
        tool_call_id=call.tool_call_id,
        tool=call.tool,
        arguments=call.arguments,
        approved=approved,
        comment=comment,
    )


def _is_key(text: str) -> bool:
    # PostgreSQL fails on a NUL in a parameter, psycopg on a lone surrogate, where both should find nothing.
    return len(text) <= ID_LENGTH and text.isascii() and text.isprintable()
