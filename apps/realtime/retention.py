"""What the log keeps of each user, and for how long: it is trimmed from its tail, never inside what is still needed.

Finished runs were folded into messages, so their oldest events may go: a tab that is further behind gets `reset
trimmed`, reloads the snapshot, and goes on. A stream is trimmed when it has more rows or bytes than it may, or when
its oldest row is too old. What an open run has said stays, however much that is: closing and folding it read it. So
does a row that the old bridge leaked, until somebody has blanked it: it is evidence.

Each step is one short transaction under the stream's lock, the last in the lock order. Synchronous, but for the keeper.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

import orjson
from django.db import transaction
from django.db.models import F, Min, Q
from django.utils import timezone

from apps.realtime.database import DatabaseThreads
from apps.realtime.erasing import erase_step, is_blanked
from apps.realtime.models import Erasure, HistoryMark, RunLedger, Segment, Stream, Turn
from apps.vocabulary import ThreadId, UserId

logger = logging.getLogger(__name__)

_JOB = "retention"
_USERS_A_LOOK = 100

NeededFrom = Callable[[UserId], int | None]
"""The first seq of a user's stream that somebody still reads although its run's ledger is closed; None: nobody."""


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """What one user's log may hold before it is trimmed, and how much is done at a time."""

    rows: int = 20_000
    size: int = 67_108_864  # bytes of payload
    age_s: float = 604_800.0
    step_rows: int = 256  # rows of one transaction
    steps: int = 200  # transactions of one turn
    every_s: float = 5.0  # between two turns, of all processes together

    def with_slack(self) -> Self:
        """What a stream may hold between two turns without being a finding: a tenth more, an hour longer."""
        return replace(self, rows=self.rows * 11 // 10, size=self.size * 11 // 10, age_s=self.age_s + 3_600)


@dataclass(frozen=True, slots=True)
class KeptRow:
    """One row at the tail, as far as trimming is concerned. `evidence`: a leak that nobody has blanked yet."""

    last_seq: int
    tag: str
    size: int
    written_at: datetime
    evidence: bool = False


def rows_to_trim(
    oldest: Sequence[KeptRow], kept_rows: int, kept_bytes: int, limits: RetentionLimits, now: datetime, floor: int
) -> int:
    """How many of these rows, the oldest of a stream in order, may and should go. Pure.

    Rows that reach `floor` or beyond are needed by somebody, and so are all behind them.
    """
    cutoff = now - timedelta(seconds=limits.age_s)
    for number, row in enumerate(oldest):
        over = kept_rows > limits.rows or kept_bytes > limits.size or row.written_at < cutoff
        if not over or row.last_seq >= floor or row.evidence:
            return number
        kept_rows -= 1
        kept_bytes -= row.size
    return len(oldest)


def overdue_streams(limits: RetentionLimits, now: datetime, after: UserId, most: int) -> list[UserId]:
    """The next users behind `after` whose streams hold more than they may, `most` at a time."""
    too_old = Q(oldest_at__lt=now - timedelta(seconds=limits.age_s))
    overdue = Stream.objects.filter(Q(kept_rows__gt=limits.rows) | Q(kept_bytes__gt=limits.size) | too_old)
    ids = overdue.filter(user_id__gt=after).order_by("user_id").values_list("user_id", flat=True)
    return [UserId(user_id) for user_id in ids[:most]]


def rows_due(user_id: UserId, limits: RetentionLimits, now: datetime, needed_from: NeededFrom) -> int:
    """How many rows the next step would take off this stream. Changes and locks nothing."""
    stream = Stream.objects.filter(pk=user_id).first()
    if stream is None:
        return 0
    oldest = _oldest_rows(user_id, limits.step_rows)
    floor = _floor(user_id, stream.head, needed_from)
    return rows_to_trim(oldest, stream.kept_rows, stream.kept_bytes, limits, now, floor)


def trim_step(user_id: UserId, limits: RetentionLimits, now: datetime, needed_from: NeededFrom) -> int:
    """Take at most `step_rows` rows off the tail of a stream; returns how many went. Tail and its tag move along."""
    with transaction.atomic():
        stream = Stream.objects.select_for_update(no_key=True).filter(pk=user_id).first()
        if stream is None:
            return 0
        oldest = _oldest_rows(user_id, limits.step_rows + 1)
        floor = _floor(user_id, stream.head, needed_from)
        going = min(
            rows_to_trim(oldest, stream.kept_rows, stream.kept_bytes, limits, now, floor),
            limits.step_rows,
        )
        if not going:
            return 0
        last = oldest[going - 1]
        Segment.objects.filter(user_id=user_id, first_seq__lte=last.last_seq).delete()
        Stream.objects.filter(pk=user_id).update(
            tail=last.last_seq,
            tail_tag=last.tag,
            kept_rows=F("kept_rows") - going,
            kept_bytes=F("kept_bytes") - sum(row.size for row in oldest[:going]),
            oldest_at=oldest[going].written_at if going < len(oldest) else None,
        )
        return going


def _oldest_rows(user_id: UserId, most: int) -> list[KeptRow]:
    rows = Segment.objects.filter(user_id=user_id).order_by("first_seq")
    fields = rows.values_list("pk", "last_seq", "tag", "size", "created_at", "leaked_from")[:most]
    return [
        KeptRow(last_seq, tag, size, created_at, evidence=leaked_from is not None and not _is_blanked_row(key))
        for key, last_seq, tag, size, created_at, leaked_from in fields
    ]


def _is_blanked_row(key: int) -> bool:
    payload = Segment.objects.values_list("payload", flat=True).get(pk=key)
    return all(is_blanked(entry) for entry in orjson.loads(payload))


def _floor(user_id: UserId, head: int, needed_from: NeededFrom) -> int:
    """The first seq that must stay."""
    in_use = RunLedger.objects.filter(user_id=user_id, is_open=True).aggregate(first=Min("first_seq"))["first"]
    needed = needed_from(user_id)
    return min(head + 1 if in_use is None else in_use, head + 1 if needed is None else needed)


class RetentionKeeper:
    """Trims and erases for the whole deployment. Every process has one in a `Periodic`; one of them takes each turn."""

    def __init__(self, database: DatabaseThreads, limits: RetentionLimits, needed_from: NeededFrom) -> None:
        self._database = database
        self._limits = limits
        self._needed_from = needed_from
        self._after = UserId(0)
        self._trimmed = 0
        self._turns = 0

    async def turn(self) -> None:
        """Do what is due, if it is this process's turn: at most `steps` transactions, the rest in later turns."""
        if await self._database.call(self._take_turn):
            self._turns += 1
            steps_left = await self._erase(self._limits.steps)
            await self._trim(steps_left)

    def _take_turn(self) -> bool:
        if not Turn.objects.all().take(_JOB, self._limits.every_s):
            return False
        HistoryMark.objects.all().advance()
        return True

    async def _erase(self, steps_left: int) -> int:
        for owner, thread_id in await self._database.call(_erasures, _USERS_A_LOOK):
            more = True
            while more and steps_left:
                more = await self._database.call(erase_step, owner, thread_id, self._limits.step_rows)
                steps_left -= 1
        return steps_left

    async def _trim(self, steps_left: int) -> None:
        now = timezone.now()
        due = await self._database.call(overdue_streams, self._limits, now, self._after, _USERS_A_LOOK)
        for user_id in due:
            trimmed = self._limits.step_rows
            while trimmed == self._limits.step_rows and steps_left > 0:
                trimmed = await self._database.call(trim_step, user_id, self._limits, now, self._needed_from)
                self._trimmed += trimmed
                steps_left -= 1
            if steps_left <= 0:
                return
            self._after = user_id
        if len(due) < _USERS_A_LOOK:
            self._after = UserId(0)  # from the first again

    def census(self) -> Mapping[str, int]:
        """Counts for the process report."""
        return {"turns_total": self._turns, "rows_trimmed_total": self._trimmed}


def _erasures(most: int) -> list[tuple[UserId, ThreadId]]:
    rows = Erasure.objects.order_by("pk").values_list("user_id", "thread_id")[:most]
    return [(UserId(user_id), ThreadId(thread_id)) for user_id, thread_id in rows]
