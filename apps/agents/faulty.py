"""An agent that misbehaves as it is told, for tests and fault drills. Registered only where allowed."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import ClassVar, NoReturn, override

from ag_ui.core import (
    BaseEvent,
    RunFinishedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCallStartEvent,
)

from apps.agents.base import Agent, AgentContext, AgentInput, AgentInputError
from apps.agents.options import Options
from apps.vocabulary import new_id

MODES = ("raise", "hang", "flood", "garbage", "leak", "block_loop", "exit")
MAX_AFTER = 10_000  # deltas
FLOOD_DELTA_CHARACTERS = 1_024
EXIT_STATUS = 70  # EX_SOFTWARE: tells a drill that the process died by this agent


class DeliberateFault(RuntimeError):  # noqa: N818 - the name says that nothing is wrong with the server
    """What `mode=raise` raises. Its text stands for internals: a tab that shows it has been told too much."""


class FaultyAgent(Agent):
    """Input `mode=raise|hang|flood|garbage|leak|block_loop|exit after=N`: N good deltas, then the fault.

    raise       an exception whose text must reach nobody
    hang        never goes on, and stops when it is cancelled
    flood       deltas without end, as fast as they are taken
    garbage     events out of grammar: an unknown message, two terminals, another run's id
    leak        leaves a message and a tool call open, and a task that uses the tools after the run
    block_loop  blocks the event loop of the whole process
    exit        ends the process at once, as `kill -9` does
    """

    name = "faulty"
    title = "Faulty"
    description = "Misbehaves on request. Input: mode=raise after=3."
    max_tokens = MAX_AFTER + 20_000  # a token a delta, and the words of the longest input

    block_s: ClassVar[float] = 5.0  # seconds that the loop stands still
    leak_s: ClassVar[float] = 60.0  # seconds that the left-over task lives

    @override
    async def run(self, context: AgentContext, task: AgentInput) -> AsyncIterator[BaseEvent]:
        """Misbehave. Raises AgentInputError for an unknown mode, and whatever the mode asks for."""
        options = Options.parse(task.text, ("mode", "after"))
        mode = options.values.get("mode")
        if mode not in MODES:
            raise AgentInputError(f"mode is one of {', '.join(MODES)}; for example mode=raise after=3")
        after = options.number("after", 3, 0, MAX_AFTER)
        context.usage.add(input_tokens=len(task.text.split()))

        message_id = new_id()
        yield TextMessageStartEvent(message_id=message_id, role="assistant")
        for i in range(after):
            context.usage.add(output_tokens=1)
            yield TextMessageContentEvent(message_id=message_id, delta=f"{i} ")
        match mode:
            case "raise":
                _raise(context, task)
            case "hang":
                await asyncio.get_running_loop().create_future()
            case "block_loop":
                time.sleep(self.block_s)  # noqa: ASYNC251 - blocking the loop is the fault
            case "exit":
                os._exit(EXIT_STATUS)
            case "leak":
                self._leave_a_task(context, task)
        async for event in _bad_events(mode, task, message_id):
            yield event
        yield TextMessageEndEvent(message_id=message_id)

    def _leave_a_task(self, context: AgentContext, task: AgentInput) -> None:
        """Start the one task of Turnout that nobody owns, on purpose: audits and closed tools have to notice
        it.

        The loop's timer keeps it alive, and its name tells a census whose it is.
        """

        async def outlive() -> None:
            await asyncio.sleep(self.leak_s)
            await context.tools.call("calculator", {"expression": "1 + 1"}, new_id())

        asyncio.create_task(outlive(), name=f"leak-{task.run_id}")  # noqa: RUF006


def _raise(context: AgentContext, task: AgentInput) -> NoReturn:
    internals = f"postgres://turnout:hunter2@10.0.0.7/{context.identity.name}?run={task.run_id}"
    raise DeliberateFault(internals)


async def _bad_events(mode: str, task: AgentInput, message_id: str) -> AsyncIterator[BaseEvent]:
    match mode:
        case "flood":
            flood = TextMessageContentEvent(message_id=message_id, delta="~" * FLOOD_DELTA_CHARACTERS)
            while True:
                # Without this a consumer that accepts at once would be starved with the whole process.
                await asyncio.sleep(0)
                yield flood
        case "garbage":
            yield TextMessageContentEvent(message_id=new_id(), delta="of a message that never began ")
            yield TextMessageStartEvent(message_id=message_id, role="assistant")
            yield RunFinishedEvent(thread_id=task.thread_id, run_id=new_id())
            yield RunFinishedEvent(thread_id=task.thread_id, run_id=task.run_id)
        case "leak":
            yield TextMessageStartEvent(message_id=new_id(), role="assistant")
            yield ToolCallStartEvent(tool_call_id=new_id(), tool_call_name="calculator")
