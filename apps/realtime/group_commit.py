"""The one writer of a process: gathers what all runs have waiting and commits it together, in its own thread.

Everything is decided on the event loop; the thread only executes. Per commit there is one hop to the thread and one
back, whatever the number of events, and publishers need no locks. The time between two commits adapts: about eight
times the smoothed cost of a flush. An idle log commits at once; a busy one makes fewer, larger transactions.

A user whose rows somebody else holds is passed over by the commit of all, and goes first and alone into the next one,
which waits for these rows, but not for long: everybody else waits with it.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from django.db import Error

from apps.realtime.commit import Batch, CommitResult, Committer, Outcome
from apps.realtime.database import DatabaseThreads
from apps.vocabulary import RunId

logger = logging.getLogger(__name__)

_SMOOTHING = 0.2  # weight of the newest flush in the smoothed cost
_COST_FACTOR = 8  # the writer is at work for about an eighth of the time
_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 1.0
_HELD_RETRY_S = 0.01  # the second look at rows that are held; the first is at once
_HELD_TRIES_AT_THE_END = 8  # when the log closes; whoever recovers the run ends it then


@dataclass(frozen=True, slots=True)
class FlushLimits:
    """The shortest and longest time between two commits, in milliseconds, and a user's share of each.

    `held_wait_ms` is how long a commit may wait for a row that somebody else holds, when nobody else is in it.
    """

    window_min_ms: float = 2.0
    window_max_ms: float = 40.0
    events_per_user: int = 256
    bytes_per_user: int = 262_144
    held_wait_ms: float = 20.0


@dataclass(slots=True)
class _Held:
    """One user's batches that were passed over, and when they are tried again."""

    frozen: list[tuple["Appender", Batch]]
    due: float
    pause_s: float = _HELD_RETRY_S
    tries: int = 0


def _unmeasured(_seconds: float) -> None:
    """Nobody asks how long commits take."""


class Appender(Protocol):
    """A run that has events waiting."""

    @property
    def run_id(self) -> RunId: ...
    @property
    def user_id(self) -> int: ...

    def freeze(self, max_events: int, max_bytes: int) -> Batch | None:
        """Hand over the next batch, at most that large (one event at least); None when nothing waits."""
        ...

    def committed(self, batch: Batch, outcome: Outcome) -> None:
        """Learn what became of the batch."""
        ...

    def refused(self, error: Exception) -> None:
        """Learn that what waited, or the batch that was frozen, cannot be written."""
        ...


