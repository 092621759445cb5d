"""An agent for tests whose answer has everything that an answer can have, a piece at a time."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import override

from ag_ui.core import (
    BaseEvent,
    ReasoningEndEvent,
    ReasoningMessageContentEvent,
    ReasoningMessageEndEvent,
    ReasoningMessageStartEvent,
    ReasoningStartEvent,
    SubagentFinishedEvent,
    SubagentStartedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
)

from apps.agents.base import Agent, AgentContext, AgentInput
from apps.vocabulary import new_id

PIECES = 20
PIECE_S = 0.03


class Storyteller(Agent):
    """Input: any words; they stand in every part of the answer."""

    name = "storyteller"
    title = "Storyteller"
    description = "Thinks, calls a tool, asks another agent, and tells it all."

    @override
    async def run(self, context: AgentContext, task: AgentInput) -> AsyncIterator[BaseEvent]:
        """Tell it in pieces. A sleep paces the pieces, since a test reloads in between."""
        for event in story(task.text):
            yield event
            await asyncio.sleep(PIECE_S)


def story(words: str) -> Iterator[BaseEvent]:
    """All events of one answer."""
    thought, said, call, other = (new_id() for _ in range(4))
    yield ReasoningStartEvent(message_id=thought)
    yield from _thinks(thought, words)
    yield ReasoningEndEvent(message_id=thought)
    yield from _says(said, f"# {words}\n\nFirst, a **look**:\n\n")
    yield ToolCallStartEvent(tool_call_id=call, tool_call_name="clock", parent_message_id=said)
    yield ToolCallArgsEvent(tool_call_id=call, delta='{"timezone": ')
    yield ToolCallArgsEvent(tool_call_id=call, delta='"UTC"}')
    yield ToolCallEndEvent(tool_call_id=call)
    yield ToolCallResultEvent(message_id=new_id(), tool_call_id=call, content=f"noon, {words}")
    yield SubagentStartedEvent(subagent_run_id=other, name="metronome")
    for event in _says(new_id(), f"| count | {words} |\n| --- | --- |\n| one | two |\n\n"):
        yield event.model_copy(update={"subagent_run_id": other})
    yield SubagentFinishedEvent(subagent_run_id=other)
    yield from _says(new_id(), f"```python\nprint({words!r})\n```\n\nThe end of {words}.")


def _thinks(message_id: str, words: str) -> Iterator[BaseEvent]:
    yield ReasoningMessageStartEvent(message_id=message_id, role="reasoning")
    for number in range(PIECES):
        yield ReasoningMessageContentEvent(message_id=message_id, delta=f"{words} {number}, ")
    yield ReasoningMessageEndEvent(message_id=message_id)


def _says(message_id: str, text: str) -> Iterator[BaseEvent]:
    yield TextMessageStartEvent(message_id=message_id, role="assistant")
    size = max(1, len(text) // PIECES)
    for start in range(0, len(text), size):
        yield TextMessageContentEvent(message_id=message_id, delta=text[start : start + size])
    yield TextMessageEndEvent(message_id=message_id)
