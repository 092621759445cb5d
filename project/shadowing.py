"""How a legacy run is recorded and run again: the one place that knows agents, execution and the rollout at once.

A replay has a context of its own, with the recorded answers in place of a model and tools, and an engine that is not
counted among those of users. It writes nothing.
"""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import partial
from typing import cast

from ag_ui.core import BaseEvent

from apps.agents.base import AgentInput
from apps.agents.recording import RecordedContext, Recorder, Recording, ending_of
from apps.agents.registry import AgentClassRegistry
from apps.agents.replaying import RecordedCalls, ReplayedBelt, ReplayedModel
from apps.agents.tools import Toolbox
from apps.execution.attempt import OpenBridge, OpenEngine
from apps.execution.budget import RunBudget
from apps.execution.context import Grant, UserExecutionContext
from apps.execution.engine import Engine, IsolatedExecutionEngine
from apps.realtime.bridge import RunBridge
from apps.realtime.database import DatabaseThreads
from apps.realtime.values import RunLease
from apps.rollout.adapter import FactoryAdapter, resolve
from apps.rollout.comparison import Comparison, Result, Vote
from apps.rollout.reach import is_shadowed
from apps.rollout.recordings import RecordedWork
from apps.rollout.seams import Seam
from apps.rollout.shadow import Replay, Shadow, ShadowLimits
from apps.vocabulary import Identity, PinnedPaths, UserId
from project.configuration import Configuration

OpenReplay = Callable[[UserExecutionContext], AbstractAsyncContextManager[Engine]]


class RecordedEngine:
    """A legacy engine whose run is taken down; what the run says goes on as it comes."""

    def __init__(self, engine: Engine, recorder: Recorder, offer: Callable[[str], None]) -> None:
        self._engine = engine
        self._recorder = recorder
        self._offer = offer

    async def events(self, task: AgentInput) -> AsyncIterator[BaseEvent]:
        """The engine's events. A run that is stopped from outside is not offered: nobody knows how it would end."""
        self._recorder.begin(task)
        try:
            # An engine's events come from an async generator; only the type of its protocol says less.
            async with aclosing(cast("AsyncGenerator[BaseEvent]", self._engine.events(task))) as events:
                async for event in events:
                    self._recorder.note_event(event)
                    yield event
        except Exception as error:
            self._offer(ending_of(error))
            raise
        self._offer("")


def recording_engine(
    seam: Seam, adapter: FactoryAdapter, shadow: Shadow, database: DatabaseThreads, recording_bytes: int
) -> OpenEngine:
    """Opens the engine of a run on its pinned path; a run on legacy is recorded while its seam is being compared."""

    @asynccontextmanager
    async def open_engine(context: UserExecutionContext, paths: PinnedPaths) -> AsyncIterator[Engine]:
        pin = paths.get(seam.name)
        on_legacy = pin is not None and pin.path == "legacy"
        if not (on_legacy and shadow.wants() and await database.call(is_shadowed, seam)):
            async with adapter.use(seam, context.identity, pin, context) as engine:
                yield engine
            return
        recorder = Recorder(context, recording_bytes)
        async with adapter.use(seam, context.identity, pin, RecordedContext(context, recorder)) as engine:
            yield RecordedEngine(engine, recorder, partial(_offer, shadow, seam.name, recorder))

    return open_engine


def _offer(shadow: Shadow, seam: str, recorder: Recorder, ending: str) -> None:
    def work() -> RecordedWork | None:
        recording = recorder.finished(ending)
        if recording is None:
            return None
        return RecordedWork(recording.user_id, seam, recording.run_id, recording.as_json())

    shadow.offer(work)


