"""The composition root: the one place that knows every class, builds everything in order and closes it in reverse.

Nothing below looks anything up: what a part needs, it is given here. A part that opens something is an async context
manager, entered on one stack, so that a start that fails half-way closes what it had opened.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from django.conf import settings
from django.db import connection

from apps.agents.provider import ModelProvider
from apps.agents.registry import AgentClassRegistry, build_registry
from apps.chat.attachments import limits_of, remove_due
from apps.chat.authentication import Principal, no_longer_valid
from apps.chat.conversation import Conversation
from apps.chat.digests import read_digests
from apps.chat.folding import MessageFold
from apps.execution.apps import execution_config
from apps.execution.executor import Executor
from apps.execution.factory import ExecutionEngineFactory
from apps.execution.service import RunService
from apps.execution.settlement import Settlement
from apps.operations.backlog import Backlog
from apps.operations.census import Census, Counted, census_of
from apps.operations.health import Readiness, condition_check, database_check
from apps.operations.heartbeat import Heartbeat
from apps.operations.metrics import Metrics
from apps.operations.orders import Orders, stop_this_process
from apps.operations.trace import TraceAnswering
from apps.operations.upkeep import Upkeep
from apps.realtime.bridge import WebSocketBridgeFactory
from apps.realtime.database import DatabaseThreads
from apps.realtime.epochs import WENT_BACK
from apps.realtime.hints import Hints
from apps.realtime.log import EventLog
from apps.realtime.periodic import Periodic
from apps.realtime.pool import WebSocketConnectionPool
from apps.realtime.proofs import ProofChecker
from apps.realtime.reader import PageReader, read_heads
from apps.realtime.tracing import DeliveryTrace
from apps.vocabulary import new_id
from project.configuration import Configuration
from project.execution import Execution
from project.layers import disconnecting, own_layer
from project.limits import (
    chat_limits,
    connection_limits,
    disclosure,
    hint_limits,
    log_limits,
    pool_limits,
    proof_limits,
    retention_limits,
    run_limits,
    witness_file,
)
from project.switch import Switch
from project.threadtools import ThreadTools
from project.version import VERSION

logger = logging.getLogger(__name__)

_RECEIPTS_S = 3_600.0  # between two looks for receipts that nobody will ask for any more
_READY_S = 2.0  # for one check of `/readyz`


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The open parts of one process. Made by `open_services` only."""

    configuration: Configuration
    process_id: str
    database: DatabaseThreads
    log: EventLog
    pool: WebSocketConnectionPool
    bridges: WebSocketBridgeFactory
    agents: AgentClassRegistry
    provider: ModelProvider
    switch: Switch
    engines: ExecutionEngineFactory
    runs: RunService
    executor: Executor
    conversation: Conversation
    readiness: Readiness
    metrics: Metrics | None

    def deadline(self) -> float:
        """When a process that is told to stop now must have ended, on the loop's clock."""
        return asyncio.get_running_loop().time() + self.configuration.drain_timeout_s

    async def drain(self, deadline: float) -> None:
        """Take nothing new, let every run end visibly, tell every tab to come back, and leave `shutdown_s` before the
        deadline for the parts to close.

        Runs end before the tabs are sent away, so that a tab still sees how its run ended.
        """
        bounds, now = self.configuration, asyncio.get_running_loop().time
        parting = deadline - bounds.shutdown_s
        self.pool.refuse_newcomers()
        await self.executor.drain(max(0.0, parting - bounds.goodbye_s - now()))
        self.pool.say_goodbye()
        try:
            async with asyncio.timeout_at(min(parting, now() + bounds.goodbye_s)):
                await self.pool.wait_until_empty()
        except TimeoutError:
            logger.warning("%r: tabs that did not close in time are cut off", self.pool)


@asynccontextmanager
async def open_services(configuration: Configuration, kind: str) -> AsyncIterator[Services]:
    """Everything that a process needs to serve sockets and to run agents, open for the length of the block.

    `kind` is how the process calls itself in its reports: `serve`, or `lifespan` under another server.
    """
    async with AsyncExitStack() as stack:
        services = await _open(configuration, kind, stack)
        slot = execution_config()
        slot.services = services
        try:
            yield services
        finally:
            slot.services = None


