"""The composition root: the one place that knows every class, builds everything in order and closes it in reverse.

Nothing below looks anything up: what a part needs, it is given here. A part that opens something is an async context
manager, entered on one stack, so that a start that fails half-way closes what it had opened.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import cast

from django.conf import settings

from apps.agents.builtin_tools import ThreadHit, ThreadSearch, builtin_tools
from apps.agents.provider import ModelProvider, ModelSettings
from apps.agents.registry import AgentClassRegistry, build_registry
from apps.agents.tools import Toolbox
from apps.chat.authentication import Principal, no_longer_valid
from apps.chat.conversation import ChatLimits, Conversation
from apps.chat.folding import MessageFold
from apps.chat.history import HistoryLimits, history_within
from apps.chat.search import search_threads
from apps.execution.apps import execution_config
from apps.execution.attempt import OpenBridge, OpenEngine
from apps.execution.context import UserExecutionContext
from apps.execution.engine import Engine
from apps.execution.executor import Executor
from apps.execution.factory import ExecutionEngineFactory
from apps.execution.limits import RunLimits
from apps.execution.service import RunService
from apps.execution.settlement import Settlement
from apps.operations.census import census_of
from apps.operations.health import Readiness, condition_check, database_check, layer_check
from apps.operations.heartbeat import Heartbeat
from apps.operations.metrics import Metrics
from apps.realtime.bridge import RunBridge, WebSocketBridgeFactory
from apps.realtime.connection import ConnectionLimits
from apps.realtime.database import DatabaseThreads
from apps.realtime.group_commit import FlushLimits
from apps.realtime.log import EventLog, LogLimits
from apps.realtime.periodic import Periodic
from apps.realtime.pool import PoolLimits, WebSocketConnectionPool
from apps.realtime.protocol import Limits, Window
from apps.realtime.publisher import PublisherLimits
from apps.realtime.reader import PageReader, read_heads
from apps.realtime.segments import SegmentLimits
from apps.realtime.values import RunLease
from apps.rollout.adapter import FactoryAdapter
from apps.vocabulary import Identity, PinnedPaths, UserId, new_id
from project.configuration import Configuration
from project.seams import BRIDGE_SEAM, ENGINE_SEAM, SEAMS
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
    adapter: FactoryAdapter
    engines: ExecutionEngineFactory
    runs: RunService
    executor: Executor
    conversation: Conversation
    readiness: Readiness
    metrics: Metrics | None

    async def drain(self) -> None:
        """Take nothing new, let every run end visibly, tell every tab to come back, and return in time.

        Runs end before the tabs are sent away, so that a tab still sees how its run ended.
        """
        bounds = self.configuration
        self.pool.refuse_newcomers()
        await self.executor.drain(bounds.drain_timeout_s - bounds.goodbye_s)
        self.pool.say_goodbye()
        try:
            async with asyncio.timeout(bounds.goodbye_s):
                await self.pool.wait_until_empty()
        except TimeoutError:
            logger.warning("%r: tabs that did not close in %g s are cut off", self.pool, bounds.goodbye_s)


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
    reader = PageReader(database)
    pool = _pool(configuration, database)
    toolbox = Toolbox(builtin_tools(search=_search(database)))
    log = EventLog(_log_limits(configuration), pool, toolbox.public_fields)
    bridges = WebSocketBridgeFactory(pool, reader, _connection_limits(configuration))
    engines = ExecutionEngineFactory(_run_limits(configuration))
    adapter = _adapter(database, engines, bridges)
    agents = build_registry(settings.TURNOUT_AGENTS, faulty_allowed=configuration.faulty_agent)
    provider = ModelProvider(_model_settings(configuration))
    fold = MessageFold(log)
    runs = _run_service(configuration, log, adapter, agents, fold)
    conversation = Conversation(runs=runs, log=log, limits=_chat_limits(configuration))
    executor = _executor(configuration, database, runs, log, agents, provider, adapter, toolbox)
    census = census_of(executor=executor, engines=engines, pool=pool, log=log, reader=reader, database=database)

    for part in (
        Heartbeat(database, process_id, census, configuration.report_s, kind=kind, version=VERSION),
        provider,
        log.open(database, settle=Settlement(), fold=fold, may_receive_leaks=_served_by_legacy(adapter)),
        reader,
        pool,
        executor,
        Periodic("receipts", _RECEIPTS_S, lambda: database.call(conversation.forget_receipts)),
    ):
        await stack.enter_async_context(part)
    return Services(
        configuration=configuration,
        process_id=process_id,
        database=database,
        log=log,
        pool=pool,
        bridges=bridges,
        agents=agents,
        provider=provider,
        adapter=adapter,
        engines=engines,
        runs=runs,
        executor=executor,
        conversation=conversation,
        readiness=_readiness(database, pool, log, executor),
        metrics=Metrics(census, kind=kind, version=VERSION) if configuration.metrics else None,
    )


# -- parts that take more than a line


def _pool(configuration: Configuration, database: DatabaseThreads) -> WebSocketConnectionPool:
    return WebSocketConnectionPool(
        _pool_limits(configuration),
        read_heads=lambda user_ids: database.call(read_heads, user_ids),
        find_invalid=_find_invalid(database),
    )


def _adapter(
    database: DatabaseThreads, engines: ExecutionEngineFactory, bridges: WebSocketBridgeFactory
) -> FactoryAdapter:
    adapter = FactoryAdapter(
        SEAMS,
        bind={ENGINE_SEAM.name: engines.open_engine, BRIDGE_SEAM.name: bridges.open_run_bridge},
        read_paths=lambda identity: database.call(adapter.choose_paths, identity),
    )
    return adapter


def _run_service(
    configuration: Configuration,
    log: EventLog,
    adapter: FactoryAdapter,
    agents: AgentClassRegistry,
    fold: MessageFold,
) -> RunService:
    return RunService(
        log=log,
        limits=_run_limits(configuration),
        choose_paths=adapter.choose_paths,
        known_agents=[agent.name for agent in agents.describe()],
        fold=fold,
    )


def _executor(
    configuration: Configuration,
    database: DatabaseThreads,
    runs: RunService,
    log: EventLog,
    agents: AgentClassRegistry,
    provider: ModelProvider,
    adapter: FactoryAdapter,
    toolbox: Toolbox,
) -> Executor:
    return Executor(
        database=database,
        runs=runs,
        log=log,
        agents=agents,
        provider=provider,
        open_tools=toolbox.open_belt,
        open_engine=_open_engine(adapter),
        open_bridge=_open_bridge(adapter),
        history=history_within(_history_limits(configuration)),
        limits=_run_limits(configuration),
    )


# -- what one part is given of another


def _find_invalid(database: DatabaseThreads) -> Callable[[Sequence[object]], Awaitable[set[object]]]:
    async def find(principals: Sequence[object]) -> set[object]:
        invalid = await database.call(no_longer_valid, cast("Collection[Principal]", principals))
        return cast("set[object]", invalid)

    return find


def _search(database: DatabaseThreads) -> ThreadSearch:
    async def search(user_id: UserId, query: str, limit: int) -> Sequence[ThreadHit]:
        return await database.call(search_threads, user_id, query, limit)

    return search


def _open_engine(adapter: FactoryAdapter) -> OpenEngine:
    def open_engine(context: UserExecutionContext, paths: PinnedPaths) -> AbstractAsyncContextManager[Engine]:
        return adapter.use(ENGINE_SEAM, context.identity, paths.get(ENGINE_SEAM.name), context)

    return open_engine


def _open_bridge(adapter: FactoryAdapter) -> OpenBridge:
    def open_bridge(lease: RunLease, identity: Identity, paths: PinnedPaths) -> AbstractAsyncContextManager[RunBridge]:
        return adapter.use(BRIDGE_SEAM, identity, paths.get(BRIDGE_SEAM.name), lease)

    return open_bridge


def _served_by_legacy(adapter: FactoryAdapter) -> Callable[[frozenset[UserId]], frozenset[UserId]]:
    def served_by_legacy(users: frozenset[UserId]) -> frozenset[UserId]:
        """The old bridge may write to users who are on the old path themselves, and to nobody else."""
        return frozenset(
            user_id
            for user_id in users
            if adapter.choose_paths(Identity(user_id, ""))[BRIDGE_SEAM.name].path == "legacy"
        )

    return served_by_legacy


def _readiness(
    database: DatabaseThreads, pool: WebSocketConnectionPool, log: EventLog, executor: Executor
) -> Readiness:
    return Readiness(
        {
            "database": database_check(database),
            "layer": layer_check("default"),
            "writer": condition_check(lambda: log.is_open, "the log's writer has stopped"),
            "executor": condition_check(lambda: executor.is_alive, "the executor has stopped"),
            "drain": condition_check(lambda: not pool.draining, "the process is draining"),
        },
        timeout_s=_READY_S,
    )


# -- the bounds of each part, out of the one list


def _pool_limits(bounds: Configuration) -> PoolLimits:
    return PoolLimits(
        connections=bounds.connections,
        connections_per_user=bounds.connections_per_user,
        head_poll_s=bounds.head_poll_s,
        revalidate_s=bounds.revalidate_s,
        reconnect_spread_ms=bounds.reconnect_spread_ms,
    )


def _log_limits(bounds: Configuration) -> LogLimits:
    return LogLimits(
        segment=SegmentLimits(bounds.segment_events, bounds.segment_bytes),
        flush=FlushLimits(
            bounds.flush_window_min_ms,
            bounds.flush_window_max_ms,
            bounds.commit_events_per_user,
            bounds.commit_bytes_per_user,
        ),
        publisher=PublisherLimits(
            waiting_events=bounds.publisher_events,
            waiting_bytes=bounds.publisher_bytes,
            event_bytes=bounds.event_bytes,
            run_events=bounds.run_events,
            run_bytes=bounds.run_bytes,
        ),
    )


def _connection_limits(bounds: Configuration) -> ConnectionLimits:
    return ConnectionLimits(
        window=Window(bounds.window_events, bounds.window_bytes),
        announced=Limits(
            frame_bytes=bounds.frame_bytes,
            event_bytes=bounds.event_bytes,
            text_bytes=bounds.text_bytes,
            attachments=bounds.attachments_per_run,
            runs=bounds.open_runs_per_user,
        ),
        segment_events=bounds.segment_events,
        segment_bytes=bounds.segment_bytes,
        heartbeat_s=bounds.heartbeat_s,
        stall_timeout_s=bounds.stall_timeout_s,
        subscribe_timeout_s=bounds.subscribe_timeout_s,
    )


def _run_limits(bounds: Configuration) -> RunLimits:
    return RunLimits(
        open_runs_per_user=bounds.open_runs_per_user,
        queued_runs=bounds.queued_runs,
        run_slots_per_user=bounds.run_slots_per_user,
        run_slots=bounds.run_slots,
        run_timeout_s=bounds.run_timeout_s,
        cancel_timeout_s=bounds.cancel_timeout_s,
        cleanup_timeout_s=bounds.cleanup_timeout_s,
        history_messages=bounds.history_messages,
        history_bytes=bounds.history_bytes,
        sweep_s=bounds.sweep_s,
    )


def _history_limits(bounds: Configuration) -> HistoryLimits:
    return HistoryLimits(messages=bounds.history_messages, size=bounds.history_bytes)


def _chat_limits(bounds: Configuration) -> ChatLimits:
    return ChatLimits(
        text_bytes=bounds.text_bytes,
        threads_per_user=bounds.threads_per_user,
        messages_per_thread=bounds.messages_per_thread,
        receipt_hours=bounds.receipt_hours,
    )


def _model_settings(bounds: Configuration) -> ModelSettings:
    return ModelSettings(
        model=bounds.model,
        base_url=bounds.model_base_url,
        api_key=bounds.model_api_key,
        timeout_s=bounds.model_timeout_s,
    )
