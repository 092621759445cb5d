"""What a run has begun and not yet ended, and so which event may come next. Pure.

AG-UI's constructs are messages, reasoning, tool calls, steps and sub-agents: each has a start, a middle and an end, and
a client that sees a terminal event inside one is left with half a message for ever. The publisher asks this table
before it accepts an event, and closes what is open before the terminal one; recovery does the same for a run whose
process died, from the run's logged events.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

from ag_ui.core import (
    BaseEvent,
    ReasoningEndEvent,
    ReasoningMessageEndEvent,
    StepFinishedEvent,
    SubagentErrorEvent,
    TextMessageEndEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
)

from apps.vocabulary import new_id


class GrammarError(ValueError):
    """An event that cannot stand where it came: it says which, and what would have been legal."""


# type -> (construct, key of its id)
_STARTS = {
    "TEXT_MESSAGE_START": ("message", "messageId"),
    "REASONING_START": ("reasoning", "messageId"),
    "REASONING_MESSAGE_START": ("reasoning message", "messageId"),
    "TOOL_CALL_START": ("tool call", "toolCallId"),
    "STEP_STARTED": ("step", "stepName"),
    "SUBAGENT_STARTED": ("sub-agent", "subagentRunId"),
}
_MIDDLES = {
    "TEXT_MESSAGE_CONTENT": ("message", "messageId"),
    "REASONING_MESSAGE_CONTENT": ("reasoning message", "messageId"),
    "TOOL_CALL_ARGS": ("tool call", "toolCallId"),
}
_ENDS = {
    "TEXT_MESSAGE_END": ("message", "messageId"),
    "REASONING_END": ("reasoning", "messageId"),
    "REASONING_MESSAGE_END": ("reasoning message", "messageId"),
    "TOOL_CALL_END": ("tool call", "toolCallId"),
    "STEP_FINISHED": ("step", "stepName"),
    "SUBAGENT_FINISHED": ("sub-agent", "subagentRunId"),
    "SUBAGENT_ERROR": ("sub-agent", "subagentRunId"),
}
_FREE = {"CUSTOM", "STATE_SNAPSHOT", "STATE_DELTA", "ACTIVITY_SNAPSHOT", "ACTIVITY_DELTA", "REASONING_ENCRYPTED_VALUE"}
TERMINAL = frozenset({"RUN_FINISHED", "RUN_ERROR"})
_REOPENABLE = {"step"}  # a step may run again under its name; ids of all else are used once


class OpenConstructs:
    """Follows one run's events. `see` raises GrammarError and changes nothing when an event cannot come next."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], str] = {}
        self._unanswered: dict[str, str] = {}  # tool call ended, result not seen: call id -> parent message id
        self._used: set[tuple[str, str]] = set()
        self.started = False
        self.ended = False

    def __len__(self) -> int:
        return len(self._open) + len(self._unanswered)

    def see_delta(self, event_type: str, construct_id: str) -> None:
        """The fast path of `see` for TEXT_MESSAGE_CONTENT, REASONING_MESSAGE_CONTENT and TOOL_CALL_ARGS."""
        construct, _ = _MIDDLES[event_type]
        if self.ended or (construct, construct_id) not in self._open:
            self._refuse_middle(event_type, construct, construct_id)

    def see(self, event: Mapping[str, Any]) -> None:
        """Take one event in its wire form (`by_alias`)."""
        event_type = event["type"]
        if self.ended:
            raise GrammarError(f"{event_type} after the run's terminal event; nothing may follow it")
        if event_type in _MIDDLES:
            self.see_delta(event_type, event[_MIDDLES[event_type][1]])
        elif event_type in _STARTS:
            self._start(event_type, event)
        elif event_type in _ENDS:
            self._end(event_type, event)
        elif event_type == "TOOL_CALL_RESULT":
            self._result(event)
        elif event_type == "RUN_STARTED":
            if self.started:
                raise GrammarError("RUN_STARTED twice; it begins a run once")
            self.started = True
        elif event_type in TERMINAL:
            self.ended = True
        elif event_type not in _FREE:
            raise GrammarError(f"{event_type} is not an event that a run may log")

    def follow(self, event: Mapping[str, Any]) -> None:
        """Take an event that is in the log already. What does not fit is passed over: the log may have holes.

        A deleted thread's events are blanked, and the old bridge wrote some of a run's events elsewhere.
        """
        with contextlib.suppress(GrammarError):
            self.see(event)

    def _start(self, event_type: str, event: Mapping[str, Any]) -> None:
        construct, key = _STARTS[event_type]
        place = (construct, event[key])
        if place in self._open or (place in self._used and construct not in _REOPENABLE):
            raise GrammarError(f"{event_type} for {construct} {event[key]!r}, which was started before")
        self._open[place] = str(event.get("parentMessageId") or "")
        self._used.add(place)

    def _end(self, event_type: str, event: Mapping[str, Any]) -> None:
        construct, key = _ENDS[event_type]
        place = (construct, event[key])
        if place not in self._open:
            raise GrammarError(f"{event_type} for {construct} {event[key]!r}, which is not open")
        parent = self._open.pop(place)
        if construct == "tool call":
            self._unanswered[event[key]] = parent

    def _result(self, event: Mapping[str, Any]) -> None:
        call = event["toolCallId"]
        if call not in self._unanswered:
            raise GrammarError(f"TOOL_CALL_RESULT for call {call!r}, which did not end or has its result")
        del self._unanswered[call]

    def _refuse_middle(self, event_type: str, construct: str, construct_id: str) -> None:
        if self.ended:
            raise GrammarError(f"{event_type} after the run's terminal event; nothing may follow it")
        raise GrammarError(f"{event_type} for {construct} {construct_id!r}, which is not open; start it first")

    def closing_events(self, reason: str) -> list[BaseEvent]:
        """The events that close all that is open, newest first; `reason` becomes the result of unanswered calls."""
        closing: list[BaseEvent] = []
        unanswered = list(self._unanswered)
        for construct, construct_id in reversed(self._open):
            closing.append(_closing_event(construct, construct_id, reason))
            if construct == "tool call":
                unanswered.append(construct_id)
        closing.extend(
            ToolCallResultEvent(message_id=new_id(), tool_call_id=call, content=reason) for call in unanswered
        )
        return closing


def _closing_event(construct: str, construct_id: str, reason: str) -> BaseEvent:
    match construct:
        case "message":
            return TextMessageEndEvent(message_id=construct_id)
        case "reasoning":
            return ReasoningEndEvent(message_id=construct_id)
        case "reasoning message":
            return ReasoningMessageEndEvent(message_id=construct_id)
        case "tool call":
            return ToolCallEndEvent(tool_call_id=construct_id)
        case "step":
            return StepFinishedEvent(step_name=construct_id)
        case _:
            return SubagentErrorEvent(subagent_run_id=construct_id, message=reason)
