"""Legacy runs of real agents, recorded and run again; and a server at `shadow` whose users notice nothing."""

import asyncio
import sqlite3
from contextlib import aclosing, closing, suppress

import pytest

from apps.agents.base import AgentFailure
from apps.agents.builtin_tools import builtin_tools
from apps.agents.recording import RecordedContext, Recorder
from apps.agents.registry import build_registry
from apps.agents.tools import Toolbox
from apps.execution.budget import RunBudget
from apps.execution.context import Grant, UserExecutionContext
from apps.legacy.engine import ExecutionEngine
from apps.rollout.comparison import Result, decide, same
from apps.vocabulary import Identity, RunId, ThreadId, UserId, new_id
from project.configuration import Configuration
from project.seams import ENGINE_SEAM
from project.shadowing import ComparedBridge, RecordedEngine, engine_replay
from tests.legacy.agents import Parrot, asks
from tests.socket_client import Client

SIZE = 200_000


@pytest.fixture
def agents():
    registry = build_registry(["tests.legacy.agents.Parrot", "tests.legacy.agents.Diarist"], faulty_allowed=True)
    assert "parrot" in {agent.name for agent in registry.describe()}
    return registry


@pytest.fixture
def toolbox():
    return Toolbox(builtin_tools())


@pytest.fixture
def replay(agents, toolbox):
    return engine_replay(ENGINE_SEAM, agents, toolbox, Configuration(recording_bytes=SIZE))


def context_of(agents, toolbox, agent, user_id=1):
    return UserExecutionContext(
        Grant(
            identity=Identity(UserId(user_id), f"user{user_id}"),
            run_id=RunId(new_id()),
            thread_id=ThreadId(new_id()),
            agent_name=agent,
            create_agent=lambda: agents.create(agent),
            history=(),
            model=None,
            open_tools=toolbox.open_belt,
            budget=RunBudget(8, 100_000),
            cleanup_timeout_s=1.0,
        )
    )


async def live_run(engine, agents, toolbox, agent, text, *, user_id=1, events_at_most=10_000):
    """One run on the given legacy engine; the payload of its recording, None if it was not offered."""
    offered = []
    async with context_of(agents, toolbox, agent, user_id) as context:
        recorder = Recorder(context, SIZE)
        bound = engine.bind(RecordedContext(context, recorder))
        recorded = RecordedEngine(bound, recorder, lambda ending: offered.append(recorder.finished(ending)))
        async with aclosing(recorded.events(asks(context, text))) as events:
            with suppress(RuntimeError, AgentFailure):  # the agents' own, which end the run
                async for _ in events:
                    events_at_most -= 1
                    if not events_at_most:
                        break
        engine.release(context)
    return offered[0].as_json() if offered else None


async def compared(replay, payload):
    return decide(replay.live(payload), await replay.private(payload), await replay.factory(payload))


@pytest.mark.parametrize(
    ("agent", "text"),
    [
        ("metronome", "count=5 interval_ms=0 tag=x"),
        ("metronome", "count=many"),
        ("assistant", "what is 17 * 23?"),
        ("supervisor", "@metronome count=2 interval_ms=0 tag=y"),
        ("faulty", "mode=raise after=2"),
    ],
)
async def test_a_run_that_was_alone_says_the_same_on_all_paths(agents, toolbox, replay, agent, text):
    payload = await live_run(ExecutionEngine(), agents, toolbox, agent, text)
    assert (await compared(replay, payload)).result is Result.MATCHED
    assert same(replay.live(payload), await replay.private(payload))


async def test_what_the_singleton_told_a_user_of_another_is_found_and_blamed_on_legacy(agents, toolbox, replay):
    engine = ExecutionEngine()
    await live_run(engine, agents, toolbox, "diarist", "the diary of user 2", user_id=2)
    payload = await live_run(engine, agents, toolbox, "diarist", "and mine?")
    found = await compared(replay, payload)
    assert (found.result, "the diary of user 2" in found.diff) == (Result.LEGACY_WRONG, True)


async def test_a_factory_that_says_something_else_is_a_mismatch(agents, toolbox, replay, monkeypatch):
    payload = await live_run(ExecutionEngine(), agents, toolbox, "metronome", "count=3 interval_ms=0 tag=x")
    other = payload.replace("count=3", "count=4")
    assert decide(replay.live(payload), await replay.private(payload), await replay.factory(other)).result is (
        Result.MISMATCHED
    )


async def test_a_run_that_was_stopped_from_outside_is_not_replayed(agents, toolbox):
    assert await live_run(ExecutionEngine(), agents, toolbox, "metronome", "count=9", events_at_most=2) is None


async def test_an_agent_that_talks_without_end_ends_its_own_replay(agents, toolbox, replay):
    payload = await live_run(ExecutionEngine(), agents, toolbox, "metronome", "count=1 interval_ms=0 tag=x")
    endless = payload.replace('"metronome"', '"parrot"')
    assert Parrot.name in endless
    async with asyncio.timeout(20):
        vote = await replay.factory(endless)
    assert vote.ending == "it said more than a recording holds"


class Bridge:
    def __init__(self, *answers):
        self.answers = iter(answers)

    def recipients(self, event_type):
        return frozenset(next(self.answers))


def test_the_recipients_of_each_event_are_compared_and_those_of_legacy_are_given():
    bridge = ComparedBridge(Bridge({1}, {1, 2}, {2}, {1}), UserId(1))
    given = [bridge.recipients("TEXT_MESSAGE_CONTENT") for _ in range(4)]
    assert given == [{1}, {1, 2}, {2}, {1}]
    assert {(found.result.value, found.shape): number for found, number in bridge.met.items()} == {
        ("matched", ""): 2,
        ("legacy_wrong", "recipients of TEXT_MESSAGE_CONTENT: a stranger receives it"): 1,
        ("legacy_wrong", "recipients of TEXT_MESSAGE_CONTENT: its owner is left out, a stranger receives it"): 1,
    }


def counts(server):
    with closing(sqlite3.connect(server.database)) as database:
        rows = database.execute("SELECT seam, result, number FROM rollout_comparisoncount").fetchall()
        waiting = database.execute("SELECT COUNT(*) FROM rollout_recording").fetchone()[0]
    return {(seam, result): number for seam, result, number in rows}, waiting


async def test_at_shadow_legacy_serves_the_factory_replays_and_the_bridges_leak_becomes_a_number(server):
    moved = [server.manage("move_stage", seam, "shadow", "--reason", "compare") for seam in SEAM_NAMES]
    assert [done.returncode for done in moved] == [0, 0], moved
    clients = [Client(server.url, server.ws_url, token) for token in server.tokens(["anna", "ben"]).values()]

    async def two_runs(client):
        thread_id = await client.new_thread()
        async with client.connected():
            for text in ("count=20 interval_ms=10 tag=x", "count=3 interval_ms=0 tag=y"):
                await client.until_ended(await client.run(thread_id, text))
            await barrier.wait()

    barrier = asyncio.Barrier(2)
    await asyncio.gather(*map(two_runs, clients))
    async with asyncio.timeout(20):
        while sum(n for (seam, _), n in counts(server)[0].items() if seam == "execution_engine") < 4:
            await asyncio.to_thread(counts, server)
    found, waiting = counts(server)
    assert {result for seam, result in found if seam == "execution_engine"} == {"matched"}
    assert found["websocket_bridge", "legacy_wrong"] > 0
    assert waiting == 0


SEAM_NAMES = ("execution_engine", "websocket_bridge")
