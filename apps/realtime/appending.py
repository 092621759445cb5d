"""Appending rows to streams inside a transaction that is already open: the one place that gives out `seq`.

Two callers share it: the group commit, with many users at once, and services that append an event of their own in the
transaction of the change it tells about. Both come here last, in the order of user ids: the stream is the last row in
the lock order (budget, thread, run, ledger, stream).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.utils import timezone

from apps.realtime.models import Stream
from apps.realtime.segments import NewSegment, SegmentLimits, cut_segments
from apps.realtime.values import Page
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


def append_rows(appended: Iterable[Appended], limits: SegmentLimits) -> list[Page]:
    """Write all entries and move the heads; returns one page a user, to be shown only after the commit.

    Must be called in a transaction. Locks the stream rows in the order of user ids.
    """
    by_user: dict[UserId, list[Appended]] = {}
    for part in appended:
        by_user.setdefault(part.user_id, []).append(part)
    if not by_user:
        return []
    positions = _locked_heads(sorted(by_user))
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


def _locked_heads(user_ids: Sequence[UserId]) -> Mapping[UserId, Position]:
    heads = _select_heads(user_ids)
    if missing := [user_id for user_id in user_ids if user_id not in heads]:
        Stream.objects.bulk_create([Stream(user_id=user_id) for user_id in missing], ignore_conflicts=True)
        heads = _select_heads(user_ids)
    return heads


def _select_heads(user_ids: Sequence[UserId]) -> dict[UserId, Position]:
    # SQLite has no row locks; its BEGIN IMMEDIATE has locked the whole database already, and Django ignores the clause.
    # Rows instead of models: this is read in every commit, and making a model takes as long as writing its row.
    locked = Stream.objects.select_for_update(no_key=True).filter(user_id__in=user_ids).order_by("user_id")
    rows = locked.values_list("user_id", "epoch", "head", "tag")
    return {UserId(user_id): Position(epoch, head, tag) for user_id, epoch, head, tag in rows}
