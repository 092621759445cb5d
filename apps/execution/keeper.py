"""Keeps this process' lease and looks at those of all others, in a thread of its own.

In a thread, since a lease must be kept while the event loop is busy; and only while the loop's own beat moves, since a
loop that is blocked runs nobody's agent, and its runs must not hang for ever. Renewing, looking, and reading what
others ask of the runs here is one visit to the database: an answer to a renewal is how a request to stop reaches an
owner that appends nothing.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from django.db import DatabaseError, InterfaceError, connections, transaction

from apps.execution.leases import Gone, LeaseWatch
from apps.execution.limits import LeaseLimits
from apps.execution.models import Lease, Run
from apps.execution.presence import ProcessLock, process_lock
from apps.vocabulary import RunId

logger = logging.getLogger(__name__)

_LEAVE_S = 2.0  # for the thread to give the lease back; one that hangs in the database is left to the process' end


@dataclass(frozen=True, slots=True)
class Renewal:
    """The answer to a renewal: the runs that this process owned at a moment after `asked_at` (of the loop's clock), and
    whether each was asked to stop.
    """

    asked_at: float
    owned: Mapping[RunId, bool]


class LeaseHolder(Protocol):
    """Who owns the runs. Called on the event loop."""

    def lease_renewed(self, renewal: Renewal) -> None:
        """The lease holds, and this is what is asked of the runs."""
        ...

    def lease_lost(self) -> None:
        """Others took the lease away, and end the runs: stop all of them."""
        ...


class LeaseKeeper:
    """See the module. One a process, also of one that executes nothing: it watches over those that do."""

    def __init__(self, process_id: str, limits: LeaseLimits) -> None:
        self.process_id = process_id
        self._limits = limits
        self._watch = LeaseWatch(limits, process_id)
        self._stopping = threading.Event()
        self._loop_beat = 0
        self._beat_seen = -1
        self._renewed_at = float("-inf")
        self._renewed = asyncio.Event()
        self._has_lease = False
        self._in_trouble = False
        self._beats = 0
        self._losses = 0
        self._skipped = 0

    def __repr__(self) -> str:
        return f"<LeaseKeeper beats={self._beats} losses={self._losses} {self._watch!r}>"

    @asynccontextmanager
    async def open(self, holder: LeaseHolder | None, on_gone: Callable[[Gone], None]) -> AsyncIterator["LeaseKeeper"]:
        """Keep the lease until the block is left, then give it back. `on_gone` is called on the event loop, once for
        each process whose lease this one took away, and again while there are running runs that name it.
        """
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._keep, args=(loop, holder, on_gone), name="turnout-lease", daemon=True)
        beat = asyncio.create_task(self._beat_loop(), name="lease-beat")
        thread.start()
        try:
            yield self
        finally:
            beat.cancel()
            self._stopping.set()
            await asyncio.to_thread(thread.join, _LEAVE_S)
            await asyncio.wait({beat})

    @property
    def is_confirmed(self) -> bool:
        """Whether the lease was renewed lately enough that nobody can have taken it away."""
        return time.monotonic() - self._renewed_at < self._limits.hold_s

    async def confirmed(self) -> None:
        """Returns as soon as the lease is confirmed; at once, as a rule.

        A run that waits here goes no further while its process cannot be sure that it still owns it: after an outage
        of the database it goes on, after a partition it learns that it was ended.
        """
        while not self.is_confirmed:
            self._renewed.clear()
            await self._renewed.wait()

    def census(self) -> Mapping[str, int]:
        """Counts for the process report."""
        return {
            "other_processes": self._watch.others,
            "beats_total": self._beats,
            "skipped_beats_total": self._skipped,
            "losses_total": self._losses,
        }

    # -- on the loop

    async def _beat_loop(self) -> None:
        while True:
            self._loop_beat += 1
            await asyncio.sleep(self._limits.renew_s / 2)

    def _confirm(self, holder: LeaseHolder | None, renewal: Renewal) -> None:
        self._renewed.set()
        if holder is not None:
            holder.lease_renewed(renewal)

    # -- in the thread

    def _keep(
        self, loop: asyncio.AbstractEventLoop, holder: LeaseHolder | None, on_gone: Callable[[Gone], None]
    ) -> None:
        lock = process_lock()
        try:
            while True:
                started = time.monotonic()
                for tell in self._turn_or_trouble(lock, holder, on_gone):
                    loop.call_soon_threadsafe(tell)
                if self._stopping.wait(max(0.0, started + self._limits.renew_s - time.monotonic())):
                    self._give_back(lock)
                    return
        except RuntimeError as error:  # the loop is closed: nobody is left whose lease this is
            logger.warning("the lease of process %s is not kept any more: %s", self.process_id, error)
        finally:
            lock.release()
            connections.close_all()

    def _turn_or_trouble(
        self, lock: ProcessLock, holder: LeaseHolder | None, on_gone: Callable[[Gone], None]
    ) -> list[Callable[[], None]]:
        if self._loop_beat == self._beat_seen:
            self._skipped += 1
            self._watch.interrupted()
            return []
        self._beat_seen = self._loop_beat
        try:
            return self._turn(lock, holder, on_gone)
        except (DatabaseError, InterfaceError, OSError) as error:
            self._report_trouble(error)
        except Exception:  # a defect here must not end the renewing: all runs of the process hang on it
            logger.exception("the turn of the lease of process %s failed", self.process_id)
        finally:
            for connection in connections.all(initialized_only=True):
                connection.close_at = None
                connection.close_if_unusable_or_obsolete()
        self._watch.interrupted()
        return []

    def _turn(
        self, lock: ProcessLock, holder: LeaseHolder | None, on_gone: Callable[[Gone], None]
    ) -> list[Callable[[], None]]:
        asked_at = time.monotonic()
        lost = self._renew(lock)
        owned = dict(Run.objects.of_process(self.process_id).values_list("pk", "cancel_requested"))
        gone = self._look(lock)
        self._renewed_at = asked_at
        self._beats += 1
        self._in_trouble = False
        renewal = Renewal(asked_at, {RunId(run_id): asked for run_id, asked in owned.items()})
        tell: list[Callable[[], None]] = [lambda: self._confirm(holder, renewal)]
        if lost and holder is not None:
            tell.insert(0, holder.lease_lost)
        tell += [lambda one=one: on_gone(one) for one in gone]  # type: ignore[misc]  # the default binds each
        return tell

    def _renew(self, lock: ProcessLock) -> bool:
        """Whether the lease had been taken away. Afterwards it is there."""
        lock.hold(self.process_id)
        with transaction.atomic():
            if Lease.objects.renew(self.process_id):
                self._has_lease = True
                return False
            Lease.objects.take(self.process_id)
        lost, self._has_lease = self._has_lease, True
        if lost:
            self._losses += 1
            logger.error("process %s had lost its lease: it was not heard of for too long", self.process_id)
        return lost

    def _look(self, lock: ProcessLock) -> list[Gone]:
        beats: dict[str, int | None] = dict(Lease.objects.values_list("pk", "beat"))
        for process_id in Run.objects.ownerless().values_list("process_id", flat=True).distinct():
            beats.setdefault(process_id, None)
        gone = []
        for one in self._watch.look(time.monotonic(), beats, lock.is_free):
            if one.beat is None:
                gone.append(one)
            elif Lease.objects.take_away(one.process_id, one.beat):
                lock.forget(one.process_id)
                gone.append(one)
        return gone

    def _report_trouble(self, error: Exception) -> None:
        level = logging.DEBUG if self._in_trouble else logging.WARNING
        logger.log(level, "the lease of process %s cannot be renewed now: %s", self.process_id, error)
        self._in_trouble = True

    def _give_back(self, lock: ProcessLock) -> None:
        try:
            with transaction.atomic():
                Lease.objects.filter(pk=self.process_id).delete()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("process %s could not give its lease back: %s", self.process_id, error)
        lock.release()
