"""The chat with real rows, the real log and real commits, driven step by step: no agent, no socket, no clock.

`Room` is one user's view of it; every room is another user, so examples of a property do not meet.
"""

import itertools
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import orjson
from ag_ui.core import (
    BaseEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
)
from django.utils import timezone

from apps.agents.base import ApprovalRequest, TokenCount
from apps.chat.conversation import ChatLimits, Conversation
from apps.chat.folding import MessageFold
from apps.chat.models import Message, Thread
from apps.chat.snapshot import read_snapshot
from apps.execution import lifecycle
from apps.execution.fairness import ClaimedRun
from apps.execution.limits import PlanLimits, RunLimits
from apps.execution.service import RunService
from apps.execution.settlement import Settlement
from apps.realtime.coalescing import encode_entry
from apps.realtime.commit import Batch, Committed, Committer, FrozenEvent
from apps.realtime.log import EventLog, LogLimits, nobody
from apps.realtime.models import Segment
from apps.realtime.protocol import IfBusy, RunStart
from apps.realtime.segments import SegmentLimits
from apps.realtime.values import Ending
from apps.vocabulary import Identity, RunId, ThreadId, UserId, new_id

RUN_LIMITS = RunLimits(
    queued_runs=100_000,
    run_slots_per_user=20,
    run_slots=50,
    run_timeout_s=30.0,
    model_calls=8,
    approval_timeout_s=600.0,
    cancel_timeout_s=2.0,
    cleanup_timeout_s=2.0,
    history_messages=40,
    history_bytes=131_072,
    sweep_s=0.05,
)
CHAT_LIMITS = ChatLimits(text_bytes=32_768, receipt_hours=24)
PLAN = PlanLimits(
    open_runs_per_user=20,
    waiting_runs_per_user=10,
    tokens_per_day=10_000_000,
    threads_per_user=100,
    messages_per_thread=200,
    stored_bytes_per_user=1_000_000,
)

_user_ids = itertools.count(1_000)


