"""One claimed run, from RUN_STARTED to its one terminal event, whatever its agent does.

The agent runs in a task of its own, and this one watches it: for its end, for a request to stop, and for the
time. An agent that does not stop when it is cancelled is given up after `cancel_timeout_s`: its run ends all
the same, and what is left of it is handed to the executor, which counts it. Nothing that it yields later
reaches the log.
"""

import asyncio
import enum
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Protocol

from ag_ui.core import BaseEvent
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from apps.agents.base import (
    Agent,
    AgentFailure,
    AgentInput,
    AgentInputError,
    ApprovalNeeded,
    HistoryMessage,
    Model,
    TokenCount,
)
from apps.agents.registry import AgentUnknown
from apps.execution import lifecycle
from apps.execution.budget import RunBudget, RunBudgetExceeded
from apps.execution.context import Grant, OpenTools, UserExecutionContext, newest_within
from apps.execution.engine import Engine
from apps.execution.factory import EngineLimitReached
from apps.execution.fairness import ClaimedRun
from apps.execution.lifecycle import RunErrorCode
from apps.execution.limits import RunLimits
from apps.realtime.bridge import RunBridge
from apps.realtime.database import DatabaseThreads
from apps.realtime.log import EventLog
from apps.realtime.publisher import EventBudgetExceeded, EventRefused, RunEventPublisher, RunFenced
from apps.realtime.values import Ending, RunLease
from apps.vocabulary import Identity, PinnedPaths, RunId, ThreadId, UserId

logger = logging.getLogger(__name__)

OpenEngine = Callable[[UserExecutionContext, PinnedPaths], AbstractAsyncContextManager[Engine]]
OpenBridge = Callable[[RunLease, Identity, PinnedPaths], AbstractAsyncContextManager[RunBridge]]
ReadHistory = Callable[[UserId, ThreadId, RunId], Sequence[HistoryMessage]]


class AgentSource(Protocol):
    """Makes agents by name; the registry does."""

    def create(self, name: str) -> Agent:
        """A new instance. Raises AgentUnknown."""
        ...


class ModelSource(Protocol):
    """Knows which model an agent is given; the provider does."""

    def model_for(self, agent_name: str, identity: Identity) -> Model | None:
        """The model bound to this identity; None where none is set."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What every attempt of a process is made with. `end` ends a run without a publisher, in a transaction of
    its own; `confirmed` returns when it is sure that the process still owns its runs.
    """

    database: DatabaseThreads
    log: EventLog
    agents: AgentSource
    provider: ModelSource
    open_tools: OpenTools
    open_engine: OpenEngine
    open_bridge: OpenBridge
    history: ReadHistory
    end: Callable[[RunLease, Ending], bool]
    confirmed: Callable[[], Awaitable[None]]
    may_wait: Callable[[UserId], bool]
    limits: RunLimits


class Stop(enum.Enum):
    """Who asked a run to stop."""

    CANCELLED = "its user"
    DRAINED = "the process, which ends"
    LOST = "others, who own it by now"


class AgentExited(RuntimeError):  # noqa: N818 - names what the agent did
    """The agent called `sys.exit`. It ends its own run with that, not the process that runs those of others."""


