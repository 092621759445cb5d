"""A recorded run again, answered from its recording.

A replay touches nothing: what was not recorded is not asked for, it raises `CallNotRecorded`. Calls are found by what
was asked, and in their order where the same thing was asked twice.
"""

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.agents.base import Decision, HistoryMessage, ModelDelta, TokenCount, ToolCallRequest, ToolDeclaration
from apps.agents.provider import ModelUnavailable
from apps.agents.recording import Call, Recording, asked_of_model, asked_of_tool
from apps.agents.tools import ToolRefused


class CallNotRecorded(Exception):  # noqa: N818 - names what was met
    """The replay asked for something that the recorded run had not asked for; nobody answers it."""


class RecordedCalls:
    """The answers of one recorded run, each given once. `diverged` names the first call that had none."""

    def __init__(self, recording: Recording) -> None:
        self._waiting: defaultdict[tuple[str, str], deque[Call]] = defaultdict(deque)
        for call in recording.calls:
            self._waiting[call["kind"], call["asked"]].append(call)
        self.diverged = ""
        self.same_but_messages = False

    def take(self, kind: str, asked: str, name: str) -> Call:
        """The recorded call. Raises CallNotRecorded, also for a second one where one was recorded."""
        waiting = self._waiting[kind, asked]
        if waiting:
            return waiting.popleft()
        return self.refuse(kind, asked, name)

    def refuse(self, kind: str, asked: str, name: str) -> Call:
        """Note what had no answer. Raises CallNotRecorded."""
        if not self.diverged:
            self.diverged = f"{kind} {name} {asked}".strip()
            # A model that was asked the same, but in the light of another conversation: whose was it?
            alike = [of for (of_kind, of), calls in self._waiting.items() if of_kind == kind == "model" and calls]
            self.same_but_messages = any(_without_messages(of) == _without_messages(asked) for of in alike)
        raise CallNotRecorded(f"this {kind} call was not recorded: {name}")


@dataclass(frozen=True, slots=True)
class ReplayedModel:
    """Answers as the recorded run's model did."""

    calls: RecordedCalls

    async def stream(
        self,
        instructions: str,
        messages: Sequence[HistoryMessage],
        tools: Sequence[ToolDeclaration],
        usage: TokenCount,
    ) -> AsyncIterator[ModelDelta]:
        """The recorded deltas. Raises ModelUnavailable where the recorded run met it, and CallNotRecorded."""
        asked = asked_of_model(instructions, messages, tools)
        call = self.calls.take("model", asked, "")
        usage.add(input_tokens=call["used"][0], output_tokens=call["used"][1])
        for fields in call["deltas"]:
            request = fields["tool_call"]
            yield ModelDelta(fields["text"], fields["reasoning"], ToolCallRequest(**request) if request else None)
        if call["ending"] == "unavailable":
            raise ModelUnavailable(call["text"])
        if call["ending"] == "left":
            self.calls.refuse("model", asked, "read further than it was read")


@dataclass(frozen=True, slots=True)
class ReplayedBelt:
    """Answers as the recorded run's tools did, and runs none."""

    calls: RecordedCalls
    declarations: Sequence[ToolDeclaration]

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any] | str,
        tool_call_id: str,  # noqa: ARG002 - ids are drawn anew
        decision: Decision | None = None,  # noqa: ARG002 - what was decided is in the recorded result
    ) -> str:
        """The recorded result. Raises ToolRefused where the recorded run met it, and CallNotRecorded."""
        call = self.calls.take("tool", asked_of_tool(name, arguments), name)
        if call["ending"] == "refused":
            raise ToolRefused(call["text"])
        text: str = call["text"]
        return text


def _without_messages(asked: str) -> tuple[str, str]:
    instructions, _, tools = asked.split(".")
    return instructions, tools
