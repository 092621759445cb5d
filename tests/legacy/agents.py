"""Agents that say aloud what they are given, and contexts as the executor builds them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from ag_ui.core import BaseEvent, TextMessageContentEvent

from apps.agents.base import Agent, AgentContext, AgentInput, HistoryMessage
from apps.execution.budget import RunBudget
from apps.execution.context import Grant, UserExecutionContext
from apps.vocabulary import Identity, MessageId, RunId, ThreadId, UserId, new_id


class Parrot(Agent):
    """Says for whom it runs and what it was told before, once for each step that it is driven."""

    name: ClassVar[str] = "parrot"
    title: ClassVar[str] = "Parrot"
    description: ClassVar[str] = "repeats what it is given"

    def __init__(self) -> None:
        self.remembered: list[str] = []

    async def run(self, context: AgentContext, task: AgentInput) -> AsyncIterator[BaseEvent]:
        self.remembered.append(task.text)
        while True:
            heard = [message.text for message in context.history] + self.remembered
            text = f"{context.identity.name} heard {', '.join(heard)}"
            yield TextMessageContentEvent(message_id="m", delta=text)


class Diarist(Agent):
    """Says once what it was told before."""

    name: ClassVar[str] = "diarist"
    title: ClassVar[str] = "Diarist"
    description: ClassVar[str] = "repeats the history once"

    async def run(self, context: AgentContext, task: AgentInput) -> AsyncIterator[BaseEvent]:
        yield TextMessageContentEvent(message_id="m", delta=", ".join(message.text for message in context.history))


@asynccontextmanager
async def no_tools(*_):
    yield None


def context_of(name: str, user_id: int, told: str = "") -> UserExecutionContext:
    said = (HistoryMessage("user", told, MessageId(new_id())),) if told else ()
    return UserExecutionContext(
        Grant(
            identity=Identity(UserId(user_id), name),
            run_id=RunId(new_id()),
            thread_id=ThreadId(new_id()),
            agent_name="parrot",
            create_agent=Parrot,
            history=said,
            model=None,
            open_tools=no_tools,
            budget=RunBudget(8, 100_000),
            cleanup_timeout_s=1.0,
        )
    )


def asks(context: UserExecutionContext, text: str) -> AgentInput:
    return AgentInput(context.run_id, context.thread_id, text)
