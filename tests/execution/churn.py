"""Runs that come and go in numbers: of all kinds, three in ten cancelled, and what the process holds between rounds."""

import asyncio
import gc
import logging
import os
import threading
from dataclasses import dataclass
from random import Random

from apps.agents.faulty import FaultyAgent
from apps.execution.context import UserExecutionContext
from apps.vocabulary import Identity, UserId
from tests.execution.running_room import RunningRoom, eventually

CANCELLED_SHARE = 0.3
RUNS_AT_ONCE = 40
# Those that do not end by themselves are cancelled always, and beside them three in ten of the others.
KINDS = (
    ("metronome", "count=5 interval_ms=1"),
    ("metronome", "count=40 interval_ms=0"),
    ("tidy", ""),
    ("choosy", ""),
    ("exiting", ""),
    *(("faulty", f"mode={mode} after=1") for mode in ("raise", "garbage", "hang", "leak", "flood", "block_loop")),
)
ENDLESS = ("mode=hang", "mode=flood")
USERS = [Identity(UserId(number), f"user {number}") for number in range(1, 21)]


@dataclass(frozen=True)
class Held:
    """What a process holds that should be given back."""

    engines: int
    running: int
    left_behind: int
    contexts: int
    tasks: int
    threads: int
    descriptors: int


def held(room: RunningRoom) -> Held:
    gc.collect()
    assert room.executor is not None
    census = room.executor.census()
    return Held(
        engines=room.engines.live,
        running=census["running"],
        left_behind=census["left_behind"],
        contexts=sum(type(thing) is UserExecutionContext for thing in gc.get_objects()),
        tasks=len(asyncio.all_tasks()),
        threads=threading.active_count(),
        descriptors=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - numbers, not paths
    )


async def churn(room: RunningRoom, random: Random) -> int:
    """Start many runs at once, cancel some, and return when all have ended. How many were cancelled."""
    room.tabs.entries.clear()
    room.notes.ended.clear()
    cancelled = 0

    async def one(identity: Identity) -> None:
        nonlocal cancelled
        agent, text = random.choice(KINDS)
        run_id = await room.start(identity, agent, text)
        endless = agent == "tidy" or text.startswith(ENDLESS)
        if endless or random.random() < CANCELLED_SHARE:
            stopped = await cancel(room, identity, run_id)
            cancelled += stopped  # read after the wait: many runs count here
        await room.ended(identity, run_id)

    await asyncio.gather(*(one(random.choice(USERS)) for _ in range(RUNS_AT_ONCE)))
    assert room.executor is not None
    executor = room.executor
    await eventually(lambda: not executor.census()["running"] and not executor.census()["left_behind"])
    return cancelled


async def cancel(room: RunningRoom, identity: Identity, run_id: str) -> int:
    try:
        await room.cancel(identity, run_id)
    except Exception as error:  # noqa: BLE001 - it had ended before
        assert "run_finished" in str(error), error  # noqa: PT017 - any other refusal is a failure
        return 0
    return 1


def be_quick(monkeypatch) -> None:
    """Faults that block the loop, or leave a task behind, do so for a moment; and pytest keeps no record of failures,
    whose tracebacks would keep the contexts of their runs.
    """
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    logging.root.manager._clear_cache()  # a logger remembers whether a level is enabled, until it is told to forget
    monkeypatch.setattr(FaultyAgent, "block_s", 0.01)
    monkeypatch.setattr(FaultyAgent, "leak_s", 0.01)
