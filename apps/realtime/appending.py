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
_MOVE_HEAD = "UPDATE realtime_stream SET head = %s, tag = %s WHERE user_id = %s"


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
    streams = _locked_streams(sorted(by_user))
    now = timezone.now()
    rows: list[tuple[Any, ...]] = []
    heads: list[tuple[Any, ...]] = []
    pages: list[Page] = []
    for user_id, parts in by_user.items():
        stream = streams[user_id]
        first = stream.head + 1
        written: list[NewSegment] = []
        for part in parts:
            for segment in cut_segments(part.entries, stream.head, stream.tag, limits):
                stream.head, stream.tag = segment.last_seq, segment.tag
                written.append(segment)
                rows.append(_row(user_id, segment, now, part.leaked_from))
        heads.append((stream.head, stream.tag, user_id))
        pages.append(page_of(user_id, first, stream.position, [segment.payload for segment in written]))
    with connection.cursor() as cursor:
        cursor.executemany(_INSERT_SEGMENT, rows)
        cursor.executemany(_MOVE_HEAD, heads)
    return pages


def page_of(user_id: UserId, first: int, position: Position, payloads: Sequence[str]) -> Page:
    """The page that consecutive segments make."""
    events = ",".join(payload[1:-1] for payload in payloads)
    return Page(user_id, first, position, events, len(events.encode()))


def locked_stream(user_id: UserId) -> Stream:
    """The stream's row, locked until the transaction ends, created when the user has none yet."""
    return _locked_streams([user_id])[user_id]


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


def _locked_streams(user_ids: Sequence[UserId]) -> Mapping[UserId, Stream]:
    streams = _select_streams(user_ids)
    if missing := [user_id for user_id in user_ids if user_id not in streams]:
        Stream.objects.bulk_create([Stream(user_id=user_id) for user_id in missing], ignore_conflicts=True)
        streams = _select_streams(user_ids)
    return streams


def _select_streams(user_ids: Sequence[UserId]) -> dict[UserId, Stream]:
    # SQLite has no row locks; its BEGIN IMMEDIATE has locked the whole database already, and Django ignores the clause.
    rows = Stream.objects.select_for_update(no_key=True).filter(user_id__in=user_ids).order_by("user_id")
    return {UserId(stream.user_id): stream for stream in rows}
