"""How an answer becomes AG-UI events: text in words, reasoning in its span, a tool call with its result."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson
from ag_ui.core import (
    BaseEvent,
    ReasoningEndEvent,
    ReasoningMessageContentEvent,
    ReasoningMessageEndEvent,
    ReasoningMessageStartEvent,
    ReasoningStartEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
)

from apps.agents.base import AgentContext, Decision, ToolBelt
from apps.agents.tools import MAX_ARGUMENT_BYTES, ToolRefused
from apps.vocabulary import new_id

MAX_TOOL_NAME_CHARACTERS = 64

_WORD = re.compile(r"\s*\S+\s*|\s+")


def words(text: str) -> Iterator[str]:
    """The text in pieces of one word with the space around it; joined they are the text again."""
    return (match[0] for match in _WORD.finditer(text))


async def say(context: AgentContext, text: str) -> AsyncIterator[BaseEvent]:
    """One message, word by word, counted as a token a word."""
    message_id = new_id()
    yield TextMessageStartEvent(message_id=message_id, role="assistant")
    for word in words(text):
        context.usage.add(output_tokens=1)
        yield TextMessageContentEvent(message_id=message_id, delta=word)
    yield TextMessageEndEvent(message_id=message_id)


@asynccontextmanager
async def closing[T](iterator: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close a generator on every way out, so that what it holds is given back now and not when it is
    collected.
    """
    try:
        yield iterator
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


class StreamedAnswer:
    """Turns the pieces of one streamed answer into events; text and reasoning may take turns."""

    def __init__(self) -> None:
        self._text_id: str | None = None
        self._reasoning_ids: tuple[str, str] | None = None  # of the span, of the message in it
        self._texts: list[str] = []
        self.last_text_id: str | None = None

    @property
    def text(self) -> str:
        """What was answered so far, without the reasoning."""
        return "".join(self._texts)

    def add_text(self, delta: str) -> Iterator[BaseEvent]:
        """Events for a piece of the answer."""
        if self._reasoning_ids is not None:
            yield from self.close()
        if self._text_id is None:
            self._text_id = self.last_text_id = new_id()
            yield TextMessageStartEvent(message_id=self._text_id, role="assistant")
        self._texts.append(delta)
        yield TextMessageContentEvent(message_id=self._text_id, delta=delta)

    def add_reasoning(self, delta: str) -> Iterator[BaseEvent]:
        """Events for a piece of reasoning."""
        if self._text_id is not None:
            yield from self.close()
        if self._reasoning_ids is None:
            self._reasoning_ids = (new_id(), new_id())
            yield ReasoningStartEvent(message_id=self._reasoning_ids[0])
            yield ReasoningMessageStartEvent(message_id=self._reasoning_ids[1], role="reasoning")
        yield ReasoningMessageContentEvent(message_id=self._reasoning_ids[1], delta=delta)

    def close(self) -> Iterator[BaseEvent]:
        """Events that end whatever is open."""
        if self._text_id is not None:
            yield TextMessageEndEvent(message_id=self._text_id)
            self._text_id = None
        if self._reasoning_ids is not None:
            yield ReasoningMessageEndEvent(message_id=self._reasoning_ids[1])
            yield ReasoningEndEvent(message_id=self._reasoning_ids[0])
            self._reasoning_ids = None


@dataclass(slots=True)
class ToolUse:
    """One tool call, shown as it happens. `result` is there when `events` is through.

    The id is ours: models repeat theirs from turn to turn, and some servers leave them empty.
    """

    tool_call_id: str
    name: str
    arguments: str  # JSON text
    parent_message_id: str | None = None
    result: str = ""
    refused: bool = False

    @property
    def shown_arguments(self) -> str:
        """The arguments if they are a JSON object of a sane size, else an empty one.

        They go into the history, where anything else would make every later request of the thread fail.
        """
        if len(self.arguments.encode(errors="replace")) > MAX_ARGUMENT_BYTES:
            return "{}"
        try:
            is_object = isinstance(orjson.loads(self.arguments), dict)
        except orjson.JSONDecodeError:
            is_object = False
        return self.arguments if is_object else "{}"

    async def events(self, tools: ToolBelt, decision: Decision | None = None) -> AsyncIterator[BaseEvent]:
        """Show the call, run the tool, show its result; a refusal is a result too. Raises ApprovalNeeded, the call
        shown and open.
        """
        name = self.name[:MAX_TOOL_NAME_CHARACTERS]
        yield ToolCallStartEvent(
            tool_call_id=self.tool_call_id, tool_call_name=name, parent_message_id=self.parent_message_id
        )
        yield ToolCallArgsEvent(tool_call_id=self.tool_call_id, delta=self.shown_arguments)
        yield ToolCallEndEvent(tool_call_id=self.tool_call_id)
        try:
            self.result = await tools.call(self.name, self.arguments, self.tool_call_id, decision)
        except ToolRefused as refusal:
            self.result = str(refusal)
            self.refused = True
        yield ToolCallResultEvent(message_id=new_id(), tool_call_id=self.tool_call_id, content=self.result)
