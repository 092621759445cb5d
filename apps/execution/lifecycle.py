"""The events by which a run is queued, begins and ends, and the endings there are. Pure.

A run that fails tells its user a sentence and a reference, never the exception: its text may hold anything.
The log record with that reference has the rest.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ag_ui.core import (
    PROTOCOL_VERSION,
    CustomEvent,
    Interrupt,
    RunAgentInput,
    RunErrorEvent,
    RunFinishedCancelledOutcome,
    RunFinishedEvent,
    RunFinishedInterruptOutcome,
    RunFinishedSuccessOutcome,
    RunStartedEvent,
    TokenUsage,
    UserMessage,
)

from apps.agents.base import ApprovalRequest, TokenCount
from apps.execution.states import RunStatus
from apps.realtime.values import Ending, LogEntry
from apps.vocabulary import RunId, ThreadId, new_id

QUEUED = "turnout.run.queued"
MESSAGE_CHARACTERS = 1_000  # of a public message in RUN_ERROR


@dataclass(frozen=True, slots=True)
class AskedApproval:
    """What a run that ends as `waiting` waits for: the call, under the id that decides it, until then."""

    interrupt_id: str
    request: ApprovalRequest
    expires_at: datetime


class RunErrorCode(enum.StrEnum):
    """Why a run failed, and the status that it then has."""

    AGENT_ERROR = "agent_error"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    LIMIT_EXCEEDED = "limit_exceeded"
    UNAVAILABLE = "unavailable"

    @property
    def status(self) -> RunStatus:
        """The status of a run that ends with this code."""
        match self:
            case RunErrorCode.TIMEOUT:
                return RunStatus.TIMED_OUT
            case RunErrorCode.INTERRUPTED:
                return RunStatus.INTERRUPTED
            case _:
                return RunStatus.FAILED


def queued(thread_id: ThreadId, run_id: RunId, place: int, message: Mapping[str, Any] | None = None) -> LogEntry:
    """The run's place in its user's own queue, from 1; at admission with the user's message, later without."""
    value: dict[str, Any] = {"place": place}
    if message is not None:
        value["message"] = dict(message)
    return LogEntry(CustomEvent(name=QUEUED, value=value), thread_id, run_id)


def started(
    thread_id: ThreadId, run_id: RunId, message: Mapping[str, Any], parent_run_id: RunId | None
) -> RunStartedEvent:
    """RUN_STARTED with the user's message, so that tabs that did not send it show it."""
    return RunStartedEvent(
        thread_id=thread_id,
        run_id=run_id,
        protocol_version=PROTOCOL_VERSION,
        parent_run_id=parent_run_id,
        input=RunAgentInput(
            thread_id=thread_id,
            run_id=run_id,
            parent_run_id=parent_run_id,
            state={},
            messages=[UserMessage.model_validate(message)],
            tools=[],
            context=[],
            forwarded_props={},
        ),
    )


def succeeded(thread_id: ThreadId, run_id: RunId, usage: TokenCount) -> Ending:
    """The agent returned."""
    event = RunFinishedEvent(
        thread_id=thread_id, run_id=run_id, outcome=RunFinishedSuccessOutcome(), usage=_reported(usage)
    )
    return Ending(event, RunStatus.SUCCEEDED, counted(usage))


def cancelled(thread_id: ThreadId, run_id: RunId, usage: TokenCount) -> Ending:
    """The user asked the run to stop."""
    event = RunFinishedEvent(
        thread_id=thread_id, run_id=run_id, outcome=RunFinishedCancelledOutcome(), usage=_reported(usage)
    )
    return Ending(event, RunStatus.CANCELLED, counted(usage))


def waiting(
    thread_id: ThreadId, run_id: RunId, usage: TokenCount, request: ApprovalRequest, expires_at: datetime
) -> Ending:
    """The agent asks for its user's word. The call stays open; the answer starts another run."""
    asked = AskedApproval(new_id(), request, expires_at)
    interrupt = Interrupt(
        id=asked.interrupt_id,
        reason="tool_call",
        message=request.question,
        tool_call_id=request.tool_call_id,
        expires_at=expires_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )
    event = RunFinishedEvent(
        thread_id=thread_id,
        run_id=run_id,
        outcome=RunFinishedInterruptOutcome(interrupts=[interrupt]),
        usage=_reported(usage),
    )
    return Ending(event, RunStatus.WAITING, counted(usage), waits_for=asked)


def failed(code: RunErrorCode, message: str, usage: TokenCount) -> Ending:
    """The run could not go on; `message` is public."""
    event = RunErrorEvent(code=code, message=message[:MESSAGE_CHARACTERS], usage=_reported(usage))
    return Ending(event, code.status, counted(usage), error_code=code)


def interrupted(usage: TokenCount) -> Ending:
    """The process that ran it stopped, or died."""
    message = "The server stopped while this was being answered. Ask again to get a new answer."
    return failed(RunErrorCode.INTERRUPTED, message, usage)


def counted(usage: TokenCount) -> Mapping[str, int]:
    """The tokens as settlement stores them."""
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}


def _reported(usage: TokenCount) -> list[TokenUsage]:
    return [
        TokenUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.input_tokens + usage.output_tokens,
        )
    ]
