import asyncio
from contextlib import aclosing

import pytest
from ag_ui.core import StepStartedEvent

from apps.agents.base import Agent, AgentInput
from apps.execution.context import UserExecutionContext
from apps.execution.engine import EngineUsed, IsolatedExecutionEngine
from tests.execution.test_context import a_grant

TASK = AgentInput("run-1", "thread-1", "count=1")


class Remembering(Agent):
    """Says where it is, and notes when it is closed."""

    name = "remembering"
    title = "Remembering"
    description = "For tests."

    def __init__(self, notes):
        self.notes = notes

    def run(self, context, task):
        # Kept, so that it is closed by who must close it, and not by the garbage collector.
        stream = self.answer(context, task)
        self.notes.append(stream)
        return stream

    async def answer(self, context, task):
        self.notes.append(("made", id(self), context))
        try:
            for step in range(3):
                yield StepStartedEvent(step_name=f"{task.text} {step}")
                if task.text == "raise":
                    raise LookupError("no")
                if task.text == "hang":
                    await asyncio.get_running_loop().create_future()
        finally:
            self.notes.append("closed")


async def steps(engine, task):
    return [event.step_name async for event in engine.events(task)]


async def test_it_passes_on_what_its_agent_says_and_closes_the_agent():
    notes = []
    async with UserExecutionContext(a_grant(create_agent=lambda: Remembering(notes))) as context:
        assert await steps(IsolatedExecutionEngine(context), AgentInput("r", "t", "go")) == ["go 0", "go 1", "go 2"]
    assert notes[-1] == "closed"
    assert notes[1][2] is context


@pytest.mark.parametrize("way_out", ["raise", "hang", "leave"])
async def test_it_closes_its_agent_on_every_way_out(way_out):
    notes = []
    async with UserExecutionContext(a_grant(create_agent=lambda: Remembering(notes))) as context:
        engine = IsolatedExecutionEngine(context)
        begun = asyncio.Event()

        async def listen():
            async with aclosing(engine.events(AgentInput("r", "t", way_out))) as events:
                async for _ in events:
                    begun.set()
                    if way_out == "leave":
                        return

        task = asyncio.create_task(listen())
        await begun.wait()
        if way_out == "hang":
            task.cancel()
        await asyncio.wait({task})
        assert notes[-1] == "closed"


async def test_every_run_has_an_agent_of_its_own_and_no_engine_answers_twice():
    notes = []
    async with UserExecutionContext(a_grant(create_agent=lambda: Remembering(notes))) as context:
        one, two = IsolatedExecutionEngine(context), IsolatedExecutionEngine(context)
        streams = [one.events(TASK), two.events(TASK)]
        for stream in streams:
            await anext(stream)
        assert notes[1][1] != notes[3][1]
        for stream in streams:
            await stream.aclose()
        with pytest.raises(EngineUsed):
            await steps(one, TASK)
        closed = IsolatedExecutionEngine(context)
        closed.close()
        with pytest.raises(EngineUsed):
            await steps(closed, TASK)