async def _open(configuration: Configuration, kind: str, stack: AsyncExitStack) -> Services:
    process_id = new_id()
    database = await stack.enter_async_context(DatabaseThreads(configuration.database_threads))
    reader, pool, tools = PageReader(database), _pool(configuration, database), ThreadTools(database, configuration)
    hints = _hints(configuration, pool, process_id)
    log = EventLog(log_limits(configuration), hints, tools.box.public_fields, disclosure(configuration))
    tracing = TraceAnswering(database, process_id, DeliveryTrace(configuration.trace_marks))
    proofs = ProofChecker(database, read_digests, proof_limits(configuration))
    bridges = WebSocketBridgeFactory(pool, reader, connection_limits(configuration), tracing.trace, proofs)
    engines, agents = ExecutionEngineFactory(run_limits(configuration)), _agents(configuration)
    switch = Switch(configuration, database, engines, bridges, agents, tools.box)
    execution = Execution(configuration, process_id, kind, database, log, switch, agents, tools.box)
    conversation = tools.conversation = Conversation(runs=execution.runs, log=log, limits=chat_limits(configuration))
    upkeep, backlog = _upkeep(configuration, database, pool), Backlog(database)
    counted: dict[str, Counted] = {"engines": engines, "pool": pool, "log": log, "reader": reader, "hints": hints}
    counted |= {"backlog": backlog, "proofs": proofs, "upkeep": upkeep, "switch": switch, "database": database}
    census = census_of(**execution.counted(), **counted)

    parts: tuple[AbstractAsyncContextManager[Any], ...] = (
        Heartbeat(database, process_id, census, configuration.report_s, kind=kind, version=VERSION),
        execution.provider,
        _opened_log(hints, log, database, execution.fold, switch),
        reader,
        proofs,
        pool,
        *execution.parts(),
        upkeep,
        *_jobs(configuration, database, execution.runs, conversation),
        *_looks(configuration, tracing, Orders(database, process_id, pool, stop_this_process), backlog),
        *switch.jobs(),
    )
    for part in parts:
        await stack.enter_async_context(part)
    return Services(
        configuration=configuration,
        process_id=process_id,
        database=database,
        log=log,
        pool=pool,
        bridges=bridges,
        agents=agents,
        provider=execution.provider,
        switch=switch,
        engines=engines,
        runs=execution.runs,
        executor=execution.executor,
        conversation=conversation,
        readiness=_readiness(database, pool, log, execution, upkeep, hints),
        metrics=_metrics(census, kind, log, execution.executor) if configuration.metrics else None,
    )


# -- parts that take more than a line


@asynccontextmanager
async def _opened_log(
    hints: Hints, log: EventLog, database: DatabaseThreads, fold: MessageFold, switch: Switch
) -> AsyncIterator[None]:
    opened = log.open(
        database,
        settle=Settlement(),
        fold=switch.observed(fold),
        may_receive_leaks=switch.may_receive_leaks,
        prepare=fold.prepare,
    )
    async with hints, opened:  # the log commits on closing what waits, and the hints tell it
        yield


def _hints(configuration: Configuration, pool: WebSocketConnectionPool, process_id: str) -> Hints:
    layer = own_layer("default")
    return Hints(
        pool,
        layer,
        process_id=process_id,
        limits=hint_limits(configuration),
        disconnect=disconnecting(layer),
    )


def _upkeep(configuration: Configuration, database: DatabaseThreads, pool: WebSocketConnectionPool) -> Upkeep:
    file = witness_file(configuration, connection.settings_dict)
    return Upkeep(database, retention_limits(configuration), file, pool.send_back)


def _agents(configuration: Configuration) -> AgentClassRegistry:
    return build_registry(settings.TURNOUT_AGENTS, faulty_allowed=configuration.faulty_agent)


def _looks(
    configuration: Configuration, tracing: TraceAnswering, orders: Orders, backlog: Backlog
) -> tuple[Periodic, ...]:
    """What is looked for as often as the process reports itself."""
    turns = {"trace": tracing.turn, "orders": orders.turn, "backlog": backlog.turn}
    return tuple(Periodic(name, configuration.report_s, turn) for name, turn in turns.items())


def _metrics(census: Census, kind: str, log: EventLog, executor: Executor) -> Metrics:
    timings = executor.timings
    histograms = (log.commit_seconds, timings.claim_wait_seconds, timings.run_seconds)
    return Metrics(census, kind=kind, version=VERSION, histograms=histograms)


def _jobs(
    configuration: Configuration,
    database: DatabaseThreads,
    runs: RunService,
    conversation: Conversation,
) -> tuple[Periodic, ...]:
    return (
        Periodic("approvals", configuration.approval_sweep_s, lambda: database.call(runs.expire_approvals)),
        Periodic("attachments", _RECEIPTS_S, lambda: database.call(remove_due, limits_of(configuration))),
        Periodic("receipts", _RECEIPTS_S, lambda: database.call(conversation.forget_receipts)),
    )


def _pool(configuration: Configuration, database: DatabaseThreads) -> WebSocketConnectionPool:
    return WebSocketConnectionPool(
        pool_limits(configuration),
        read_heads=lambda user_ids: database.call(read_heads, user_ids),
        find_invalid=_find_invalid(database),
    )


# -- what one part is given of another


def _find_invalid(database: DatabaseThreads) -> Callable[[Sequence[object]], Awaitable[set[object]]]:
    async def find(principals: Sequence[object]) -> set[object]:
        invalid = await database.call(no_longer_valid, cast("Collection[Principal]", principals))
        return cast("set[object]", invalid)

    return find


def _readiness(
    database: DatabaseThreads,
    pool: WebSocketConnectionPool,
    log: EventLog,
    execution: Execution,
    upkeep: Upkeep,
    hints: Hints,
) -> Readiness:
    return Readiness(
        {
            "database": database_check(database),
            "writer": condition_check(lambda: log.is_open, "the log's writer has stopped"),
            "executor": condition_check(lambda: execution.is_alive, "the executor has stopped"),
            "history": condition_check(lambda: upkeep.history_is_intact, WENT_BACK),
            "drain": condition_check(lambda: not pool.draining, "the process is draining"),
        },
        degrading={
            "layer": condition_check(
                lambda: hints.is_connected,
                "no word comes back; events of other processes are found by the poll",
            )
        },
        timeout_s=_READY_S,
    )
