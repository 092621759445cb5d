"""The world of an agent under test: real tools, a fixed clock, and a model that says what the test tells it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ag_ui.core import BaseEvent, EventType

from apps.agents.base import (
    Agent,
    AgentInput,
    HistoryMessage,
    Model,
    ModelDelta,
    TokenCount,
    ToolDeclaration,
)
from apps.agents.builtin_tools import ThreadHit, builtin_tools
from apps.agents.tools import BoundToolBelt, Toolbox
from apps.vocabulary import Identity, RunId, ThreadId, UserId, new_id

NOW = datetime(2026, 3, 1, 9, 12, tzinfo=UTC)  # a Sunday
ADA = Identity(UserId(1), "ada")
BOB = Identity(UserId(2), "bob")


class Threads:
    """Threads of several users, searched as chat does it: only the asking user's."""

    def __init__(self, **titles_by_user: str) -> None:
        self.titles = {UserId(int(user.removeprefix("user"))): title for user, title in titles_by_user.items()}

    async def search(self, user_id: UserId, query: str, limit: int, besides: ThreadId) -> Sequence[ThreadHit]:
        title = self.titles.get(user_id, "")
        return [ThreadHit(new_id(), title, f"about {title}")][:limit] if query in title else []


@dataclass
class ScriptedModel:
    """A model that answers call n with the n-th list of deltas, and remembers what it was asked."""

    answers: list[list[ModelDelta]]
    asked: list[tuple[list[HistoryMessage], list[ToolDeclaration]]] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)
    sent: int = 0
    closed: int = 0

    async def stream(
        self,
        instructions: str,
        messages: Sequence[HistoryMessage],
        tools: Sequence[ToolDeclaration],
        usage: TokenCount,
    ) -> AsyncIterator[ModelDelta]:
        self.asked.append((list(messages), list(tools)))
        self.instructions.append(instructions)
        usage.add(input_tokens=1, output_tokens=1)
        try:
            for delta in self.answers[min(len(self.asked), len(self.answers)) - 1]:
                self.sent += 1
                yield delta
        finally:
            self.closed += 1


@dataclass
class World:
    """What execution gives an agent, without execution."""

    identity: Identity = ADA
    history: Sequence[HistoryMessage] = ()
    model: Model | None = None
    threads: Threads | None = None
    usage: TokenCount = field(default_factory=TokenCount)
    run_id: RunId = field(default_factory=lambda: RunId(new_id()))
    tools: BoundToolBelt = field(init=False)

    def __post_init__(self) -> None:
        search = None if self.threads is None else self.threads.search
        toolbox = Toolbox(builtin_tools(lambda: NOW, search))
        self.tools = toolbox.open_belt(self.identity, self.run_id, ThreadId("thread"))

    def task(self, text: str) -> AgentInput:
        return AgentInput(self.run_id, ThreadId("thread"), text)

    async def events(self, agent: Agent, text: str) -> list[BaseEvent]:
        return [event async for event in agent.run(self, self.task(text))]


def types(events: Sequence[BaseEvent]) -> list[str]:
    return [event.type.value for event in events]


def text_of(events: Sequence[BaseEvent]) -> str:
    return "".join(event.delta for event in events if event.type is EventType.TEXT_MESSAGE_CONTENT)


def left_open(events: Sequence[BaseEvent]) -> set[str]:
    """Checks that the events obey AG-UI's grammar; returns what was begun and never ended."""
    opened: set[str] = set()
    for event in events:
        kind, _, phase = event.type.value.rpartition("_")
        subject = {
            "TEXT_MESSAGE": "message_id",
            "REASONING_MESSAGE": "message_id",
            "REASONING": "message_id",
            "TOOL_CALL": "tool_call_id",
            "SUBAGENT": "subagent_run_id",
        }[kind]
        key = f"{kind} {getattr(event, subject)}"
        if phase in ("START", "STARTED"):
            assert key not in opened, f"{key} began twice"
            opened.add(key)
        elif phase in ("END", "FINISHED", "ERROR"):
            assert key in opened, f"{key} ended and never began"
            opened.remove(key)
            if kind == "TOOL_CALL":
                opened.add(f"result of {event.tool_call_id}")
        elif phase == "RESULT":
            opened.remove(f"result of {event.tool_call_id}")
        else:
            assert key in opened, f"{key} goes on and is not open"
    return opened