class RunAttempt:
    """See the module. `adopt` takes tasks that outlive the attempt."""

    def __init__(self, claimed: ClaimedRun, workshop: Workshop, adopt: Callable[[asyncio.Task[None]], None]) -> None:
        self._claimed = claimed
        self._workshop = workshop
        self._adopt = adopt
        self._deadline = asyncio.get_running_loop().time() + workshop.limits.run_timeout_s
        self._publisher: RunEventPublisher | None = None
        self._stop: Stop | None = None
        self._asked_to_stop = asyncio.Event()
        self._silenced = False
        self.claimed_at = time.monotonic()
        self.cleanup_failures = 0
        self.was_fenced = False
        self.ended_as = ""  # the status that its end was stored with; empty while it has none, or others wrote it

    @property
    def run_id(self) -> RunId:
        """The run."""
        return self._claimed.lease.run_id

    @property
    def was_drained(self) -> bool:
        """Whether it was stopped because its process ends."""
        return self._stop is Stop.DRAINED

    def request_stop(self, stop: Stop) -> None:
        """Ask the run to end soon; the first who asks is named in its end."""
        if self._stop is None:
            self._stop = stop
        self._asked_to_stop.set()
        if self._publisher is not None:
            self._publisher.cancel_requested.set()

    async def execute(self) -> None:
        """Run the agent and end the run. Raises nothing but CancelledError; then the run has no end yet."""
        try:
            await self._execute()
        except RunFenced as fenced:
            self.was_fenced = True
            logger.warning("run %s was taken over or has ended: %s", self.run_id, fenced, extra={"run_id": self.run_id})
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must end, and does so with a reference
            await self._end_without_publisher(self._failed(error, TokenCount()))

    async def _execute(self) -> None:
        async with asyncio.timeout_at(self._deadline):
            grant = await self._grant()
        context = UserExecutionContext(grant)
        try:
            publisher = await self._opened(context)
            if publisher is None:
                await self._end_without_publisher(self._stopped(TokenCount(), timed_out=False))
                return
            ending = await self._supervise(context, publisher)
            await publisher.finish(ending)
            self.ended_as = ending.status
        finally:
            await context.close()
            self.cleanup_failures = len(context.failures)
            for task in context.left_over:
                self._adopt(task)

    async def _opened(self, context: UserExecutionContext) -> RunEventPublisher | None:
        """Open what the run needs, tools and bridge; None when it was asked to stop meanwhile. Raises TimeoutError."""
        opening = asyncio.create_task(self._open(context), name=f"opening of run {self.run_id}")
        asked = asyncio.create_task(self._asked_to_stop.wait(), name=f"stop of run {self.run_id}")
        try:
            async with asyncio.timeout_at(self._deadline):
                await asyncio.wait({opening, asked}, return_when=asyncio.FIRST_COMPLETED)
            return opening.result() if opening.done() else None
        finally:
            asked.cancel()
            if not opening.done():
                opening.cancel()
                await asyncio.wait({opening}, timeout=self._workshop.limits.cancel_timeout_s)

    async def _open(self, context: UserExecutionContext) -> RunEventPublisher:
        claimed, workshop = self._claimed, self._workshop
        await context.__aenter__()
        bridge = workshop.open_bridge(claimed.lease, claimed.identity, claimed.paths)
        return workshop.log.publisher(claimed.lease, await context.enter("bridge", bridge))

    async def _grant(self) -> Grant:
        claimed, workshop, limits = self._claimed, self._workshop, self._workshop.limits
        lease, agent_name = claimed.lease, claimed.run.agent
        history = await workshop.database.call(workshop.history, lease.user_id, lease.thread_id, lease.run_id)
        return Grant(
            identity=claimed.identity,
            run_id=lease.run_id,
            thread_id=lease.thread_id,
            agent_name=agent_name,
            create_agent=partial(workshop.agents.create, agent_name),
            history=newest_within(history, limits.history_messages, limits.history_bytes),
            model=workshop.provider.model_for(agent_name, claimed.identity),
            open_tools=workshop.open_tools,
            budget=RunBudget(limits.model_calls, self._claimed.run.reserved_tokens),
            cleanup_timeout_s=limits.cleanup_timeout_s,
        )

    async def _supervise(self, context: UserExecutionContext, publisher: RunEventPublisher) -> Ending:
        self._publisher = publisher
        if self._stop is not None:
            publisher.cancel_requested.set()
        run, lease = self._claimed.run, self._claimed.lease
        await publisher.publish(lifecycle.started(lease.thread_id, lease.run_id, run.message, run.parent))
        answer = asyncio.create_task(self._answer(context, publisher), name=f"agent of run {self.run_id}")
        asked = asyncio.create_task(publisher.cancel_requested.wait(), name=f"stop of run {self.run_id}")
        left_s = self._deadline - asyncio.get_running_loop().time()
        try:
            await asyncio.wait({answer, asked}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._silenced = True
            answer.cancel()
            self._adopt(answer)
            raise
        finally:
            asked.cancel()
        if answer.done():
            ending = await self._allowed(self._answered(answer, context.usage), context.usage)
            return replace(ending, usage={**ending.usage, "waited_ms": round(context.waited_s * 1_000)})
        timed_out = not publisher.cancel_requested.is_set()
        await self._stop_agent(answer)
        return self._stopped(context.usage, timed_out=timed_out)

    async def _answer(self, context: UserExecutionContext, publisher: RunEventPublisher) -> None:
        run = self._claimed.run
        asked = tuple(run.attachments)
        task = AgentInput(context.run_id, context.thread_id, run.text, asked, self._claimed.resume)
        try:
            async with (
                self._workshop.open_engine(context, self._claimed.paths) as engine,
                _closing(engine.events(task)) as events,
            ):
                async for event in events:
                    await self._workshop.confirmed()
                    if self._silenced:
                        return
                    context.check_budget()
                    await publisher.publish(event)
        except SystemExit as error:
            raise AgentExited(f"sys.exit({error.code!r})") from error

    async def _allowed(self, ending: Ending, usage: TokenCount) -> Ending:
        """The ending; of a run that would wait beside too many others, another. Settlement looks under the lock."""
        if ending.waits_for is None:
            return ending
        if await self._workshop.database.call(self._workshop.may_wait, self._claimed.lease.user_id):
            return ending
        message = "Too many of your runs wait for an approval. Decide or cancel one, then ask again."
        return lifecycle.failed(RunErrorCode.LIMIT_EXCEEDED, message, usage)

    async def _stop_agent(self, answer: asyncio.Task[None]) -> None:
        self._silenced = True
        answer.cancel()
        await asyncio.wait({answer}, timeout=self._workshop.limits.cancel_timeout_s)
        if not answer.done():
            logger.error(
                "run %s: agent %s did not stop within %g s of being cancelled and is left behind",
                self.run_id,
                self._claimed.run.agent,
                self._workshop.limits.cancel_timeout_s,
                extra={"run_id": self.run_id},
            )
            self._adopt(answer)
            return
        error = None if answer.cancelled() else answer.exception()
        if isinstance(error, RunFenced):
            raise error
        if error is not None:
            logger.warning(
                "run %s: the agent failed while it was stopped",
                self.run_id,
                exc_info=error,
                extra={"run_id": self.run_id},
            )

    def _answered(self, answer: asyncio.Task[None], usage: TokenCount) -> Ending:
        lease = self._claimed.lease
        try:
            answer.result()
        except RunFenced:
            raise
        except ApprovalNeeded as asked:
            until = timezone.now() + timedelta(seconds=self._workshop.limits.approval_timeout_s)
            return lifecycle.waiting(lease.thread_id, lease.run_id, usage, asked.request, until)
        except asyncio.CancelledError as error:
            return self._failed(error, usage)  # nobody cancelled it: the agent raised this itself
        except Exception as error:  # noqa: BLE001 - an agent may raise anything; it ends its own run
            return self._failed(error, usage)
        return lifecycle.succeeded(lease.thread_id, lease.run_id, usage)

    def _stopped(self, usage: TokenCount, *, timed_out: bool) -> Ending:
        lease = self._claimed.lease
        if timed_out:
            message = f"This took longer than the {self._workshop.limits.run_timeout_s:g} s that a run may take."
            return lifecycle.failed(RunErrorCode.TIMEOUT, message, usage)
        if self._stop is not Stop.CANCELLED and self._stop is not None:
            return lifecycle.interrupted(usage)
        return lifecycle.cancelled(lease.thread_id, lease.run_id, usage)

    def _failed(self, error: BaseException, usage: TokenCount) -> Ending:
        match error:
            case AgentInputError():
                return lifecycle.failed(RunErrorCode(error.code), error.public_message, usage)
            case AgentFailure():
                return lifecycle.failed(RunErrorCode(error.code), self._referred(error), usage)
            case AgentUnknown():
                return lifecycle.failed(RunErrorCode.AGENT_ERROR, str(error), usage)
            case RunBudgetExceeded():
                return lifecycle.failed(RunErrorCode.LIMIT_EXCEEDED, str(error), usage)
            case EventBudgetExceeded():
                return lifecycle.failed(RunErrorCode.LIMIT_EXCEEDED, f"{error}; this one wanted more.", usage)
        reference = secrets.token_hex(4)
        logger.error(
            "run %s failed, reference %s", self.run_id, reference, exc_info=error, extra={"run_id": self.run_id}
        )
        match error:
            case EngineLimitReached() | OperationalError() | InterfaceError():
                code, sentence = RunErrorCode.UNAVAILABLE, "The server cannot answer now; ask again later."
            case TimeoutError() if asyncio.get_running_loop().time() >= self._deadline:
                code, sentence = RunErrorCode.TIMEOUT, "The run could not begin in the time that it may take."
            case EventRefused():
                code, sentence = RunErrorCode.AGENT_ERROR, "The agent sent something that cannot be shown."
            case _:
                code, sentence = RunErrorCode.AGENT_ERROR, "The agent failed."
        return lifecycle.failed(code, f"{sentence} Reference: {reference}.", usage)

    def _referred(self, failure: AgentFailure) -> str:
        """The failure's own words, and a reference to what the log has of it: kinds of errors, no more, since providers
        quote prompts and keys in theirs.
        """
        reference = secrets.token_hex(4)
        kinds = " from ".join(type(error).__name__ for error in (failure, failure.__cause__) if error is not None)
        logger.warning("run %s failed, reference %s: %s", self.run_id, reference, kinds, extra={"run_id": self.run_id})
        return f"{failure.public_message} Reference: {reference}."

    async def _end_without_publisher(self, ending: Ending) -> None:
        end: Callable[[], Awaitable[bool]] = partial(
            self._workshop.database.call, self._workshop.end, self._claimed.lease, ending
        )
        while True:
            try:
                ended = await end()
            except (OperationalError, InterfaceError) as error:
                logger.warning("run %s cannot be ended yet: %s", self.run_id, error, extra={"run_id": self.run_id})
                await asyncio.sleep(self._workshop.limits.sweep_s)
            except Exception:
                logger.exception(
                    "run %s cannot be ended; the next start of the server ends it",
                    self.run_id,
                    extra={"run_id": self.run_id},
                )
                return
            else:
                if ended:
                    self.ended_as = ending.status
                else:
                    logger.warning("run %s was taken over or has ended", self.run_id, extra={"run_id": self.run_id})
                return


@asynccontextmanager
async def _closing(events: AsyncIterator[BaseEvent]) -> AsyncIterator[AsyncIterator[BaseEvent]]:
    # `aclosing` for what may be a plain iterator: an engine owes an AsyncIterator, and the generators among
    # them a close.
    try:
        yield events
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
