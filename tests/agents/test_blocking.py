"""What an agent in a thread of its own is given works there as it does on the process' loop."""

import asyncio
import threading
import time

import pytest
from ag_ui.core import TextMessageContentEvent, TextMessageEndEvent, TextMessageStartEvent

from apps.agents.base import Agent, AgentFailure, ApprovalNeeded, ApprovalRequest, ModelDelta
from apps.agents.blocking import answer_of
from apps.vocabulary import new_id
from tests.agents.worlds import ScriptedModel, World, text_of


class Blocking(Agent):
    """Asks its model and its tool, and blocks in between."""

    name = "blocking"
    title = "Blocking"
    description = "For tests."
    blocking = True

    def __init__(self):
        self.thread = None
        self.closed = False

    async def run(self, context, task):
        self.thread = threading.current_thread()
        message_id = new_id()
        try:
            yield TextMessageStartEvent(message_id=message_id, role="assistant")
            async for delta in context.model.stream("", (), context.tools.declarations, context.usage):
                time.sleep(0.001)  # noqa: ASYNC251 - this is what it is for
                yield TextMessageContentEvent(message_id=message_id, delta=delta.text)
            if task.text == "fail":
                raise AgentFailure("No.")
            if task.text == "ask":
                raise ApprovalNeeded(ApprovalRequest("call-1", "write", "{}", "Write?"))
            said = await context.tools.call("calculator", {"expression": "6*7"}, new_id())
            yield TextMessageContentEvent(message_id=message_id, delta=said)
            yield TextMessageEndEvent(message_id=message_id)
        finally:
            self.closed = True


class Watched(ScriptedModel):
    """Remembers the threads that it was asked in."""

    async def stream(self, *asked):
        THREADS.add(threading.current_thread())
        async for delta in super().stream(*asked):
            yield delta


THREADS: set[threading.Thread] = set()


def a_world():
    return World(model=Watched([[ModelDelta(text="one "), ModelDelta(text="two ")]]))


async def answered(agent, text):
    world = a_world()
    async with world.tools:
        return world, [event async for event in answer_of(agent, world, world.task(text))]


async def test_model_and_tools_are_used_on_the_process_loop_and_the_agent_runs_elsewhere():
    THREADS.clear()
    agent = Blocking()
    world, events = await answered(agent, "")
    assert text_of(events).startswith("one two ")
    assert "42" in text_of(events)
    assert (world.usage.output_tokens, world.model.closed) == (1, 1)
    assert {threading.current_thread()} == THREADS
    assert agent.thread not in THREADS
    assert agent.closed


async def test_what_it_raises_reaches_whoever_runs_it():
    with pytest.raises(AgentFailure, match="No"):
        await answered(Blocking(), "fail")
    with pytest.raises(ApprovalNeeded) as asked:
        await answered(Blocking(), "ask")
    assert asked.value.request.tool == "write"


async def test_it_is_closed_when_its_reader_leaves():
    agent, world = Blocking(), a_world()
    events = answer_of(agent, world, world.task(""))
    async with world.tools:
        await anext(events)
        assert not agent.closed
        await events.aclose()
        assert agent.closed
    async with asyncio.timeout(20):
        await asyncio.to_thread(agent.thread.join)


class Flooding(Blocking):
    """Counts what it has said."""

    said = 0

    async def run(self, context, task):
        for _ in range(200):
            self.said += 1
            yield TextMessageContentEvent(message_id="m", delta="word ")


async def test_it_is_never_ahead_of_a_slow_reader():
    agent, world, read, ahead = Flooding(), a_world(), 0, []
    async for _ in answer_of(agent, world, world.task("")):
        read += 1
        for _ in range(20):
            await asyncio.sleep(0)
        ahead.append(agent.said - read)
    assert (read, max(ahead) <= 1) == (200, True)
