"""An agent that says something of every kind and stops where it is told to, to be killed there."""

import asyncio

from ag_ui.core import (
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

from apps.agents.base import Agent

KINDS = (
    "RUN_STARTED",
    "REASONING_START",
    "REASONING_MESSAGE_START",
    "REASONING_MESSAGE_CONTENT",
    "REASONING_MESSAGE_END",
    "REASONING_END",
    "TEXT_MESSAGE_START",
    "TEXT_MESSAGE_CONTENT",
    "TOOL_CALL_START",
    "TOOL_CALL_ARGS",
    "TOOL_CALL_END",
    "TOOL_CALL_RESULT",
    "TEXT_MESSAGE_END",
)


class EveryKind(Agent):
    name = "every-kind"
    title = "Every kind"
    description = "For tests. Input: the kind of event after which it waits for ever."

    async def run(self, context, task):
        message, call, thought = (f"{what}-{task.run_id}" for what in ("message", "call", "thought"))
        said = (
            ReasoningStartEvent(message_id=thought),
            ReasoningMessageStartEvent(message_id=thought, role="reasoning"),
            ReasoningMessageContentEvent(message_id=thought, delta="hm"),
            ReasoningMessageEndEvent(message_id=thought),
            ReasoningEndEvent(message_id=thought),
            TextMessageStartEvent(message_id=message, role="assistant"),
            TextMessageContentEvent(message_id=message, delta="half a "),
            ToolCallStartEvent(tool_call_id=call, tool_call_name="add", parent_message_id=message),
            ToolCallArgsEvent(tool_call_id=call, delta="{}"),
            ToolCallEndEvent(tool_call_id=call),
            ToolCallResultEvent(tool_call_id=call, message_id=f"result-{task.run_id}", content="3"),
            TextMessageEndEvent(message_id=message),
        )
        for event in said[: KINDS.index(task.text)]:
            yield event
        await asyncio.get_running_loop().create_future()
