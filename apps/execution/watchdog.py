"""Names what blocks the event loop: the task, and by its name the run, with the lines where it stands.

A loop that stands still cannot say so itself. So it beats, and a thread looks at the beat; while it is late, the thread
reads the stack of the loop's thread. One record when a stall is noticed, one when it is over: an agent that blocks for
an hour costs two.
"""

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from time import monotonic

logger = logging.getLogger(__name__)

FRAMES = 12  # of the stack, the innermost
LOOKS_PER_STALL = 4  # so the record comes at most a quarter later


class LoopWatchdog:
    """One a process. A loop that does not beat for `stall_s` seconds is reported, once for each time."""

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._beat_at = monotonic()
        self._stopping = threading.Event()
        self._stalls = 0
        self._longest_ms = 0

    def __repr__(self) -> str:
        return f"<LoopWatchdog stalls={self._stalls} longest={self._longest_ms} ms>"

    @asynccontextmanager
    async def open(self) -> AsyncIterator["LoopWatchdog"]:
        """Watch the running loop until the block is left."""
        loop = asyncio.get_running_loop()
        self._beat_at = monotonic()
        beat = asyncio.create_task(self._beat(), name="watchdog")
        thread = threading.Thread(
            target=self._watch, args=(loop, threading.get_ident()), name="turnout-watchdog", daemon=True
        )
        thread.start()
        try:
            yield self
        finally:
            beat.cancel()
            self._stopping.set()
            await asyncio.to_thread(thread.join)
            await asyncio.wait({beat})

    def census(self) -> Mapping[str, int]:
        """Counts for the process report."""
        return {"stalls_total": self._stalls, "longest_stall_ms": self._longest_ms}

    async def _beat(self) -> None:
        while True:
            self._beat_at = monotonic()
            await asyncio.sleep(self._stall_s / LOOKS_PER_STALL)

    def _watch(self, loop: asyncio.AbstractEventLoop, loop_thread: int) -> None:
        stalled_since: float | None = None
        while not self._stopping.wait(self._stall_s / LOOKS_PER_STALL):
            beat_at = self._beat_at
            if monotonic() - beat_at < self._stall_s:
                if stalled_since is not None:
                    self._over(beat_at - stalled_since)
                    stalled_since = None
            elif stalled_since is None:
                stalled_since = beat_at
                self._stalls += 1
                task, stack = _blocking_task(loop), _stack_of(loop_thread)
                logger.error("the event loop stands still for over %g s in task %r:\n%s", self._stall_s, task, stack)

    def _over(self, stalled_s: float) -> None:
        self._longest_ms = max(self._longest_ms, round(stalled_s * 1_000))
        logger.warning("the event loop goes on; it stood still for %.1f s", stalled_s)


def _blocking_task(loop: asyncio.AbstractEventLoop) -> str:
    """The name of the task that the loop is in; of a run's agent it holds the run's id."""
    task = asyncio.current_task(loop)
    return "none, but a callback" if task is None else task.get_name()


def _stack_of(thread: int) -> str:
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - the interpreter's documented way
    if frame is None:
        return "  (the thread has ended)"
    lines = traceback.extract_stack(frame)[-FRAMES:]
    # Where, and not the source line: that of an agent made at run time may hold anything.
    return "\n".join(f"  {line.filename}:{line.lineno} in {line.name}" for line in lines)
