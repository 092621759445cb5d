"""Runs one agent for one run, and shares nothing: no list of active runs, no history, no semaphore, no
registry of threads.

What bounds it lies around it: slots in the claim, time and cancellation in the attempt, events in the
publisher.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Protocol

from ag_ui.core import BaseEvent

from apps.agents.base import AgentInput
from apps.agents.blocking import answer_of
from apps.execution.context import UserExecutionContext


class EngineUsed(RuntimeError):  # noqa: N818 - names the state that was met
    """An engine answers once, and not after it was closed; open a new one for each run."""


class Engine(Protocol):
    """What runs an agent, on whichever path."""

    def events(self, task: AgentInput) -> AsyncIterator[BaseEvent]:
        """The agent's events as they come. Closing the iterator stops the agent."""
        ...


class IsolatedExecutionEngine:
    """The engine of one run. Made by `ExecutionEngineFactory`."""

    def __init__(self, context: UserExecutionContext) -> None:
        self._context = context
        self._usable = True

    def __repr__(self) -> str:
        return f"<IsolatedExecutionEngine run={self._context.run_id}>"

    async def events(self, task: AgentInput) -> AsyncIterator[BaseEvent]:
        """A new agent's events. The agent is closed on every way out: end, error, cancel, `aclose`. Raises
        EngineUsed.
        """
        if not self._usable:
            raise EngineUsed(EngineUsed.__doc__)
        self._usable = False
        agent = self._context.create_agent()
        async with aclosing(answer_of(agent, self._context, task)) as events:
            async for event in events:
                yield event

    def close(self) -> None:
        """Refuse any further use."""
        self._usable = False