def engine_replay(seam: Seam, agents: AgentClassRegistry, toolbox: Toolbox, bounds: Configuration) -> Replay:
    """How a recorded run is run again: by an engine of the factory's kind, and by legacy in an instance of its own."""

    @asynccontextmanager
    async def open_factory(context: UserExecutionContext) -> AsyncIterator[Engine]:
        engine = IsolatedExecutionEngine(context)
        try:
            yield engine
        finally:
            engine.close()

    def live(payload: str) -> Vote:
        recording = Recording.from_json(payload)
        return Vote(recording.events, recording.ending)

    async def run(open_engine: OpenReplay, payload: str) -> Vote:
        recording = Recording.from_json(payload)
        calls = RecordedCalls(recording)
        context = UserExecutionContext(_grant(recording, calls, agents, toolbox, bounds))
        heard = Recorder(context, bounds.recording_bytes)
        task = AgentInput(recording.run_id, recording.thread_id, recording.text, recording.attachments)
        heard.begin(task)
        ending = ""
        try:
            async with (
                context,
                open_engine(context) as engine,
                aclosing(cast("AsyncGenerator[BaseEvent]", engine.events(task))) as events,
            ):
                async for event in events:
                    heard.note_event(event)
                    if heard.given_up:
                        break  # an agent that never waits would go on past every deadline
        except Exception as error:  # noqa: BLE001 - how a replay ends is what is compared
            ending = ending_of(error)
        said = heard.finished(ending)
        if said is None:
            return Vote(ending="it said more than a recording holds")
        return Vote(said.events, ending, calls.diverged, calls.same_but_messages)

    private = partial(run, resolve(seam.private)) if seam.private else None
    return Replay(seam, live, partial(run, open_factory), private)


def _grant(
    recording: Recording,
    calls: RecordedCalls,
    agents: AgentClassRegistry,
    toolbox: Toolbox,
    bounds: Configuration,
) -> Grant:
    identity = Identity(recording.user_id, recording.user_name)
    declarations = toolbox.open_belt(identity, recording.run_id, recording.thread_id).declarations

    @asynccontextmanager
    async def open_tools(*_: object) -> AsyncIterator[ReplayedBelt]:
        yield ReplayedBelt(calls, declarations)

    return Grant(
        identity=identity,
        run_id=recording.run_id,
        thread_id=recording.thread_id,
        agent_name=recording.agent,
        create_agent=partial(agents.create, recording.agent),
        history=recording.history,
        model=ReplayedModel(calls) if recording.has_model else None,
        open_tools=open_tools,
        budget=RunBudget(bounds.model_calls_per_run, bounds.tokens_per_day),
        cleanup_timeout_s=bounds.cleanup_timeout_s,
    )


class ComparedBridge:
    """Legacy's bridge beside the factory's answer, which is the owner: the two sets are compared for each event."""

    def __init__(self, bridge: RunBridge, owner: UserId) -> None:
        self._bridge = bridge
        self._owner = owner
        self._met: Counter[Comparison] = Counter()

    def recipients(self, event_type: str) -> frozenset[UserId]:
        """What legacy says."""
        served = self._bridge.recipients(event_type)
        if served == {self._owner}:
            self._met[Comparison(Result.MATCHED)] += 1
        else:
            self._met[Comparison(Result.LEGACY_WRONG, _wrong_recipients(event_type, served, self._owner))] += 1
        return served

    @property
    def met(self) -> dict[Comparison, int]:
        """How often each result was met."""
        return dict(self._met)


def comparing_bridge(seam: Seam, adapter: FactoryAdapter, shadow: Shadow) -> OpenBridge:
    """Opens the bridge of a run on its pinned path; legacy's recipients are always compared with the factory's."""

    @asynccontextmanager
    async def open_bridge(lease: RunLease, identity: Identity, paths: PinnedPaths) -> AsyncIterator[RunBridge]:
        pin = paths.get(seam.name)
        async with adapter.use(seam, identity, pin, lease) as bridge:
            if pin is None or pin.path != "legacy":
                yield bridge
                return
            compared = ComparedBridge(bridge, lease.user_id)
            try:
                yield compared
            finally:
                shadow.compared(lease.user_id, seam.name, lease.run_id, compared.met)

    return open_bridge


def _wrong_recipients(event_type: str, served: frozenset[UserId], owner: UserId) -> str:
    missing = "" if owner in served else "its owner is left out"
    strangers = "a stranger receives it" if served - {owner} else ""
    return f"recipients of {event_type}: {', '.join(filter(None, (missing, strangers)))}"


def shadow_limits(bounds: Configuration) -> ShadowLimits:
    """What comparing the two paths may take of a process."""
    return ShadowLimits(
        slots=bounds.shadow_slots,
        timeout_s=bounds.shadow_timeout_s,
        waiting=bounds.shadow_waiting,
        queued=bounds.shadow_queued,
        share=bounds.shadow_share,
        kept_minutes=bounds.recording_minutes,
        poll_s=bounds.shadow_poll_s,
        stop_s=bounds.shadow_stop_s,
    )
