"""An event loop that stands still is reported, once, with the run that blocks it."""

import asyncio
import logging
import threading
import time

import pytest

from apps.execution.watchdog import LoopWatchdog

STALL_S = 0.05


def block_until_reported(records):
    """Block the loop's thread until the watchdog has said so."""
    deadline = time.monotonic() + 20
    while not [record for record in records if record.levelno == logging.ERROR]:
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def test_the_task_that_blocks_is_named_with_the_lines_where_it_stands_and_the_loops_return_is_told(caplog):
    watchdog = LoopWatchdog(STALL_S)

    async def agent():
        block_until_reported(caplog.records)

    async with watchdog.open():
        await asyncio.create_task(agent(), name="agent of run 0198")
        async with asyncio.timeout(20):
            while len(caplog.records) < 2:  # noqa: ASYNC110 - nothing announces a log record
                await asyncio.sleep(0.005)
    stall, over = [record.getMessage() for record in caplog.records[:2]]
    assert "task 'agent of run 0198'" in stall
    assert "in block_until_reported" in stall
    assert "goes on" in over
    assert watchdog.census()["stalls_total"] == 1
    assert watchdog.census()["longest_stall_ms"] >= STALL_S * 1_000


async def test_a_loop_at_work_is_not_reported_and_the_watchdog_leaves_nothing_behind(caplog):
    before = threading.active_count()
    async with LoopWatchdog(5.0).open():
        assert threading.active_count() > before
        for _ in range(100):
            await asyncio.sleep(0)
    assert caplog.records == []
    assert "turnout-watchdog" not in {thread.name for thread in threading.enumerate()}
    assert "watchdog" not in {task.get_name() for task in asyncio.all_tasks()}


@pytest.mark.parametrize("frames", [0, 200])
async def test_a_record_is_bounded_however_deep_the_stack_is(caplog, frames):
    def deep(left):
        if left:
            deep(left - 1)
        else:
            block_until_reported(caplog.records)

    async with LoopWatchdog(STALL_S).open():
        deep(frames)
    assert len(caplog.records[0].getMessage().splitlines()) <= 13
