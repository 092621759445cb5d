import asyncio
import subprocess
import sys
import time
from itertools import islice

import pytest

from apps.agents.base import AgentInputError
from apps.agents.faulty import EXIT_STATUS, MODES, DeliberateFault, FaultyAgent
from apps.agents.tools import ToolBeltClosed
from tests.agents.worlds import World, left_open, text_of, types


async def test_raise_raises_after_n_good_deltas():
    world, events = World(), []

    async def collect():
        async for event in FaultyAgent().run(world, world.task("mode=raise after=4")):
            events.append(event)  # noqa: PERF401 - a list that outlives the exception

    with pytest.raises(DeliberateFault, match="hunter2"):
        await collect()
    assert text_of(events) == "0 1 2 3 "


async def test_hang_goes_no_further_and_ends_when_it_is_cancelled():
    world, events = World(), []
    third = asyncio.Event()

    async def consume():
        async for event in FaultyAgent().run(world, world.task("mode=hang after=3")):
            events.append(event)
            if text_of(events) == "0 1 2 ":
                third.set()

    task = asyncio.create_task(consume())
    await third.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert text_of(events) == "0 1 2 "


async def test_flood_never_ends_by_itself_and_lets_others_run():
    world, others_ran = World(), 0

    async def other():
        nonlocal others_ran
        while True:
            others_ran += 1
            await asyncio.sleep(0)

    other_task = asyncio.create_task(other())
    flood, taken = FaultyAgent().run(world, world.task("mode=flood after=0")), 0
    async for _ in flood:
        taken += 1
        if taken == 5_000:
            break
    await flood.aclose()
    other_task.cancel()
    assert others_ran > 1_000


async def test_garbage_breaks_the_grammar():
    events = await World().events(FaultyAgent(), "mode=garbage after=1")
    assert types(events).count("RUN_FINISHED") == 2
    with pytest.raises((AssertionError, KeyError)):
        left_open(events)


async def test_leak_leaves_a_message_a_tool_call_and_a_task_that_uses_closed_tools():
    class QuickLeak(FaultyAgent):
        leak_s = 0.0

    world = World()
    events = await world.events(QuickLeak(), "mode=leak")
    assert len(left_open(events)) == 2
    (left,) = (task for task in asyncio.all_tasks() if task.get_name() == f"leak-{world.run_id}")
    world.tools.close()
    with pytest.raises(ToolBeltClosed):
        await left


async def test_block_loop_stands_still_for_everyone():
    class ShortBlock(FaultyAgent):
        block_s = 0.05

    started = time.monotonic()
    events = await World().events(ShortBlock(), "mode=block_loop after=1")
    assert time.monotonic() - started >= 0.05
    assert left_open(events) == set()


def test_exit_ends_the_process_without_clean_up():
    program = (
        "import asyncio\n"
        "from tests.agents.worlds import World\n"
        "from apps.agents.faulty import FaultyAgent\n"
        "async def main():\n"
        "    try:\n"
        "        await World().events(FaultyAgent(), 'mode=exit after=1')\n"
        "    finally:\n"
        "        print('cleaned up')\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (EXIT_STATUS, ""), ended.stderr


@pytest.mark.parametrize("text", ["", "mode=explode", "after=3"])
async def test_an_unknown_mode_is_answered_with_the_modes_that_there_are(text):
    with pytest.raises(AgentInputError) as caught:
        await World().events(FaultyAgent(), text)
    assert all(mode in caught.value.public_message for mode in islice(MODES, 7))
