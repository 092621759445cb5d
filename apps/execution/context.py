"""What one run is given, and what it has opened: everything is closed once, in reverse, whatever happens to
the run.

Each thing that is entered lives in a task of its own, which enters and leaves it. So cancelling the run does
not reach a clean-up that is at work; a thing that must be left by the task that entered it (a TaskGroup, a
timeout) is; and a clean-up that hangs, or ignores that it is cancelled, costs its deadline and keeps no other
from its turn.
"""

import asyncio
import logging
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from apps.agents.base import Agent, HistoryMessage, Model, TokenCount, ToolBelt
from apps.execution.budget import BudgetedModel, RunBudget
from apps.execution.waiting import TimedModel, TimedTools, WaitClock
from apps.vocabulary import Identity, RunId, ThreadId

logger = logging.getLogger(__name__)

OpenTools = Callable[[Identity, RunId, ThreadId], AbstractAsyncContextManager[ToolBelt]]


class ContextNotOpen(RuntimeError):  # noqa: N818 - names the state that was met
    """The run's context is not open: it was not entered yet, or it has been closed."""


@dataclass(frozen=True, slots=True)
class CleanupFailure:
    """A clean-up that raised, or that was not done at its deadline."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Who runs what, with what, within which bounds. Never changes during the run."""

    identity: Identity
    run_id: RunId
    thread_id: ThreadId
    agent_name: str
    create_agent: Callable[[], Agent]
    history: tuple[HistoryMessage, ...]
    model: Model | None
    open_tools: OpenTools
    budget: RunBudget
    cleanup_timeout_s: float


