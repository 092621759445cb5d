"""The whole execution room with real rows, a real log and real agents; the tabs and the fold only take notes.

Tests wait for events that were committed, never for time.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from django.db import transaction

from apps.agents.faulty import FaultyAgent
from apps.agents.metronome import MetronomeAgent
from apps.agents.registry import AgentClassRegistry
from apps.agents.tools import Toolbox
from apps.execution.admission import Admission, RunRequest
from apps.execution.apps import execution_config
from apps.execution.executor import Executor
from apps.execution.factory import ExecutionEngineFactory
from apps.execution.keeper import LeaseKeeper
from apps.execution.limits import LeaseLimits, PlanLimits, RunLimits
from apps.execution.models import Run, UserBudget
from apps.execution.reaper import Reaper
from apps.execution.recovery import Recovery
from apps.execution.service import RunService
from apps.execution.settlement import Settlement
from apps.execution.succession import Succession
from apps.realtime.bridge import OwnerBridge
from apps.realtime.database import DatabaseThreads
from apps.realtime.log import EventLog, LogLimits
from apps.realtime.publisher import PublisherLimits
from apps.realtime.values import EndedRun, Page
from apps.vocabulary import Identity, MessageId, PinnedPath, RunId, ThreadId, UserId, new_id
from tests.execution import odd_agents

LIMITS = RunLimits(
    queued_runs=1_000,
    run_slots_per_user=3,
    run_slots=50,
    run_timeout_s=30.0,
    model_calls=8,
    approval_timeout_s=600.0,
    cancel_timeout_s=2.0,
    cleanup_timeout_s=2.0,
    history_messages=40,
    history_bytes=131_072,
    sweep_s=0.05,
)
PLAN = PlanLimits(
    open_runs_per_user=20,
    waiting_runs_per_user=10,
    tokens_per_day=10_000_000,
    threads_per_user=100,
    messages_per_thread=200,
    stored_bytes_per_user=1_000_000,
)
LEASES = LeaseLimits(renew_s=0.05, dead_s=0.4, hold_s=5.0, ttl_s=8.0)
ANN = Identity(UserId(1), "ann")
BOB = Identity(UserId(2), "bob")
TERMINAL = {"RUN_FINISHED", "RUN_ERROR"}
PATHS = {"execution_engine": PinnedPath("factory", 3)}


class Notes:
    """Stands where the chat folds messages: remembers who ended."""

    def __init__(self) -> None:
        self.ended: list[EndedRun] = []

    def lock(self, ended: Sequence[EndedRun]) -> None:
        pass

    def lock_free(self, ended: Sequence[EndedRun]) -> frozenset[RunId]:
        return frozenset()

    def write(self, ended: Sequence[EndedRun]) -> None:
        self.ended += ended

    def ask_again(self, user_id: UserId, thread_id: ThreadId, message_id: MessageId) -> bool:
        return True


class Tabs:
    """What all users see, as soon as it is committed."""

    def __init__(self) -> None:
        self.entries: dict[int, list[dict[str, Any]]] = {}
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def show(self, pages: Sequence[Page]) -> None:
        self._loop.call_soon_threadsafe(self._take, list(pages))

    def hint(self, heads: Mapping[UserId, int]) -> None:
        pass

    def _take(self, pages: list[Page]) -> None:
        for page in pages:
            self.entries.setdefault(page.user_id, []).extend(orjson.loads(f"[{page.events}]"))
        self._changed.set()

    async def until(self, seen: Callable[[], Any]) -> Any:
        async with asyncio.timeout(20):
            while not (found := seen()):
                self._changed.clear()
                await self._changed.wait()
        return found


class RunningRoom:
    def __init__(
        self, database: DatabaseThreads, log: EventLog, limits: RunLimits, plan: PlanLimits, tabs: Tabs
    ) -> None:
        self.database = database
        self.log = log
        self.limits = limits
        self.tabs = tabs
        self.notes = Notes()
        self.agents = AgentClassRegistry()
        for agent in (MetronomeAgent, FaultyAgent, *odd_agents.ALL):
            self.agents.register(agent)
        self.agents.freeze()
        self.engines = ExecutionEngineFactory(limits)
        self.plan = plan
        self.process_id = new_id()
        self.runs = self.new_service(RunService)
        self.executor: Executor | None = None
        self.keeper: LeaseKeeper | None = None
        self.reaper: Reaper | None = None

    def new_service[S: RunService](self, kind: type[S]) -> S:
        agents = self.agents.describe()
        return kind(
            log=self.log,
            limits=self.limits,
            choose_paths=lambda _: PATHS,
            known_agents={agent.name: agent.max_tokens for agent in agents},
            plans=lambda _: self.plan,
            fold=self.notes,
            process_id=self.process_id,
        )

    def succession(self, runs: RunService) -> Succession:
        return Succession(
            Recovery(self.log, self.notes),
            admit=runs.admit,
            put_back=self.notes.ask_again,
            restartable=[agent.name for agent in self.agents.describe() if agent.restartable],
            restarts=1,
        )

    def new_executor(self, keeper: LeaseKeeper, **changes: Any) -> Executor:
        parts: dict[str, Any] = {
            "database": self.database,
            "runs": self.runs,
            "keeper": keeper,
            "log": self.log,
            "agents": self.agents,
            "provider": NoModel(),
            "open_tools": Toolbox([]).open_belt,
            "open_engine": lambda context, _paths: self.engines.open_engine(context),
            "open_bridge": _owner_bridge,
            "history": lambda *_: (),
            "hand_over": self.succession(self.runs).hand_over,
            "limits": self.limits,
        }
        return Executor(**(parts | changes))

    async def dies(self) -> None:
        """What was claimed here so far belongs to a process that is no more."""
        self.process_id = new_id()
        self.runs = self.new_service(RunService)

    @asynccontextmanager
    async def executing(self, **changes: Any) -> AsyncIterator[Executor]:
        """An executor with its lease, in the slot where wake-ups look for it."""
        runs = changes.get("runs", self.runs)
        keeper = LeaseKeeper(self.process_id, changes.pop("leases", LEASES))
        executor = self.new_executor(keeper, **changes)
        async with (
            Reaper(self.database, self.succession(runs)) as reaper,
            keeper.open(executor, reaper.end_runs_of),
            executor,
        ):
            self.executor, self.keeper, self.reaper = executor, keeper, reaper
            execution_config().services = self
            try:
                yield executor
            finally:
                execution_config().services = None

    async def start(self, identity: Identity, agent: str, text: str = "count=1", **changes: Any) -> RunId:
        request = a_request(agent, text, **changes)
        return (await self.admit(identity, request)).run_id

    async def admit(self, identity: Identity, request: RunRequest) -> Admission:
        return await self.database.call(in_transaction, self.runs.admit, identity, request)

    async def cancel(self, identity: Identity, run_id: RunId) -> str:
        return await self.database.call(in_transaction, self.runs.cancel, identity.user_id, run_id)

    async def run(self, run_id: RunId) -> Run:
        return await self.database.call(Run.objects.get, pk=run_id)

    async def budget(self, identity: Identity) -> UserBudget:
        return await self.database.call(UserBudget.objects.get, pk=identity.user_id)

    def events(self, identity: Identity, run_id: RunId) -> list[dict[str, Any]]:
        entries = self.tabs.entries.get(identity.user_id, [])
        return [entry["event"] for entry in entries if entry["run_id"] == run_id]

    def kinds(self, identity: Identity, run_id: RunId) -> list[str]:
        return [event["type"] for event in self.events(identity, run_id)]

    async def seen(self, identity: Identity, run_id: RunId, kind: str) -> dict[str, Any]:
        """The first event of this kind, once it is committed."""
        return await self.tabs.until(lambda: self._first(identity, run_id, {kind}))

    async def ended(self, identity: Identity, run_id: RunId) -> dict[str, Any]:
        """The run's terminal event, once it is committed."""
        return await self.tabs.until(lambda: self._first(identity, run_id, TERMINAL))

    def _first(self, identity: Identity, run_id: RunId, kinds: set[str]) -> dict[str, Any] | None:
        return next((event for event in self.events(identity, run_id) if event["type"] in kinds), None)


