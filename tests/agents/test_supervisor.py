from typing import override

import pytest
from ag_ui.core import TextMessageContentEvent, TextMessageStartEvent, ToolCallStartEvent

from apps.agents.base import Agent, AgentFailure, ModelDelta
from apps.agents.provider import ModelUnavailable
from apps.agents.registry import AgentClassRegistry, build_registry
from apps.agents.supervisor import MAX_DEPTH, SupervisorAgent
from tests.agents.worlds import ScriptedModel, World, left_open, text_of, types


class BreakingAgent(Agent):
    """Fails in the middle of a message and of a tool call."""

    name, title, description = "breaking", "Breaking", "Fails."

    @override
    async def run(self, context, task):
        yield TextMessageStartEvent(message_id="m1", role="assistant")
        yield TextMessageContentEvent(message_id="m1", delta="half ")
        yield ToolCallStartEvent(tool_call_id="t1", tool_call_name="calculator")
        if task.text == "defect":
            raise KeyError("internals")
        raise ModelUnavailable("The model took too long to answer.")


def registry(*more):
    agents = AgentClassRegistry()
    for built_in in ("assistant", "metronome"):
        agents.register(type(build_registry(faulty_allowed=False).create(built_in)))
    agents.register(SupervisorAgent, lambda: SupervisorAgent(agents))
    for agent_class in more:
        agents.register(agent_class)
    agents.freeze()
    return agents


async def ask(text, *more, **world):
    events = await World(**world).events(registry(*more).create("supervisor"), text)
    assert left_open(events) == set()
    return events


async def test_an_agent_that_is_addressed_answers_as_a_subagent():
    events = await ask("@metronome count=2 interval_ms=0 tag=t")
    started, *inner, finished = events
    assert (types([started, finished]), started.name) == (["SUBAGENT_STARTED", "SUBAGENT_FINISHED"], "metronome")
    assert text_of(events) == "0:t 1:t "
    assert {event.subagent_run_id for event in (started, *inner, finished)} == {started.subagent_run_id}


async def test_without_a_model_everything_else_goes_to_the_default_agent():
    events = await ask("1 + 1")
    assert events[0].name == "assistant"
    assert "**2**" in text_of(events)


@pytest.mark.parametrize(("reply", "chosen"), [("`Metronome`.", "metronome"), ("neither", "assistant")])
async def test_with_a_model_the_model_chooses_and_nonsense_means_the_default(reply, chosen):
    model = ScriptedModel([[ModelDelta(text=reply)], [ModelDelta(text="answered")]])
    events = await ask("count=1 interval_ms=0", model=model)
    assert events[0].name == chosen


async def test_a_model_that_chooses_without_end_is_stopped():
    model = ScriptedModel([[ModelDelta(text="and " * 30)] * 1_000, [ModelDelta(text="answered")]])
    assert (await ask("hello", model=model))[0].name == "assistant"
    assert (model.sent, model.closed) == (3, 2)


async def test_an_unknown_name_is_answered_with_those_that_there_are():
    with pytest.raises(AgentFailure, match="There is no agent @nobody; there are: assistant, metronome, supervisor"):
        await ask("@nobody hello")


async def test_a_subagent_that_fails_is_closed_named_and_the_answer_goes_on():
    events = await ask("@breaking now", BreakingAgent)
    assert types(events) == [
        *["SUBAGENT_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TOOL_CALL_START"],
        *["TOOL_CALL_END", "TOOL_CALL_RESULT", "TEXT_MESSAGE_END", "SUBAGENT_ERROR"],
        *["TEXT_MESSAGE_START", *["TEXT_MESSAGE_CONTENT"] * 11, "TEXT_MESSAGE_END"],
    ]
    error = events[7]
    assert (error.code, error.message) == ("unavailable", "The model took too long to answer.")
    assert "**Breaking** could not answer" in text_of(events)


async def test_a_defect_of_a_subagent_is_a_defect_of_the_run():
    with pytest.raises(KeyError):
        await ask("@breaking defect", BreakingAgent)


async def test_delegation_stops_at_its_depth():
    events = await ask("@supervisor " * MAX_DEPTH + "1 + 1")
    assert types(events).count("SUBAGENT_STARTED") == MAX_DEPTH
    assert "delegated to each other" in text_of(events)


async def test_each_level_names_the_one_above_it():
    events = await ask("@supervisor @metronome count=1 interval_ms=0")
    outer, inner = (event for event in events if types([event]) == ["SUBAGENT_STARTED"])
    assert (outer.parent_subagent_run_id, inner.parent_subagent_run_id) == (None, outer.subagent_run_id)
    (delta,) = (event for event in events if types([event]) == ["TEXT_MESSAGE_CONTENT"])
    assert delta.subagent_run_id == inner.subagent_run_id


async def test_all_levels_count_into_one_usage():
    world = World()
    await world.events(registry().create("supervisor"), "@metronome count=5 interval_ms=0")
    assert world.usage.output_tokens == 5
