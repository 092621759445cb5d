from typing import override

import pytest

from apps.agents.assistant import AssistantAgent
from apps.agents.base import Agent
from apps.agents.registry import (
    AgentAlreadyRegistered,
    AgentClassRegistry,
    AgentNotUsable,
    AgentUnknown,
    RegistryFrozen,
    build_registry,
)
from tests.agents.worlds import World, text_of


class EchoAgent(Agent):
    name = "echo"
    title = "Echo"
    description = "Says it again."

    @override
    async def run(self, context, task):
        return
        yield


class SecondEcho(EchoAgent):
    pass


class NamelessAgent(EchoAgent):
    name = ""


class BadlyNamedAgent(EchoAgent):
    name = "../../etc"


class UnfinishedAgent(Agent):
    name, title, description = "unfinished", "Unfinished", "Has no run."


NOT_AN_AGENT = object()


def test_every_run_gets_an_instance_of_its_own():
    registry = build_registry(faulty_allowed=True)
    for agent in registry.describe():
        first, second = registry.create(agent.name), registry.create(agent.name)
        assert first is not second
        assert type(first).name == agent.name


def test_the_assistant_is_the_default():
    assert build_registry(faulty_allowed=False).describe()[0].name == AssistantAgent.name


def test_the_agent_that_misbehaves_is_there_only_where_it_is_allowed():
    assert "faulty" in {agent.name for agent in build_registry(faulty_allowed=True).describe()}
    with pytest.raises(AgentUnknown):
        build_registry(faulty_allowed=False).create("faulty")


def test_an_unknown_agent_is_answered_with_the_names_that_there_are():
    with pytest.raises(AgentUnknown, match="there are: assistant, metronome, supervisor"):
        build_registry(faulty_allowed=False).create("../../x")


def test_a_class_that_comes_after_start_up_is_told_how_to_come_in_time():
    registry = build_registry(faulty_allowed=False)
    with pytest.raises(RegistryFrozen, match="dotted path in the setting"):
        registry.register(EchoAgent)


def test_two_classes_of_one_name_are_told_of_each_other():
    registry = AgentClassRegistry()
    registry.register(EchoAgent)
    with pytest.raises(AgentAlreadyRegistered, match=r"EchoAgent already; give .*SecondEcho another name"):
        registry.register(SecondEcho)
    with pytest.raises(AgentAlreadyRegistered):
        registry.register(EchoAgent)


@pytest.mark.parametrize(
    ("agent_class", "reason"),
    [
        (NamelessAgent, "has no name"),
        (BadlyNamedAgent, "must be 1-32 of"),
        (UnfinishedAgent, "does not define run"),
    ],
)
def test_a_class_that_cannot_run_is_refused_at_start_up(agent_class, reason):
    with pytest.raises(AgentNotUsable, match=reason):
        AgentClassRegistry().register(agent_class)


def test_agents_of_others_come_by_their_dotted_path():
    registry = build_registry([f"{__name__}.EchoAgent"], faulty_allowed=False)
    assert isinstance(registry.create("echo"), EchoAgent)


@pytest.mark.parametrize("path", [f"{__name__}.NOT_AN_AGENT", f"{__name__}.Missing", "no.such.module", "plain", ""])
def test_a_dotted_path_that_leads_to_no_agent_is_named(path):
    with pytest.raises(AgentNotUsable, match=path or "''"):
        build_registry([path], faulty_allowed=False)


async def test_running_agents_changes_nothing_in_the_registry():
    registry = build_registry(faulty_allowed=False)
    before = (registry.describe(), {name: vars(r.agent_class).copy() for name, r in registry._registrations.items()})
    for agent in registry.describe():
        text = "count=1 interval_ms=0" if agent.name == "metronome" else "1 + 1"
        assert text_of(await World().events(registry.create(agent.name), text))
    after = (registry.describe(), {name: vars(r.agent_class).copy() for name, r in registry._registrations.items()})
    assert before == after