class NoModel:
    def model_for(self, _agent_name: str, _identity: Identity) -> None:
        return None


@asynccontextmanager
async def _owner_bridge(lease, identity, paths):
    yield OwnerBridge(lease)


async def eventually(holds: Callable[[], Any]) -> None:
    """Wait for a state of this process that nothing announces."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.001)


def a_request(agent: str = "metronome", text: str = "count=1", **changes: Any) -> RunRequest:
    message_id = MessageId(new_id())
    request = RunRequest(
        run_id=RunId(new_id()),
        thread_id=ThreadId(new_id()),
        agent=agent,
        text=text,
        message_id=message_id,
        message={"id": message_id, "role": "user", "content": text},
    )
    return dataclasses.replace(request, **changes)


def in_transaction[**P, R](function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    with transaction.atomic():
        return function(*args, **kwargs)


def limits_with(**changes: Any) -> tuple[RunLimits, PlanLimits]:
    """The bounds of runs and the plan of all users, with these changes, wherever each belongs."""
    of_plan = {name: changes.pop(name) for name in list(changes) if name in PlanLimits.__slots__}
    return dataclasses.replace(LIMITS, **changes), dataclasses.replace(PLAN, **of_plan)


@asynccontextmanager
async def open_running_room(publisher: PublisherLimits | None = None, **limits: Any) -> AsyncIterator[RunningRoom]:
    tabs = Tabs()
    log = EventLog(LogLimits(publisher=publisher or PublisherLimits()), tabs)
    async with DatabaseThreads(4) as database:
        room = RunningRoom(database, log, *limits_with(**limits), tabs)
        async with log.open(database, settle=Settlement(), fold=room.notes):
            yield room
