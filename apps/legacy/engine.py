"""The old execution engine: one object for all users of the process, with its flaws kept.

This room is the positive control of the isolation tests, and what the two seams lead away from. Nothing
here is to be repaired; it is deleted whole once the audit of the rollout says that nobody reaches it. What
is wrong with it:

- the engine itself is a module's global, so whatever it holds is everybody's; - `current`, the run that was
bound last, answers for every run: a run that streams while another user starts goes on under that user's
identity; - `run_history` holds the questions and answers of all users in one list without a bound, and
every agent is given it; - there is one agent instance for each agent name, so what an agent keeps in
`self`, it keeps for everyone; - `active_runs` is one table that every run can see and change; - one
semaphore of 10 serves the process, so ten long runs of one user stop all others.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

from ag_ui.core import BaseEvent, TextMessageContentEvent

from apps.agents.base import Agent, AgentInput, HistoryMessage, Model, TokenCount, ToolBelt
from apps.agents.blocking import answer_of
from apps.vocabulary import Identity, MessageId, RunId, new_id

SLOTS = 10  # runs of all users together


class RunContext(Protocol):
    """What the engine asks of a run's context; `apps.execution` has one that fits."""

    @property
    def run_id(self) -> RunId: ...
    @property
    def identity(self) -> Identity: ...
    @property
    def history(self) -> Sequence[HistoryMessage]: ...
    @property
    def model(self) -> Model | None: ...
    @property
    def tools(self) -> ToolBelt: ...
    @property
    def usage(self) -> TokenCount: ...
    @property
    def agent_name(self) -> str: ...
    def create_agent(self) -> Agent: ...


class ExecutionEngine:
    """Runs everyone's agents. See the top of this file before you use it for anything."""

    def __init__(self) -> None:
        self.active_runs: dict[RunId, RunContext] = {}
        self.run_history: list[HistoryMessage] = []
        self.agents: dict[str, Agent] = {}
        self.current: RunContext | None = None
        self._semaphore: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    def __repr__(self) -> str:
        return f"<ExecutionEngine active={len(self.active_runs)} history={len(self.run_history)}>"

    def bind(self, context: RunContext) -> "BoundRun":
        """Make `context` the current one, for every run of the process."""
        self.current = context
        self.active_runs[context.run_id] = context
        for message in context.history:
            self.run_history.append(message)
        return BoundRun(self, context)

    def release(self, context: RunContext) -> None:
        """Forget the run. `current` stays: it is whoever was bound last."""
        self.active_runs.pop(context.run_id, None)

    def agent_for(self, context: RunContext) -> Agent:
        """The one agent of that name."""
        if context.agent_name not in self.agents:
            self.agents[context.agent_name] = context.create_agent()
        return self.agents[context.agent_name]

    def slots(self) -> asyncio.Semaphore:
        """The semaphore of the process; where there are several event loops, as in tests, of each loop."""
        loop = asyncio.get_running_loop()
        if self._semaphore is None or self._semaphore[0] is not loop:
            self._semaphore = (loop, asyncio.Semaphore(SLOTS))
        return self._semaphore[1]


class SharedView:
    """What an agent is given: whoever is current, and everybody's history."""

    def __init__(self, engine: ExecutionEngine, context: RunContext) -> None:
        self._engine = engine
        self._context = context

    @property
    def identity(self) -> Identity:
        """The user of the run that was bound last."""
        return (self._engine.current or self._context).identity

    @property
    def history(self) -> Sequence[HistoryMessage]:
        """What everyone asked and was answered since the process started."""
        return self._engine.run_history

    @property
    def model(self) -> Model | None:
        """The run's own."""
        return self._context.model

    @property
    def tools(self) -> ToolBelt:
        """The run's own."""
        return self._context.tools

    @property
    def usage(self) -> TokenCount:
        """The run's own."""
        return self._context.usage


class BoundRun:
    """One run on the shared engine."""

    def __init__(self, engine: ExecutionEngine, context: RunContext) -> None:
        self._engine = engine
        self._context = context

    async def events(self, task: AgentInput) -> AsyncIterator[BaseEvent]:
        """The events of the shared agent. What it says, and what was asked, goes into everybody's history."""
        engine = self._engine
        async with engine.slots():
            answer: list[str] = []
            stream = answer_of(engine.agent_for(self._context), SharedView(engine, self._context), task)
            try:
                async with aclosing(stream) as events:
                    async for event in events:
                        if isinstance(event, TextMessageContentEvent):
                            answer.append(event.delta)
                        yield event
            finally:
                engine.run_history.append(HistoryMessage("user", task.text, MessageId(new_id())))
                engine.run_history.append(HistoryMessage("assistant", "".join(answer), MessageId(new_id())))


_engine = ExecutionEngine()  # the flaw itself: one for the process, reachable from everywhere


@asynccontextmanager
async def get_execution_engine(context: RunContext) -> AsyncIterator[BoundRun]:
    """The process's engine, bound to this run until the next one is bound."""
    try:
        yield _engine.bind(context)
    finally:
        _engine.release(context)


@asynccontextmanager
async def get_private_execution_engine(context: RunContext) -> AsyncIterator[BoundRun]:
    """An engine that this run has for itself, as when nobody else uses the process: what the shadow compares with."""
    engine = ExecutionEngine()
    try:
        yield engine.bind(context)
    finally:
        engine.release(context)