class GroupCommit:
    """Owns the writer's thread and the task that feeds it. On the loop, after each commit, `announce` is called, and
    `took_s` with the seconds from when the batches were handed over until they were stored, retries included.
    """

    def __init__(
        self,
        committer: Committer,
        limits: FlushLimits,
        announce: Callable[[CommitResult], None],
        took_s: Callable[[float], object] = _unmeasured,
    ) -> None:
        self._committer = committer
        self._limits = limits
        self._announce = announce
        self._took_s = took_s
        self._thread = DatabaseThreads(1)
        self._waiting: dict[RunId, Appender] = {}
        self._held: dict[int, _Held] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._smoothed_cost_s = 0.0
        self._next_flush = 0.0
        self._closing = False
        self.commits = 0
        self.retries = 0
        self.passed_over = 0

    async def __aenter__(self) -> Self:
        await self._thread.__aenter__()
        self._task = asyncio.create_task(self._feed(), name="group-commit")
        self._task.add_done_callback(_report_death)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._closing = True
        self._wake.set()
        try:
            await self._task
        finally:
            await self._thread.__aexit__(kind, error, trace)

    @property
    def is_alive(self) -> bool:
        """Whether what is marked will be committed."""
        return self._task is not None and not self._task.done()

    @property
    def window_s(self) -> float:
        """The present time between two commits, in seconds."""
        adapted = _COST_FACTOR * self._smoothed_cost_s
        return min(max(adapted, self._limits.window_min_ms / 1000), self._limits.window_max_ms / 1000)

    def mark(self, appender: Appender) -> None:
        """Say that this run has something waiting."""
        self._waiting[appender.run_id] = appender
        self._wake.set()

    async def _feed(self) -> None:
        while not (self._closing and not self._waiting and not self._held):
            await self._until_due()
            user_id = min(self._held, key=lambda user_id: self._held[user_id].due, default=None)
            if user_id is not None and self._held[user_id].due <= time.monotonic():
                await self._flush_held(user_id, self._held.pop(user_id))
            if frozen := self._freeze():
                await self._flush(frozen)

    async def _until_due(self) -> None:
        """Return when there is something to commit, and it may be."""
        while not self._waiting:
            if self._closing and not self._held:
                return
            self._wake.clear()
            pause = min((held.due for held in self._held.values()), default=math.inf) - time.monotonic()
            if pause <= 0:
                return
            try:
                async with asyncio.timeout(None if pause == math.inf else pause):
                    await self._wake.wait()
            except TimeoutError:
                return
        if not self._closing and (pause := self._next_flush - time.monotonic()) > 0:
            await asyncio.sleep(pause)

    def _freeze(self) -> list[tuple[Appender, Batch]]:
        frozen: list[tuple[Appender, Batch]] = []
        share: dict[int, tuple[int, int]] = {}
        for appender in list(self._waiting.values()):
            events, size = share.get(appender.user_id, (self._limits.events_per_user, self._limits.bytes_per_user))
            if events <= 0 or size <= 0:
                continue  # stays marked; the user's share of this commit is used up
            batch = _frozen_batch(appender, events, size)
            del self._waiting[appender.run_id]
            if batch is None:
                continue
            self._waiting[appender.run_id] = appender  # behind the user's other runs, which take their share first
            frozen.append((appender, batch))
            share[appender.user_id] = (
                events - len(batch.events),
                size - sum(event.size for event in batch.events),
            )
        return frozen

    async def _flush(self, frozen: Sequence[tuple[Appender, Batch]]) -> None:
        started = time.monotonic()
        result = await self._until_known(self._committer.commit, [batch for _, batch in frozen])
        cost = time.monotonic() - started
        self._smoothed_cost_s += _SMOOTHING * (cost - self._smoothed_cost_s)
        self._next_flush = started + self.window_s
        self._took_s(cost)
        for appender, batch in self._deliver(frozen, result):
            self.passed_over += 1
            held = self._held.setdefault(appender.user_id, _Held([], due=0.0))
            held.frozen.append((appender, batch))

    async def _flush_held(self, user_id: int, held: _Held) -> None:
        commit = partial(self._committer.commit_alone, patience_s=self._limits.held_wait_ms / 1000)
        result = await self._until_known(commit, [batch for _, batch in held.frozen])
        held.frozen = self._deliver(held.frozen, result)
        held.tries += 1
        if held.frozen and self._closing and held.tries >= _HELD_TRIES_AT_THE_END:
            for appender, _ in held.frozen:
                appender.refused(TimeoutError("somebody holds its rows"))
        elif held.frozen:
            held.due = time.monotonic() + held.pause_s
            held.pause_s = min(2 * held.pause_s, _LAST_RETRY_S)
            self._held[user_id] = held

    def _deliver(self, frozen: Sequence[tuple[Appender, Batch]], result: CommitResult) -> list[tuple[Appender, Batch]]:
        """Show what is stored and tell each run what became of its batch; returns those that were passed over."""
        self.commits += 1
        try:
            self._announce(result)
        except Exception:
            # It is stored: tabs find it by the poll of heads. The writer serves everybody else.
            logger.exception("%d pages could not be shown", len(result.pages))
        for appender, batch in frozen:
            if appender.run_id in result.outcomes:
                appender.committed(batch, result.outcomes[appender.run_id])
        return [(appender, batch) for appender, batch in frozen if appender.run_id in result.held]

    async def _until_known(
        self, commit: Callable[[Sequence[Batch]], CommitResult], batches: Sequence[Batch]
    ) -> CommitResult:
        # While the database is away the batches wait here, their publishers are full, and the agents wait for them: an
        # outage costs time, never events, and no memory beyond the publishers' bounds.
        pause = _FIRST_RETRY_S
        while True:
            try:
                return await self._thread.call(commit, batches)
            except Error as error:
                self.retries += 1
                if self._closing:
                    logger.error("the log closes with %d batches that it could not commit: %s", len(batches), error)  # noqa: TRY400 - the cause is the message
                    raise
                logger.warning("commit of %d batches failed, again in %.2f s: %s", len(batches), pause, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LAST_RETRY_S)

    def census(self) -> Mapping[str, int]:
        """Counts for the process report."""
        return {
            "runs_waiting": len(self._waiting),
            "users_held": len(self._held),
            "commits_total": self.commits,
            "commit_retries_total": self.retries,
            "batches_passed_over_total": self.passed_over,
        }


def _frozen_batch(appender: Appender, max_events: int, max_bytes: int) -> Batch | None:
    try:
        return appender.freeze(max_events, max_bytes)
    except Exception as error:
        # A defect of one run, or of the bridge that it was given, may end that run, never the writer of all.
        logger.exception(
            "run %s has something that cannot be written", appender.run_id, extra={"run_id": appender.run_id}
        )
        appender.refused(error)
        return None


def _report_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("the log's writer has stopped; this process must be restarted", exc_info=error)
