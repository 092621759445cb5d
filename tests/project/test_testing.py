"""The fixtures that teams test their agents with: they pass what is right, and find what leaks."""

from typing import ClassVar

import pytest
from ag_ui.core import TextMessageContentEvent, TextMessageEndEvent, TextMessageStartEvent

from apps.agents.assistant import AssistantAgent
from apps.agents.base import Agent, ModelDelta
from apps.agents.builtin_tools import builtin_tools
from apps.agents.metronome import MetronomeAgent
from apps.realtime.constructs import GrammarError
from apps.vocabulary import new_id

pytest_plugins = ["project.testing"]


def says(text: str):
    message_id = new_id()
    yield TextMessageStartEvent(message_id=message_id, role="assistant")
    yield TextMessageContentEvent(message_id=message_id, delta=text)
    yield TextMessageEndEvent(message_id=message_id)


class Honest(Agent):
    name, title, description = "honest", "Honest", "Repeats what its own user says."

    async def run(self, context, task):
        for event in says(f"{context.identity.name}: {task.text} after {context.history}"):
            yield event


class Hoarder(Agent):
    name, title, description = "hoarder", "Hoarder", "Remembers everybody on its class."
    heard: ClassVar[list[str]] = []

    async def run(self, context, task):
        self.heard.append(task.text)
        for event in says(" ".join(self.heard)):
            yield event


class Overwriter(Agent):
    name, title, description = "overwriter", "Overwriter", "Holds one current user for all."
    current: ClassVar[list[str]] = [""]

    async def run(self, context, task):
        self.current[0] = context.identity.name
        for event in says("hello "):
            yield event
        for event in says(self.current[0]):
            yield event


class Unclosed(Agent):
    name, title, description = "unclosed", "Unclosed", "Never ends its message."

    async def run(self, context, task):
        yield TextMessageStartEvent(message_id="m", role="assistant")
        if task.text == "wrong":
            yield TextMessageEndEvent(message_id="another")


@pytest.mark.parametrize("agent", [Honest, AssistantAgent])
async def test_an_agent_that_keeps_users_apart_passes(assert_isolated, agent):
    await assert_isolated(agent, tools=builtin_tools())


async def test_the_input_may_hold_the_secret_where_the_agent_takes_it(assert_isolated):
    await assert_isolated(MetronomeAgent, "count=5 interval_ms=1 tag={canary}")


@pytest.mark.parametrize("agent", [Hoarder, Overwriter])
async def test_an_agent_that_shares_state_is_found_out(assert_isolated, agent):
    with pytest.raises(AssertionError, match="what the other wrote"):
        await assert_isolated(agent)


async def test_a_rehearsal_tells_text_usage_and_what_was_left_open(rehearse, scripted_model):
    model = scripted_model([[ModelDelta(text="Hello "), ModelDelta(text="there")]])
    performance = await rehearse(AssistantAgent(), "hi", tools=builtin_tools(), model=model)
    assert performance.text == "Hello there"
    assert performance.left_open == 0
    assert performance.usage.output_tokens == 2
    assert [message.text for message in model.asked[0]][-1] == "hi"
    assert {tool.name for tool in model.offered[0]} >= {"calculator", "clock"}
    assert (await rehearse(Unclosed(), "hi")).left_open == 1


async def test_a_rehearsal_holds_events_to_the_grammar_as_the_log_does(rehearse):
    with pytest.raises(GrammarError, match="not open"):
        await rehearse(Unclosed(), "wrong")
