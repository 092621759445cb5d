"""The event log: what is appended here is durable, numbered, and shown to its user; nothing else is.

The synchronous methods belong into the caller's transaction, on a database thread. Lock order of the whole system:
budget, thread, run, ledger, stream. A run appends through its publisher, whose events the group commit writes.
"""

import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import orjson
from django.db import InterfaceError, OperationalError, models, transaction
from prometheus_client import Histogram

from apps.realtime.appending import Appended, append_rows, encode_own, locked_head
from apps.realtime.bridge import RunBridge
from apps.realtime.commit import Books, CommitResult, Committer, Participant
from apps.realtime.database import DatabaseThreads
from apps.realtime.erasing import begin_erasure, erase_step
from apps.realtime.group_commit import FlushLimits, GroupCommit
from apps.realtime.models import RunLedger, Segment, Stream, Tombstone
from apps.realtime.publisher import PublisherLimits, RunEventPublisher
from apps.realtime.redaction import EVERYTHING, Disclosure, ToolRedaction
from apps.realtime.segments import SegmentLimits
from apps.realtime.values import LogEntry, LoggedPart, Page, RunLease
from apps.vocabulary import ErrorCode, Position, Refusal, RunId, ThreadId, UserId

logger = logging.getLogger(__name__)

_ROWS_AT_ONCE = 256
_COMMIT_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_ERASED_ROWS = 256  # rows of the log that one step of an erasure looks at


class RunClosed(Exception):  # noqa: N818 - an answer: the run has its terminal event
    """The run's ledger is closed: it has its terminal event and takes no other."""


class LogNotOpenError(RuntimeError):
    """A publisher needs the running writer; open the log with `async with log.open(...)`, as `open_services` does."""


class Audience(Protocol):
    """Who shows committed events to tabs of this process. Called on any thread, after the commit."""

    def show(self, pages: Sequence[Page]) -> None: ...
    def hint(self, heads: Mapping[UserId, int]) -> None: ...


@dataclass(frozen=True, slots=True)
class LogLimits:
    """Bounds of segments, commits and publishers."""

    segment: SegmentLimits = field(default_factory=SegmentLimits)
    flush: FlushLimits = field(default_factory=FlushLimits)
    publisher: PublisherLimits = field(default_factory=PublisherLimits)


def nobody(_: frozenset[UserId]) -> frozenset[UserId]:
    """The answer to who may receive another user's events, where no legacy bridge is installed."""
    return frozenset()