class Room:
    """One user who talks; their runs are claimed and their events committed by the test."""

    def __init__(self, limits: ChatLimits = CHAT_LIMITS, user_id: int | None = None, plan: PlanLimits = PLAN) -> None:
        self.user_id = UserId(next(_user_ids) if user_id is None else user_id)
        self.identity = Identity(self.user_id, f"user {self.user_id}")
        self.plan = plan
        self.log = EventLog(LogLimits(segment=SegmentLimits(events=3)))
        self.fold = MessageFold(self.log)
        self.runs = RunService(
            log=self.log,
            limits=RUN_LIMITS,
            choose_paths=lambda _: {},
            known_agents={"assistant": 1_000, "metronome": 1_000},
            plans=lambda _: self.plan,
            fold=self.fold,
            process_id=new_id(),
        )
        self.conversation = Conversation(runs=self.runs, log=self.log, limits=limits)
        self._committer = Committer(
            settle=Settlement(), fold=self.fold, limits=SegmentLimits(events=3), may_receive_leaks=nobody
        )
        self._logged: dict[RunId, int] = {}

    def thread(self, title: str = "") -> Thread:
        return self.conversation.create_thread(self.identity, title)

    def ask(self, thread_id: str, text: str | None = "hello", **changes: Any) -> dict[str, Any]:
        """Start a run, or raise the refusal."""
        return self.conversation.start_run(self.identity, a_start(thread_id, text, **changes))

    def execute(self, command: Any) -> dict[str, Any]:
        reply: dict[str, Any] = orjson.loads(self.conversation.execute(self.identity, command))
        return reply

    def claim(self) -> ClaimedRun | None:
        """Begin the next run; RUN_STARTED is in the log."""
        claimed = self.runs.claim()
        if claimed is not None:
            lease, run = claimed.lease, claimed.run
            self._logged[lease.run_id] = lease.logged
            self.say(claimed, lifecycle.started(lease.thread_id, lease.run_id, run.message, None))
        return claimed

    def say(
        self, claimed: ClaimedRun, *events: BaseEvent, ending: Ending | None = None, prepared: object | None = None
    ) -> None:
        """Commit what a run says, as the group commit does."""
        said = [*events] if ending is None else [*events, ending.event]
        lease = claimed.lease
        frozen = tuple(self._frozen(claimed, event) for event in said)
        batch = Batch(lease, self._logged[lease.run_id], frozen, ending, prepared)
        outcome = self._committer.commit([batch]).outcomes[lease.run_id]
        assert isinstance(outcome, Committed), outcome
        self._logged[lease.run_id] += len(frozen)
        self._last = len(frozen)

    def forget_the_last(self, claimed: ClaimedRun) -> None:
        """What was said last was rolled back."""
        self._logged[claimed.lease.run_id] -= self._last

    def end(
        self, claimed: ClaimedRun, *events: BaseEvent, how: str = "succeeded", prepared: object | None = None
    ) -> None:
        self.say(claimed, *events, ending=ending_of(claimed, how), prepared=prepared)

    def answer(self, thread_id: str, text: str = "hello", reply: str = "hi", **changes: Any) -> dict[str, Any]:
        """A whole turn."""
        started = self.ask(thread_id, text, **changes)
        claimed = self.claim()
        assert claimed is not None
        self.end(claimed, *spoken(reply))
        return started

    def snapshot(self, thread_id: str) -> dict[str, Any]:
        return read_snapshot(self.user_id, ThreadId(thread_id)).as_json()

    def entries(self) -> list[dict[str, Any]]:
        payloads = Segment.objects.filter(user_id=self.user_id).order_by("first_seq").values_list("payload", flat=True)
        return [entry for payload in payloads for entry in orjson.loads(payload)]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The CUSTOM events of this name, with thread and run."""
        return [entry for entry in self.entries() if entry["event"].get("name") == name]

    def messages(self, thread_id: str) -> list[Message]:
        return list(Message.objects.filter(thread_id=thread_id).in_order())

    def _frozen(self, claimed: ClaimedRun, event: BaseEvent) -> FrozenEvent:
        wire = event.model_dump(mode="json", by_alias=True)
        entry = encode_entry(claimed.lease.thread_id, claimed.lease.run_id, time.time(), wire)
        return FrozenEvent(entry, len(entry))


def ending_of(claimed: ClaimedRun, how: str) -> Ending:
    lease, usage = claimed.lease, TokenCount(3, 5)
    match how:
        case "succeeded":
            return lifecycle.succeeded(lease.thread_id, lease.run_id, usage)
        case "waiting":
            request = ApprovalRequest("call-1", "write", '{"what":"x"}', "Write x?")
            until = timezone.now() + timedelta(hours=1)
            return lifecycle.waiting(lease.thread_id, lease.run_id, usage, request, until)
        case "cancelled":
            return lifecycle.cancelled(lease.thread_id, lease.run_id, usage)
        case _:
            return lifecycle.failed(lifecycle.RunErrorCode(how), "it went wrong", usage)


def a_start(thread_id: str, text: str | None = "hello", **changes: Any) -> RunStart:
    fields: dict[str, Any] = {"id": new_id(), "thread_id": ThreadId(thread_id), "text": text, "if_busy": IfBusy.REJECT}
    return RunStart(**(fields | changes))


def spoken(*deltas: str, message_id: str | None = None) -> list[BaseEvent]:
    """A whole text message."""
    message_id = message_id or new_id()
    contents = [TextMessageContentEvent(message_id=message_id, delta=delta) for delta in deltas]
    return [
        TextMessageStartEvent(message_id=message_id, role="assistant"),
        *contents,
        TextMessageEndEvent(message_id=message_id),
    ]


def called(
    name: str, arguments: str, result: str, call_id: str | None = None, parent: str | None = None
) -> list[BaseEvent]:
    """A whole tool call."""
    call_id = call_id or new_id()
    return [
        ToolCallStartEvent(tool_call_id=call_id, tool_call_name=name, parent_message_id=parent),
        ToolCallArgsEvent(tool_call_id=call_id, delta=arguments),
        ToolCallEndEvent(tool_call_id=call_id),
        ToolCallResultEvent(message_id=new_id(), tool_call_id=call_id, content=result),
    ]


def texts(messages: Iterable[Message | Mapping[str, Any]]) -> list[str]:
    return [message.text if isinstance(message, Message) else message["text"] for message in messages]
