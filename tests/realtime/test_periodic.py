"""A look that fails does not end all later looks, and none outlives its owner."""

import asyncio

from apps.realtime.periodic import Periodic


async def test_a_failing_turn_is_counted_and_the_next_comes(caplog):
    turns = []
    enough = asyncio.Event()

    async def turn():
        turns.append(len(turns))
        if len(turns) == 1:
            raise ValueError("first")
        if len(turns) >= 3:
            enough.set()

    async with Periodic("look", 0.001, turn) as periodic:
        await asyncio.wait_for(enough.wait(), 5)
    assert periodic.failures == 1
    assert "look failed" in caplog.text
    after = len(turns)
    assert periodic._task is not None
    assert periodic._task.done()
    assert len(turns) == after