class UserExecutionContext:
    """The whole world of one run: an `AgentContext` for the agent, an exit stack for whoever runs it.

    Entered and closed once. Closing is not interrupted when the run is cancelled, takes at most
    `cleanup_timeout_s` for each thing that is open, and raises nothing: what failed stands in `failures`, and
    in the log. A context that is collected while it is open is a ResourceWarning.
    """

    def __init__(self, grant: Grant) -> None:
        self._grant = grant
        self._usage = TokenCount()
        self._clock = WaitClock()
        self._model = self._bounded_model()
        self._tools: ToolBelt | None = None
        self._held: list[_Held] = []
        self._opened = False
        self._closing: asyncio.Task[None] | None = None
        self._failures: list[CleanupFailure] = []
        self._left_over: list[asyncio.Task[None]] = []

    def _bounded_model(self) -> Model | None:
        if self._grant.model is None:
            return None
        return BudgetedModel(TimedModel(self._grant.model, self._clock), self._grant.budget, self._usage)

    async def __aenter__(self) -> Self:
        if self._opened:
            raise ContextNotOpen("a context is opened once; make a new one for each run")
        self._opened = True
        grant = self._grant
        try:
            tools = grant.open_tools(grant.identity, grant.run_id, grant.thread_id)
            self._tools = TimedTools(await self.enter("tools", tools), self._clock)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if self._opened and self._closing is None:
            warnings.warn(f"{self!r} was collected while it was open", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        state = "closed" if self._closing else "open" if self._opened else "new"
        return (
            f"<UserExecutionContext {state} run={self._grant.run_id} held={len(self._held)} "
            f"failures={len(self._failures)}>"
        )

    # -- for the agent

    @property
    def identity(self) -> Identity:
        """Whose run it is."""
        return self._grant.identity

    @property
    def history(self) -> tuple[HistoryMessage, ...]:
        """The newest finished messages of the thread, oldest first, within the bounds."""
        return self._grant.history

    @property
    def model(self) -> Model | None:
        """The model bound to this identity; None where no provider is set."""
        return self._model

    @property
    def tools(self) -> ToolBelt:
        """The tools of this run. Raises ContextNotOpen before the context is entered."""
        if self._tools is None:
            raise ContextNotOpen("the tools are there once the context is entered")
        return self._tools

    @property
    def usage(self) -> TokenCount:
        """The tokens that this run has used so far."""
        return self._usage

    # -- for whoever runs the agent

    def check_budget(self) -> None:
        """At each event of the agent. Raises RunBudgetExceeded."""
        self._grant.budget.check_event(self._usage)

    @property
    def waited_s(self) -> float:
        """Seconds for which the run has waited for its model and its tools so far."""
        return self._clock.waited_s

    @property
    def run_id(self) -> RunId:
        """The run that this context belongs to, and no other."""
        return self._grant.run_id

    @property
    def thread_id(self) -> ThreadId:
        """The thread of the run."""
        return self._grant.thread_id

    @property
    def agent_name(self) -> str:
        """The name that the user asked for."""
        return self._grant.agent_name

    def create_agent(self) -> Agent:
        """A new instance of the run's agent. Raises AgentUnknown (apps.agents.registry)."""
        return self._grant.create_agent()

    @property
    def failures(self) -> tuple[CleanupFailure, ...]:
        """The clean-ups that failed, in the order of closing."""
        return tuple(self._failures)

    @property
    def left_over(self) -> tuple[asyncio.Task[None], ...]:
        """Tasks of clean-ups that were given up at their deadline and may still be at work."""
        return tuple(self._left_over)

    async def enter[T](self, name: str, opened: AbstractAsyncContextManager[T]) -> T:
        """Enter a context manager, in a task of its own, until the run ends. Raises what entering raises.

        Leaving is told nothing of how the run ended. Raises ContextNotOpen.
        """
        if not self._opened or self._closing is not None:
            raise ContextNotOpen(f"{name} cannot be opened: {self!r}")
        entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        held = _Held(name, opened, entered)
        self._held.append(held)  # before the wait: when that is cancelled, closing still looks after it
        try:
            return await asyncio.shield(entered)
        except asyncio.CancelledError:
            held.task.cancel()
            raise

    async def call_on_close(self, name: str, callback: Callable[[], Awaitable[None]]) -> None:
        """Await `callback` when the run ends. Raises ContextNotOpen."""
        await self.enter(name, _calling(callback))

    async def close(self) -> None:
        """Close everything, newest first, once; a second call waits for the first. Returns when all is done
        or given up, also when the caller is cancelled meanwhile: the cancellation is raised afterwards.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close_all(), name=f"close context of run {self.run_id}")
        cancelled: asyncio.CancelledError | None = None
        while not self._closing.done():
            try:
                await asyncio.wait({self._closing})
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _close_all(self) -> None:
        for held in reversed(self._held):
            failure = await held.close(self._grant.cleanup_timeout_s)
            if failure is not None:
                logger.error(
                    "run %s: clean-up of %s failed: %s",
                    self.run_id,
                    failure.name,
                    failure.reason,
                    extra={"run_id": self.run_id},
                )
                self._failures.append(failure)
            if not held.task.done():
                self._left_over.append(held.task)
        self._held.clear()


class _Held:
    """One thing that is open, in the task that entered it and will leave it."""

    def __init__[T](self, name: str, opened: AbstractAsyncContextManager[T], entered: "asyncio.Future[T]") -> None:
        self.name = name
        self._leave = asyncio.Event()
        self.task: asyncio.Task[None] = asyncio.create_task(self._hold(opened, entered), name=f"hold {name}")

    async def _hold[T](self, opened: AbstractAsyncContextManager[T], entered: "asyncio.Future[T]") -> None:
        try:
            async with opened as value:
                entered.set_result(value)
                await self._leave.wait()
        except asyncio.CancelledError:
            if entered.done():
                raise
            entered.cancel()
        except BaseException as error:
            # Who waits for the entering is told there; what leaving raises is for who closes.
            if entered.done():
                raise
            entered.set_exception(error)
            entered.exception()  # taken note of: a cancelled opener never looks

    async def close(self, timeout_s: float) -> CleanupFailure | None:
        """Leave it within the deadline; then cancel it, and go on whether it obeys or not."""
        self._leave.set()
        await asyncio.wait({self.task}, timeout=timeout_s)
        if not self.task.done():
            self.task.cancel()
            return CleanupFailure(self.name, f"not done after {timeout_s:g} s, given up")
        if self.task.cancelled():
            return CleanupFailure(self.name, "cancelled from outside")
        error = self.task.exception()
        if error is None:
            return None
        logger.error("%s raised while it was closed", self.name, exc_info=error)
        return CleanupFailure(self.name, type(error).__name__)


@asynccontextmanager
async def _calling(callback: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    yield
    await callback()


def newest_within(history: Sequence[HistoryMessage], max_messages: int, max_bytes: int) -> tuple[HistoryMessage, ...]:
    """The newest messages that fit, oldest first. A tool's answer is never first: its call would be missing."""
    kept: list[HistoryMessage] = []
    size = 0
    for message in reversed(history[-max_messages:]):
        size += len(message.text.encode())
        if size > max_bytes:
            break
        kept.append(message)
    kept.reverse()
    while kept and kept[0].role == "tool":
        del kept[0]
    return tuple(kept)
