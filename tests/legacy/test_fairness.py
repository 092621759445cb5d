"""Beside the fair claim: the old engine's one semaphore, for the same fifty runs of one user and twenty of others."""

import asyncio

from apps.agents.base import AgentInput
from apps.legacy.engine import SLOTS, ExecutionEngine
from tests.legacy.agents import context_of


async def test_under_the_old_semaphore_twenty_users_wait_until_one_users_fifty_runs_are_nearly_done():
    engine = ExecutionEngine()
    begun: list[int] = []
    may_end: list[asyncio.Event] = []
    changed = asyncio.Event()

    async def run(user_id: int) -> None:
        bound = engine.bind(context_of(f"user {user_id}", user_id))
        async for _ in bound.events(AgentInput(bound._context.run_id, bound._context.thread_id, "hello")):
            begun.append(user_id)
            may_end.append(asyncio.Event())
            changed.set()
            await may_end[-1].wait()
            return

    tasks = [asyncio.create_task(run(user_id)) for user_id in [1] * 50 + list(range(2, 22))]
    for came_free in range(len(tasks)):
        while len(begun) < min(SLOTS + came_free, len(tasks)):
            changed.clear()
            await changed.wait()
        may_end[came_free].set()
    await asyncio.gather(*tasks)
    # Whoever began as the n-th (from 0) waited until n - SLOTS + 1 slots came free: 41 to 60 for each of the twenty.
    assert begun == [1] * 50 + list(range(2, 22))