class EventLog:
    """See the module. One a process; a command that only appends needs no audience and no writer.

    `public_fields` names, by tool, the arguments that a user may see, and `result` where the result may be seen;
    `disclosure` says what else of agents.
    """

    def __init__(
        self,
        limits: LogLimits,
        audience: Audience | None = None,
        public_fields: Mapping[str, Collection[str]] = MappingProxyType({}),
        disclosure: Disclosure = EVERYTHING,
    ) -> None:
        self._limits = limits
        self._disclosure = disclosure
        self._public_fields = public_fields
        self._audience = audience
        self._writer: GroupCommit | None = None
        self._database: DatabaseThreads | None = None
        self._prepare: Callable[[RunLease], object] | None = None
        self.commit_seconds = Histogram(
            "turnout_log_commit_seconds",
            "From handing batches to the writer until they are stored",
            buckets=_COMMIT_SECONDS,
            registry=None,
        )

    @asynccontextmanager
    async def open(
        self,
        database: DatabaseThreads,
        *,
        settle: Books,
        fold: Participant,
        may_receive_leaks: Callable[[frozenset[UserId]], frozenset[UserId]] = nobody,
        prepare: Callable[[RunLease], object] | None = None,
    ) -> AsyncIterator["EventLog"]:
        """Run the writer; on leaving, everything that was accepted is committed first.

        `prepare` is called in a database thread when a run is about to end; what it returns reaches `fold` with the
        ended run, so that it need not read in the writer what was in the log before.
        """
        committer = Committer(
            settle=settle, fold=fold, limits=self._limits.segment, may_receive_leaks=may_receive_leaks
        )
        self._database = database
        self._prepare = prepare
        took_s = self.commit_seconds.observe
        async with GroupCommit(committer, self._limits.flush, self._announce, took_s) as writer:
            self._writer = writer
            try:
                yield self
            finally:
                self._writer = None

    # -- a run's ledger; inside the caller's transaction

    def open_run(self, user_id: UserId, run_id: RunId, thread_id: ThreadId) -> None:
        """Begin a run's ledger. Its events will all lie behind the present head."""
        stream = Stream.objects.filter(user_id=user_id).values_list("head", flat=True).first()
        RunLedger.objects.create(run_id=run_id, user_id=user_id, thread_id=thread_id, first_seq=(stream or 0) + 1)

    def claim_run(self, user_id: UserId, run_id: RunId, fence: int) -> int:
        """Give the run to a new owner: appends under an older fence are refused from the commit on.

        Returns how many events the run has logged. Raises RunClosed.
        """
        claimed = RunLedger.objects.filter(run_id=run_id, user_id=user_id, is_open=True, fence__lt=fence)
        if not claimed.update(fence=fence):
            raise RunClosed(run_id)
        return RunLedger.objects.values_list("logged", flat=True).get(run_id=run_id)

    def logged(self, user_id: UserId, run_id: RunId) -> int:
        """How many events the run has logged."""
        return RunLedger.objects.values_list("logged", flat=True).get(run_id=run_id, user_id=user_id)

    def request_cancel(self, user_id: UserId, run_id: RunId) -> bool:
        """Ask the run's owner to stop; it learns of it from its next commit. False when the run has ended."""
        return bool(
            RunLedger.objects.filter(run_id=run_id, user_id=user_id, is_open=True).update(cancel_requested=True)
        )

    def close_run(self, user_id: UserId, run_id: RunId) -> bool:
        """Refuse all further appends of the run. False when it was closed already; then append no terminal event."""
        closed = RunLedger.objects.filter(run_id=run_id, user_id=user_id, is_open=True)
        return bool(closed.update(is_open=False, fence=models.F("fence") + 1))

    # -- a stream; inside the caller's transaction

    def append(self, user_id: UserId, entries: Sequence[LogEntry]) -> Position:
        """Append events to this user's stream; tabs are told after the commit. Returns the position after them.

        Raises Refusal(unavailable) for a user who was deleted.
        """
        pages = append_rows([Appended(user_id, [encode_own(entry) for entry in entries])], self._limits.segment)
        # Asked under the stream's lock, which a deletion takes too: whoever comes second sees what the first has done.
        if Tombstone.objects.filter(pk=user_id).exists():
            raise Refusal(ErrorCode.UNAVAILABLE, "this account was deleted; nothing is written for it any more")
        if self._audience is not None:
            # Robust: it is stored, and whoever stored it must not be told that it failed; tabs find it by the poll.
            transaction.on_commit(partial(self._audience.show, pages), robust=True)
        return pages[0].position

    def begin_erasure(self, user_id: UserId, thread_id: ThreadId) -> None:
        """From this commit on, the content of the thread's events is taken out of the log; seq and tag stay."""
        begin_erasure(user_id, thread_id)

    def erase(self, user_id: UserId, thread_id: ThreadId, steps: int) -> bool:
        """Do up to so many steps of an erasure, each a transaction of its own. True if there is more to do now."""
        return all(erase_step(user_id, thread_id, _ERASED_ROWS) for _ in range(steps))

    def head(self, user_id: UserId) -> Position:
        """The position after the user's newest event; makes the stream when there is none. Locks its row."""
        return locked_head(user_id)

    def read_run(self, user_id: UserId, run_id: RunId) -> list[dict[str, Any]]:
        """The run's events in order, in their wire form, as far as they are retained."""
        entries = self.read_logged(user_id, run_id).entries
        return [entry["event"] for entry in entries if entry["run_id"] == run_id]

    def read_logged(self, user_id: UserId, run_id: RunId, after: int = 0) -> LoggedPart:
        """The entries of the run's thread since it was admitted, behind `after` and up to the present head.

        What the user's other threads have said meanwhile is sifted out by the database.
        """
        head = Stream.objects.filter(pk=user_id).values_list("head", flat=True).first() or 0
        ledger = RunLedger.objects.filter(run_id=run_id, user_id=user_id).values_list("first_seq", "thread_id").first()
        if ledger is None:
            return LoggedPart((), head)
        first, thread_id = ledger
        rows = Segment.objects.filter(user_id=user_id, first_seq__gte=max(first, after + 1), last_seq__lte=head)
        payloads = rows.filter(payload__contains=thread_id).order_by("first_seq").values_list("payload", flat=True)
        entries = [
            entry
            for payload in payloads.iterator(chunk_size=_ROWS_AT_ONCE)
            for entry in orjson.loads(payload)
            if entry["thread_id"] == thread_id
        ]
        return LoggedPart(entries, head)

    # -- the runs of this process

    def publisher(self, lease: RunLease, bridge: RunBridge) -> RunEventPublisher:
        """The way into the log for the run that this lease owns. Raises LogNotOpenError."""
        if self._writer is None or self._database is None:
            raise LogNotOpenError(LogNotOpenError.__doc__)
        read_logged = partial(self._database.call, self.read_run, lease.user_id, lease.run_id)
        tools = ToolRedaction(self._public_fields)
        prepare_end = partial(self._prepare_end, lease)
        return RunEventPublisher(
            lease,
            bridge,
            self._limits.publisher,
            self._writer.mark,
            read_logged,
            tools,
            disclosure=self._disclosure,
            prepare_end=prepare_end,
        )

    async def _prepare_end(self, lease: RunLease) -> object | None:
        if self._prepare is None or self._database is None:
            return None
        try:
            return await self._database.call(self._prepare, lease)
        except (OperationalError, InterfaceError) as error:
            logger.warning(
                "the end of run %s could not be prepared: %s", lease.run_id, error, extra={"run_id": lease.run_id}
            )
            return None  # the transaction that ends it reads everything by itself

    def _announce(self, result: CommitResult) -> None:
        if self._audience is not None:
            self._audience.show(result.pages)

    @property
    def is_open(self) -> bool:
        """Whether the writer runs."""
        return self._writer is not None and self._writer.is_alive

    def census(self) -> Mapping[str, int]:
        """Counts for the process report."""
        return self._writer.census() if self._writer is not None else {}
