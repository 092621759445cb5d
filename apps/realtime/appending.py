"""Appending rows to streams inside a transaction that is already open: the one place that gives out `seq`.

Two callers share it: the group commit, with many users at once, and services that append an event of their own in the
transaction of the change it tells about. Both come here last, in the order of user ids: the stream is the last row in
the lock order (budget, thread, run, ledger, stream).
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.utils import timezone

from apps.realtime.coalescing import encode_entry
from apps.realtime.locking import Locking, held_of
from apps.realtime.models import Stream
from apps.realtime.redaction import storable_event
from apps.realtime.segments import NewSegment, SegmentLimits, cut_segments
from apps.realtime.values import LogEntry, Page
from apps.vocabulary import Position, UserId

_INSERT_SEGMENT = """
    INSERT INTO realtime_segment (user_id, first_seq, last_seq, payload, size, tag, created_at, leaked_from)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_MOVE_HEAD = """
    UPDATE realtime_stream SET head = %s, tag = %s, kept_rows = kept_rows + %s, kept_bytes = kept_bytes + %s,
                               oldest_at = COALESCE(oldest_at, %s)
    WHERE user_id = %s
"""


@dataclass(frozen=True, slots=True)
class Appended:
    """Entries for one stream, as JSON text without seq. `leaked_from`: the owner, where the stream is not their own."""

    user_id: UserId
    entries: Sequence[str]
    leaked_from: UserId | None = None


def encode_own(entry: LogEntry) -> str:
    """An event of Turnout's own, accepted now, as the JSON text of a log entry without its `seq`."""
    event = storable_event(entry.event.model_dump(mode="json", by_alias=True))
    return encode_entry(entry.thread_id, entry.run_id, time.time(), event)


def append_rows(appended: Iterable[Appended], limits: SegmentLimits) -> list[Page]:
    """Write all entries and move the heads; returns one page a user, to be shown only after the commit.

    Must be called in a transaction. Locks the stream rows in the order of user ids, and waits for them.
    """
    by_user = _by_user(appended)
    return _write_rows(by_user, _locked_heads(sorted(by_user)), limits) if by_user else []


def append_to_heads(
    appended: Iterable[Appended], heads: Mapping[UserId, Position], limits: SegmentLimits
) -> list[Page]:
    """As `append_rows`, to streams whose rows the transaction has locked already; `heads` is where they stand."""
    by_user = _by_user(appended)
    return _write_rows(by_user, heads, limits) if by_user else []


def _by_user(appended: Iterable[Appended]) -> dict[UserId, list[Appended]]:
    by_user: dict[UserId, list[Appended]] = {}
    for part in appended:
        by_user.setdefault(part.user_id, []).append(part)
    return by_user


def _write_rows(
    by_user: Mapping[UserId, Sequence[Appended]], positions: Mapping[UserId, Position], limits: SegmentLimits
) -> list[Page]:
    now = timezone.now()
    rows: list[tuple[Any, ...]] = []
    heads: list[tuple[Any, ...]] = []
    pages: list[Page] = []
    for user_id, parts in by_user.items():
        epoch, seq, tag = positions[user_id].epoch, positions[user_id].seq, positions[user_id].tag
        first = seq + 1
        payloads: list[str] = []
        size = 0
        for part in parts:
            for segment in cut_segments(part.entries, seq, tag, limits):
                seq, tag, size = segment.last_seq, segment.tag, size + segment.size
                payloads.append(segment.payload)
                rows.append(_row(user_id, segment, now, part.leaked_from))
        heads.append((seq, tag, len(payloads), size, now, user_id))
        pages.append(page_of(user_id, first, Position(epoch, seq, tag), payloads))
    with connection.cursor() as cursor:
        cursor.executemany(_INSERT_SEGMENT, rows)
        cursor.executemany(_MOVE_HEAD, heads)
    return pages


def page_of(user_id: UserId, first: int, position: Position, payloads: Sequence[str]) -> Page:
    """The page that consecutive segments make."""
    events = ",".join(payload[1:-1] for payload in payloads)
    return Page(user_id, first, position, events, len(events.encode()))


def locked_head(user_id: UserId) -> Position:
    """The stream's head, its row locked until the transaction ends, and made when the user has none yet."""
    return _locked_heads([user_id])[user_id]


def _row(user_id: UserId, segment: NewSegment, now: Any, leaked_from: UserId | None) -> tuple[Any, ...]:
    return (
        user_id,
        segment.first_seq,
        segment.last_seq,
        segment.payload,
        segment.size,
        segment.tag,
        now,
        leaked_from,
    )


def lock_free_heads(user_ids: Collection[UserId]) -> tuple[Mapping[UserId, Position], frozenset[UserId]]:
    """Lock the streams that nobody else holds, in the order of user ids, and make those that do not exist.

    Returns where the locked ones stand, and whose are held by somebody else.
    """
    heads = _select_heads(user_ids, Locking.SKIP)
    missing = set(user_ids) - set(heads)
    held = set(held_of(Stream.objects.all(), missing))
    if new := sorted(missing - held):
        _make_streams(new)
        made = _select_heads(new, Locking.SKIP)
        heads |= made
        held |= set(new) - set(made)
    return heads, frozenset(held)


def lock_heads(user_ids: Collection[UserId]) -> Mapping[UserId, Position]:
    """Lock these streams in the order of user ids, waiting for each, and make those that do not exist."""
    return _locked_heads(sorted(user_ids))


def _locked_heads(user_ids: Sequence[UserId]) -> Mapping[UserId, Position]:
    heads = _select_heads(user_ids, Locking.WAIT)
    if missing := [user_id for user_id in user_ids if user_id not in heads]:
        _make_streams(missing)
        heads = _select_heads(user_ids, Locking.WAIT)
    return heads


def _make_streams(user_ids: Sequence[UserId]) -> None:
    Stream.objects.bulk_create([Stream(user_id=user_id) for user_id in user_ids], ignore_conflicts=True)


def _select_heads(user_ids: Collection[UserId], locking: Locking) -> dict[UserId, Position]:
    # SQLite has no row locks; its BEGIN IMMEDIATE has locked the whole database already, and Django ignores the clause.
    # Rows instead of models: this is read in every commit, and making a model takes as long as writing its row.
    locked = Stream.objects.select_for_update(no_key=True, skip_locked=locking.skips())
    rows = locked.filter(user_id__in=user_ids).order_by("user_id").values_list("user_id", "epoch", "head", "tag")
    return {UserId(user_id): Position(epoch, head, tag) for user_id, epoch, head, tag in rows}
