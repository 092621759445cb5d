"""Replays what legacy finished on the factory, after the fact and out of everyone's way.

Work is done by threads of its own, each with an event loop for one replay at a time: a factory that blocks, or hangs
and ignores that it is cancelled, costs its thread and nobody's run. What a user waits for is one `put` into a bounded
queue; when that is full, or the process is busy, the shadow is the first to be left out, and says how often.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from django.db import DatabaseError, connections, transaction

from apps.rollout import mismatches
from apps.rollout.comparison import Comparison, Result, Vote, decide
from apps.rollout.mismatches import ComparisonCount
from apps.rollout.recordings import RecordedWork, Recording
from apps.rollout.seams import Seam
from apps.vocabulary import UserId, new_id

logger = logging.getLogger(__name__)

_HOUSEKEEPING_EVERY = 50  # turns of a thread


@dataclass(frozen=True, slots=True)
class Replay:
    """How the work of one seam is done again, from its payload: what it said, and the same on two other paths.

    `private` is legacy in an instance of its own; None where it cannot be had.
    """

    seam: Seam
    live: Callable[[str], Vote]
    factory: Callable[[str], Awaitable[Vote]]
    private: Callable[[str], Awaitable[Vote]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowLimits:
    """What the shadow may take."""

    slots: int  # replays at a time in one process
    timeout_s: float  # for one replay on one path
    waiting: int  # recordings of all processes that wait
    queued: int  # finished work of one process on its way to a row
    share: float  # of legacy's work that is recorded, 0 to 1
    kept_minutes: float  # an older recording is thrown away
    poll_s: float  # between two looks for what other processes left
    stop_s: float  # for what is under way, when the process ends


class Shadow:
    """`async with Shadow(...)`: runs from entering to leaving. `offer` and `wants` may be called from any thread.

    `is_busy` says whether users need the process for themselves; `chance` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        replays: Mapping[str, Replay],
        limits: ShadowLimits,
        is_busy: Callable[[], bool],
        chance: Callable[[], float],
    ) -> None:
        self._name = new_id()  # under which it takes recordings
        self._replays = replays
        self._limits = limits
        self._is_busy = is_busy
        self._chance = chance
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(limits.queued)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._counts: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        for number in range(self._limits.slots):
            # A daemon: a replay that blocks for ever must not keep the process from ending.
            thread = threading.Thread(target=self._work, name=f"shadow-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for _ in self._threads:
            try:
                self._queue.put_nowait(None)
            except queue.Full:
                break  # then no thread waits, and each looks at the event before it goes on
        await asyncio.to_thread(self._join)

    def __repr__(self) -> str:
        return f"<Shadow waiting={self._queue.qsize()} replayed={self._counts['replayed']} shed={self._counts['shed']}>"

    def census(self) -> Mapping[str, int]:
        """Counts for the process report."""
        names = ("recorded", "replayed", "timed_out", "shed", "failed")
        at_work = self._counts["begun"] - self._counts["done"]
        return {"replaying": at_work} | {f"{name}_total": self._counts[name] for name in names}

    # -- from a run

    def wants(self) -> bool:
        """Whether the work that begins now should be recorded: drawn by lot, and never while users need the process."""
        if self._chance() >= self._limits.share:
            return False
        if self._is_busy() or self._queue.full():
            self._counts["shed"] += 1
            return False
        return True

    def offer(self, work: Callable[[], RecordedWork | None]) -> None:
        """Take what was recorded; `work` is called by a thread of the shadow. Never waits, and may throw it away."""
        self._put(lambda: self._keep(work))

    def compared(self, user_id: UserId, seam: str, work_id: str, found: Mapping[Comparison, int]) -> None:
        """Take results that needed no replay, with how often each was met. Never waits."""

        def store() -> None:
            with transaction.atomic():
                for comparison, number in found.items():
                    mismatches.record(user_id, seam, work_id, comparison, number)

        if found:
            self._put(store)

    def _put(self, job: Callable[[], None]) -> None:
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            self._counts["shed"] += 1

    # -- in the threads

    def _join(self) -> None:
        deadline = time.monotonic() + self._limits.stop_s
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
            if thread.is_alive():
                logger.error("%s is stuck in a replay and ends with the process", thread.name)

    def _work(self) -> None:
        turns = 0
        try:
            while not self._stopping.is_set():
                try:
                    job = self._queue.get(timeout=self._limits.poll_s)
                except queue.Empty:
                    job = self._replay_all
                if job is not None and not self._stopping.is_set():
                    self._attempt(job)
                turns += 1
                if turns % _HOUSEKEEPING_EVERY == 0:
                    self._attempt(self._tidy)
        finally:
            connections.close_all()

    def _attempt(self, job: Callable[[], None]) -> None:
        try:
            job()
        except DatabaseError as error:
            self._counts["failed"] += 1
            logger.warning("the shadow cannot use the database: %s", error)
        except Exception:
            self._counts["failed"] += 1
            logger.exception("the shadow failed; no run has noticed")
        finally:
            for connection in connections.all(initialized_only=True):
                connection.close_if_unusable_or_obsolete()

    def _keep(self, made: Callable[[], RecordedWork | None]) -> None:
        work = made()
        if work is None or not Recording.objects.keep(work, self._limits.waiting):
            self._counts["shed"] += 1
            return
        self._counts["recorded"] += 1
        self._replay_all()

    def _replay_all(self) -> None:
        while not self._stopping.is_set() and not self._is_busy():
            row = Recording.objects.take(self._name, 10 * self._limits.timeout_s)
            if row is None:
                return
            self._replay(row)

    def _replay(self, row: Recording) -> None:
        self._counts["begun"] += 1
        try:
            replay = self._replays.get(row.seam)
            found = None if replay is None else asyncio.run(self._votes(replay, row.payload))
        except Exception:
            Recording.objects.filter(pk=row.pk).delete()  # nobody can replay it; it must not come back
            raise
        finally:
            self._counts["done"] += 1
        self._counts["replayed"] += 1
        with transaction.atomic():
            # A row that is gone went with its user, and what was found of them goes too.
            gone = not Recording.objects.filter(pk=row.pk).delete()[0]
            if found is not None and not gone:
                mismatches.record(row.work.user_id, row.seam, row.work_id, found)

    async def _votes(self, replay: Replay, payload: str) -> Comparison:
        live, compare = replay.live(payload), replay.seam.compare
        factory = await self._vote(replay.factory, payload)
        found = decide(live, None, factory, compare)
        if found.result is Result.MATCHED or replay.private is None:
            return found  # the third vote would change nothing
        return decide(live, await self._vote(replay.private, payload), factory, compare)

    async def _vote(self, path: Callable[[str], Awaitable[Vote]], payload: str) -> Vote:
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await path(payload)
        except TimeoutError:
            self._counts["timed_out"] += 1
            return Vote(ending=f"no end in {self._limits.timeout_s:g} s")
        except Exception as error:  # noqa: BLE001 - what a path raises is how it ends
            return Vote(ending=type(error).__name__)

    def _tidy(self) -> None:
        Recording.objects.drop_older_than(self._limits.kept_minutes)
        ComparisonCount.objects.drop_old()
