"""The positive control: one and the same test of isolation finds a leak with a seam `off`, and none with it
`on`.

Without the first half the second proves nothing: a test that cannot see the leak passes on any path.
"""

import asyncio
from contextlib import AsyncExitStack, aclosing

import pytest
from django.db import connection

from apps.execution.factory import ExecutionEngineFactory
from apps.execution.limits import RunLimits
from apps.realtime.bridge import OwnerBridge
from apps.realtime.values import RunLease
from apps.rollout.adapter import FactoryAdapter
from apps.rollout.stages import Stage
from apps.rollout.testing import override_stage
from project.seams import BRIDGE_SEAM, ENGINE_SEAM, SEAMS
from tests.legacy.agents import asks, context_of

pytestmark = pytest.mark.django_db(transaction=True)

LIMITS = RunLimits(
    queued_runs=9,
    run_slots_per_user=9,
    run_slots=99,
    run_timeout_s=9.0,
    model_calls=8,
    approval_timeout_s=600.0,
    cancel_timeout_s=1.0,
    cleanup_timeout_s=1.0,
    history_messages=9,
    history_bytes=999,
    sweep_s=1.0,
)


@pytest.fixture
def adapter():
    return FactoryAdapter(
        SEAMS,
        bind={ENGINE_SEAM.name: ExecutionEngineFactory(LIMITS).open_engine, BRIDGE_SEAM.name: OwnerBridge},
    )


@pytest.fixture(params=["off", "on"])
def stage(request):
    stage = Stage(request.param)
    with override_stage(ENGINE_SEAM.name, stage), override_stage(BRIDGE_SEAM.name, stage):
        yield stage


def choose(adapter, identity):
    try:
        return adapter.choose_paths(identity)
    finally:
        connection.close()


async def strangers_words(adapter):
    """What of one user another one's agent is given, while both run: the leaks of the engine."""
    async with AsyncExitStack() as stack:
        answers = {}
        runs = []
        for user_id, name in enumerate(("anna", "ben", "chloe"), start=1):
            context = await stack.enter_async_context(context_of(name, user_id, told=f"{name}'s diary"))
            pinned = (await asyncio.to_thread(choose, adapter, context.identity))[ENGINE_SEAM.name]
            engine = await stack.enter_async_context(adapter.use(ENGINE_SEAM, context.identity, pinned, context))
            events = await stack.enter_async_context(aclosing(engine.events(asks(context, f"{name}'s question"))))
            runs.append((name, events))
        for _ in range(2):
            for name, events in runs:
                answers[name] = (await anext(events)).delta
    names = set(answers)
    return {(name, other) for name, said in answers.items() for other in names - {name} if other in said}


async def strangers_reached(adapter):
    """Whom one user's events are sent to besides them, while both run: the leaks of the bridge."""
    async with AsyncExitStack() as stack:
        bridges = []
        for user_id, name in enumerate(("anna", "ben", "chloe"), start=1):
            async with context_of(name, user_id) as context:
                lease = RunLease(context.run_id, context.thread_id, context.identity.user_id, fence=1)
                pinned = (await asyncio.to_thread(choose, adapter, context.identity))[BRIDGE_SEAM.name]
                used = adapter.use(BRIDGE_SEAM, context.identity, pinned, lease)
                bridges.append((user_id, await stack.enter_async_context(used)))
        return {
            (owner, reached)
            for owner, bridge in bridges
            for reached in bridge.recipients("TEXT_MESSAGE_CONTENT") - {owner}
        }


async def test_agents_are_given_other_users_words_with_the_engine_off_and_never_with_it_on(adapter, stage):
    leaks = await strangers_words(adapter)
    assert bool(leaks) is (stage is Stage.OFF), leaks


async def test_events_reach_other_users_with_the_bridge_off_and_never_with_it_on(adapter, stage):
    leaks = await strangers_reached(adapter)
    assert bool(leaks) is (stage is Stage.OFF), leaks


async def test_a_new_installation_is_on_the_safe_path(adapter):
    assert await strangers_words(adapter) == await strangers_reached(adapter) == set()
