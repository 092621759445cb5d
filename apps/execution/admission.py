"""Who may start a run: the bounds, looked at under the lock of the user's budget, and what a busy thread
does.

Counting first and inserting afterwards let 16 concurrent admissions past a limit of 3; a locked row that
holds the counts lets 3 past. A refusal names the bound and what would be accepted, and none of the numbers of
other users.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from apps.execution.limits import PlanLimits, RunLimits
from apps.execution.models import Run, UserBudget
from apps.execution.states import RunStatus
from apps.realtime.protocol import IfBusy
from apps.vocabulary import ErrorCode, Identity, MessageId, Refusal, RunId, ThreadId, UserId

QUEUE_RETRY_S = 5.0  # when a full queue of all users is worth another try
OWN_RETRY_S = 5.0  # when a bound that a user's own runs hold is worth another try
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What a user asks to be run. `message` is the user's message as AG-UI has it; a retry repeats the old
    one.
    """

    run_id: RunId
    thread_id: ThreadId
    agent: str
    text: str
    message_id: MessageId
    message: Mapping[str, Any]
    attachments: Sequence[str] = ()
    if_busy: IfBusy = IfBusy.REJECT
    parent_run_id: RunId | None = None
    retry_of: RunId | None = None
    restarts: int = 0  # how often this question was asked again because a process died
    after_message_id: MessageId | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted run: its place in the user's own queue, from 1, and the runs that it sent away
    (`interrupt`, `rollback`).

    Those that were queued have ended; a running one ends soon, and the admitted run waits for that.
    """

    run_id: RunId
    place: int
    cancelled: tuple[RunId, ...] = ()


def check_thread(user_id: UserId, request: RunRequest) -> list[Run]:
    """The open runs of the thread, which the request sends away; none for `enqueue`. Raises
    Refusal(thread_busy): a run that waits for an approval holds nothing, and keeps nobody from going on.
    """
    busy = list(Run.objects.owned(user_id).open().filter(thread_id=request.thread_id).order_by("ordinal"))
    at_work = [run for run in busy if run.status != RunStatus.WAITING]
    match request.if_busy:
        case IfBusy.REJECT if at_work:
            raise Refusal(
                ErrorCode.THREAD_BUSY,
                "this thread has a run that has not ended; wait for it, or send `if_busy`: "
                "enqueue, interrupt or rollback",
                {"run_id": at_work[-1].id},
            )
        case IfBusy.INTERRUPT | IfBusy.ROLLBACK:
            return busy
        case _:
            return []


def check_retry(user_id: UserId, request: RunRequest) -> None:
    """A retry is of a run of the same user and thread. Raises Refusal(not_found)."""
    if request.retry_of is None:
        return
    if not Run.objects.owned(user_id).filter(pk=request.retry_of, thread_id=request.thread_id).exists():
        raise Refusal(ErrorCode.NOT_FOUND, "there is no such run in this thread to retry")


def check_bounds(budget: UserBudget, plan: PlanLimits, limits: RunLimits) -> None:
    """One more run fits. The caller holds the budget's lock. Raises Refusal(too_many_runs, queue_full)."""
    if budget.open_runs >= plan.open_runs_per_user:
        raise Refusal(
            ErrorCode.TOO_MANY_RUNS,
            f"at most {plan.open_runs_per_user} of your runs may be open; wait for one to end, or cancel one",
            {"limit": plan.open_runs_per_user},
            OWN_RETRY_S,
        )
    if budget.waiting >= plan.waiting_runs_per_user:
        raise Refusal(
            ErrorCode.TOO_MANY_RUNS,
            f"at most {plan.waiting_runs_per_user} of your runs may wait for an approval; decide one, or cancel one",
            {"limit": plan.waiting_runs_per_user},
            OWN_RETRY_S,
        )
    if Run.objects.queued().values("pk")[: limits.queued_runs].count() >= limits.queued_runs:
        full = f"the server has as much work waiting as it takes, {limits.queued_runs} runs; send this again"
        raise Refusal(ErrorCode.QUEUE_FULL, full, {"limit": limits.queued_runs}, QUEUE_RETRY_S)


def check_quota(budget: UserBudget, plan: PlanLimits, wanted: int, now: datetime) -> None:
    """The day's quota has room for all that the run may use at most. The caller holds the budget's lock, so what
    two processes admit at once can never pass it together. Raises Refusal(quota_exceeded).
    """
    quota, used, reserved = plan.tokens_per_day, budget.used_on(now.date()), budget.reserved_tokens
    if used + reserved + wanted <= quota:
        return
    numbers = {"limit": quota, "used": used, "reserved": reserved, "wanted": wanted}
    what = f"this agent may use {wanted} tokens in a run, and of the {quota} that you may use in a day (UTC)"
    if wanted > quota:
        raise Refusal(ErrorCode.QUOTA_EXCEEDED, f"{what} that is too many; ask another agent", numbers, DAY_S)
    if used + wanted <= quota:
        held = f"{what} {used} are used and {reserved} are held by your open runs; wait for one to end, or cancel one"
        raise Refusal(ErrorCode.QUOTA_EXCEEDED, held, numbers, OWN_RETRY_S)
    midnight = datetime.combine(now.date() + timedelta(days=1), time(), UTC)
    spent = f"{what} {used} are used; ask again after midnight (UTC)"
    raise Refusal(ErrorCode.QUOTA_EXCEEDED, spent, numbers, math.ceil((midnight - now).total_seconds()))


def insert_run(
    identity: Identity, request: RunRequest, budget: UserBudget, plan: PlanLimits, reserved: int, now: datetime
) -> Run:
    """Write the run's row, and count it with its reservation. The caller holds the budget's lock."""
    run = Run(
        id=request.run_id,
        user_id=identity.user_id,
        user_name=identity.name,
        thread_id=request.thread_id,
        ordinal=budget.admit(now, reserved),
        agent=request.agent,
        text=request.text,
        message_id=request.message_id,
        message=dict(request.message),
        attachments=list(request.attachments),
        parent_run_id=request.parent_run_id,
        retry_of=request.retry_of,
        after_message_id=request.after_message_id or "",
        reserved_tokens=reserved,
        restarts=request.restarts,
        admitted_at=now,
    )
    run.save(force_insert=True)
    budget.tokens_per_day, budget.waiting_runs_per_user = plan.tokens_per_day, plan.waiting_runs_per_user
    budget.save(
        update_fields=[
            "queued",
            "admitted",
            "turn_at",
            "reserved_tokens",
            "tokens_per_day",
            "waiting_runs_per_user",
        ]
    )
    return run


def most_tokens(name: str, known_agents: Mapping[str, int]) -> int:
    """What a run of this agent may use at most. Raises Refusal(agent_unknown), which lists the agents there are."""
    if name not in known_agents:
        raise Refusal(
            ErrorCode.AGENT_UNKNOWN,
            f"there is no agent {name[:64]!r}; there are: {', '.join(known_agents)}",
            {"agents": list(known_agents)},
        )
    return known_agents[name]
