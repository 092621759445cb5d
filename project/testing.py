"""Fixtures for teams that test agents of their own: `pytest_plugins = ["project.testing"]` in their conftest.py.

`rehearse` runs an agent without server, log and database, and holds its events to AG-UI's grammar as the publisher
does; `scripted_model` stands in for a model, which costs money; `assert_isolated` lets two users be answered beside
each other, event by event, and fails when a word of one is found with the other.
"""

import base64
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from ag_ui.core import BaseEvent, TextMessageContentEvent

from apps.agents.base import (
    Agent,
    AgentInput,
    ApprovalNeeded,
    ApprovalRequest,
    HistoryMessage,
    Model,
    ModelDelta,
    TokenCount,
    ToolDeclaration,
)
from apps.agents.blocking import answer_of
from apps.agents.tools import BoundToolBelt, Tool, Toolbox
from apps.realtime.constructs import OpenConstructs
from apps.vocabulary import Identity, MessageId, RunId, ThreadId, UserId, new_id

MOST_EVENTS = 10_000  # of a rehearsed answer: an agent that never ends is a finding, not a wait


@dataclass(slots=True)
class ScriptedModel:
    """Answers its n-th call with the n-th list of deltas, the last one from then on; `asked` is what it was sent."""

    answers: Sequence[Sequence[ModelDelta]]
    asked: list[Sequence[HistoryMessage]] = field(default_factory=list)
    offered: list[Sequence[ToolDeclaration]] = field(default_factory=list)

    async def stream(
        self,
        instructions: str,  # noqa: ARG002 - a model's signature
        messages: Sequence[HistoryMessage],
        tools: Sequence[ToolDeclaration],
        usage: TokenCount,
    ) -> AsyncIterator[ModelDelta]:
        """One answer; a token for each message and each delta."""
        self.asked.append(tuple(messages))
        self.offered.append(tuple(tools))
        usage.add(input_tokens=len(messages))
        for delta in self.answers[min(len(self.asked), len(self.answers)) - 1]:
            usage.add(output_tokens=1)
            yield delta


@dataclass(slots=True)
class RehearsedContext:
    """What a run gives an agent."""

    identity: Identity
    tools: BoundToolBelt
    run_id: RunId
    thread_id: ThreadId
    history: Sequence[HistoryMessage] = ()
    model: Model | None = None
    usage: TokenCount = field(default_factory=TokenCount)

    @classmethod
    def of(
        cls,
        identity: Identity,
        tools: Sequence[Tool[Any]] = (),
        history: Sequence[HistoryMessage] = (),
        model: Model | None = None,
    ) -> "RehearsedContext":
        """A context with tools bound to a run of its own."""
        run_id, thread_id = RunId(new_id()), ThreadId(new_id())
        belt = Toolbox(tuple(tools)).open_belt(identity, run_id, thread_id)
        return cls(identity, belt, run_id, thread_id, history, model)

    def task(self, text: str) -> AgentInput:
        """What the user asked."""
        return AgentInput(self.run_id, self.thread_id, text)


@dataclass(frozen=True, slots=True)
class Performance:
    """What an agent did. `asks` is the approval that it ended with; `left_open` counts what it did not end."""

    events: Sequence[BaseEvent]
    usage: TokenCount
    asks: ApprovalRequest | None
    left_open: int

    @property
    def text(self) -> str:
        """All that was said."""
        return "".join(event.delta for event in self.events if isinstance(event, TextMessageContentEvent))


async def perform(agent: Agent, context: RehearsedContext, text: str) -> Performance:
    """Run it to its end. Raises GrammarError as the publisher would, and what the agent raises."""
    constructs, events, asks = OpenConstructs(), list[BaseEvent](), None
    async with context.tools:
        try:
            async for event in answer_of(agent, context, context.task(text)):
                constructs.see(event.model_dump(by_alias=True, mode="json"))
                events.append(event)
                if len(events) > MOST_EVENTS:
                    raise AssertionError(f"{agent.name} yielded more than {MOST_EVENTS} events and did not end")
        except ApprovalNeeded as needed:
            asks = needed.request
    return Performance(events, context.usage, asks, len(constructs))


@dataclass(frozen=True, slots=True)
class _Part:
    """One of two users, whose every word holds a secret."""

    canary: str
    context: RehearsedContext

    def has(self, text: str) -> bool:
        """Whether a word of this user is in the text, as it is or in base64."""
        return any(sign in text for sign in (self.canary, base64.b64encode(self.canary.encode()).decode()[:20]))


def _part(number: int, tools: Sequence[Tool[Any]], model: Model | None) -> _Part:
    canary = f"canary{number}{secrets.token_hex(16)}"
    said = HistoryMessage("user", f"before: {canary}", MessageId(new_id()))
    context = RehearsedContext.of(Identity(UserId(number), f"name-{canary}"), tools, (said,), model)
    return _Part(canary, context)


async def check_isolated(
    make: Callable[[], Agent],
    text: str = "hello {canary}",
    *,
    tools: Sequence[Tool[Any]] = (),
    model: Callable[[], Model] | None = None,
    rounds: int = 3,
) -> None:
    """Answer two users beside each other, `rounds` times, an event of one after an event of the other.

    `make` makes an agent for a run, as the registry does: usually the class itself. Raises AssertionError where what
    one user wrote is found in what the other is shown.
    """
    for _ in range(rounds):
        parts = [_part(number, tools, None if model is None else model()) for number in (1, 2)]
        streams = [
            answer_of(make(), part.context, part.context.task(text.replace("{canary}", part.canary))) for part in parts
        ]
        running = {0, 1}
        while running:
            for number in sorted(running):
                event = await anext(streams[number], None)
                if event is None:
                    running.discard(number)
                    continue
                shown, other = event.model_dump_json(by_alias=True), parts[1 - number]
                if other.has(shown):
                    raise AssertionError(f"{event.type.value} for one user holds what the other wrote: {shown[:500]}")


@pytest.fixture
def scripted_model() -> type[ScriptedModel]:
    """`scripted_model([[ModelDelta(text="Hello")]])`."""
    return ScriptedModel


@pytest.fixture
def rehearse() -> Callable[..., object]:
    """A function that runs an agent to its end, given the agent and a text; `tools`, `history`, `model` as wanted."""

    async def run(
        agent: Agent,
        text: str,
        *,
        identity: Identity = Identity(UserId(1), "ada"),  # noqa: B008 - frozen
        tools: Sequence[Tool[Any]] = (),
        history: Sequence[HistoryMessage] = (),
        model: Model | None = None,
    ) -> Performance:
        return await perform(agent, RehearsedContext.of(identity, tools, history, model), text)

    return run


@pytest.fixture
def assert_isolated() -> Callable[..., object]:
    """The function `check_isolated`, to be given an agent class."""
    return check_isolated
