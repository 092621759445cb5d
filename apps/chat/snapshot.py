"""A thread as it is at one position of its user's stream, read by one SQL statement.

One statement, because it alone sees one state of the database without locking anything: stored messages, what open
runs have logged so far, and the head of the stream belong together. On SQLite it runs outside of `atomic()`, which
would take the write lock. What comes out is a `ThreadView`: the stored rows, with the log of the time since the
oldest open run began replayed on top. That log also holds what was stored since; of that only the end counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import orjson
from django.db import connection

from apps.chat.messages import MessageView, RunView, moment_of
from apps.chat.models import can_be_key, not_found
from apps.chat.projection import OPEN, ThreadView
from apps.realtime.models import Stream
from apps.vocabulary import MessageId, Position, RunId, ThreadId, UserId

# Nine columns of text and one number; every branch is bound to the owner by itself. The ledger says where a run's
# events begin; a waiting run's terminal event holds its interrupts.
_STATEMENT: Final = """
    SELECT 'thread' AS kind, id AS a, title AS b, leaf_id AS c, CAST(created_at AS TEXT) AS d,
           CAST(updated_at AS TEXT) AS e, '' AS f, '' AS g, '' AS h, 0 AS n
      FROM chat_thread WHERE id = %(thread_id)s AND user_id = %(user_id)s
    UNION ALL
    SELECT 'stream', epoch, tag, '', '', '', '', '', '', head
      FROM realtime_stream WHERE user_id = %(user_id)s
    UNION ALL
    SELECT 'message', message_id, parent_id, run_id, after_run_id, role, CAST(created_at AS TEXT), {contents}, place
      FROM chat_message WHERE thread_id = %(thread_id)s AND user_id = %(user_id)s
    UNION ALL
    SELECT 'run', id, message_id, status, agent, COALESCE(error_code, ''), error_message, after_message_id, '', 0
      FROM execution_run WHERE thread_id = %(thread_id)s AND user_id = %(user_id)s
    UNION ALL
    SELECT 'segment', payload, '', '', '', '', '', '', '', first_seq
      FROM realtime_segment WHERE user_id = %(user_id)s AND first_seq >= (
        SELECT MIN(ledger.first_seq)
          FROM execution_run run JOIN realtime_runledger ledger ON ledger.run_id = run.id
         WHERE run.user_id = %(user_id)s AND run.thread_id = %(thread_id)s
           AND run.status IN ('queued', 'running', 'waiting'))
"""
# The first event of a user that some thread's snapshot reads.
_NEEDED_FROM: Final = """
    SELECT MIN(ledger.first_seq) FROM execution_run run JOIN realtime_runledger ledger ON ledger.run_id = run.id
     WHERE run.user_id = %s AND run.status IN ('queued', 'running', 'waiting')
"""
_WITH_CONTENTS: Final = _STATEMENT.format(contents="text, CAST(parts AS TEXT)")
_WITHOUT_CONTENTS: Final = _STATEMENT.format(contents="'', '[]'")

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A thread and the position that it was read at: apply what comes after `position`, and nothing else."""

    view: ThreadView
    created_at: str
    updated_at: str
    position: Position

    def as_json(self) -> dict[str, Any]:
        """As the API answers."""
        snapshot = self.view.as_json()
        snapshot["thread"] |= {"created_at": self.created_at, "updated_at": self.updated_at}
        return snapshot | {"position": str(self.position), "seq": self.position.seq}


def read_snapshot(user_id: UserId, thread_id: ThreadId) -> Snapshot:
    """The thread with all that it holds now. Raises Refusal(not_found)."""
    return _read(_WITH_CONTENTS, user_id, thread_id)


def read_outline(user_id: UserId, thread_id: ThreadId) -> ThreadView:
    """The thread's view where stored messages have no contents: who follows whom, and what open runs have said.

    Raises Refusal(not_found).
    """
    return _read(_WITHOUT_CONTENTS, user_id, thread_id).view


def needed_from(user_id: UserId) -> int | None:
    """The first seq of the user's stream that a snapshot still reads: retention must not go beyond. None: nothing."""
    with connection.cursor() as cursor:
        cursor.execute(_NEEDED_FROM, (user_id,))
        row = cursor.fetchone()
    return None if row is None else row[0]


def _read(statement: str, user_id: UserId, thread_id: ThreadId) -> Snapshot:
    if not can_be_key(thread_id):
        not_found()
    with connection.cursor() as cursor:
        cursor.execute(statement, {"user_id": user_id, "thread_id": thread_id})
        rows = cursor.fetchall()
    # A database may give the branches of UNION ALL in any order.
    by_kind = {kind: list(group) for kind, group in groupby(sorted(rows, key=_kind), _kind)}
    if "thread" not in by_kind:
        not_found()
    if "stream" not in by_kind:
        Stream.objects.get_or_create(user_id=user_id)
        return _read(statement, user_id, thread_id)
    ((_, _, title, leaf_id, created_at, updated_at, *_),) = by_kind["thread"]
    ((_, epoch, tag, *_, head),) = by_kind["stream"]
    view = ThreadView(thread_id, title, leaf_id or None)
    for row in by_kind.get("run", ()):
        view.hold_run(_run(row))
    for row in by_kind.get("message", ()):
        view.hold_message(_message(row))
    view.replay(list(_entries(by_kind.get("segment", ()))), view.leaf_id)
    return Snapshot(view, _moment(created_at), _moment(updated_at), Position(epoch, head, tag))


_kind = itemgetter(0)


def _run(row: Row) -> RunView:
    _, run_id, message_id, status, agent, error_code, error_message, after_id, *_ = row
    return RunView(
        run_id,
        message_id,
        status,
        agent,
        error_code or None,
        settled=status not in OPEN,
        error_message=error_message,
        after_id=after_id or None,
    )


def _message(row: Row) -> MessageView:
    _, message_id, parent_id, run_id, after_run_id, role, created_at, text, parts, place = row
    return MessageView(
        MessageId(message_id),
        RunId(run_id),
        role,
        _moment(created_at),
        place,
        parent_id=parent_id or None,
        after_run_id=after_run_id or None,
        parts=orjson.loads(parts),
        pieces=[text],
    )


def _entries(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    for _, payload, *_ in sorted(rows, key=itemgetter(-1)):
        yield from orjson.loads(payload)


def _moment(text: str) -> str:
    # SQLite keeps a time as text without a zone; PostgreSQL writes it in the zone of the session, which Django sets
    # to UTC.
    at = datetime.fromisoformat(text)
    return moment_of(at if at.tzinfo is not None else at.replace(tzinfo=UTC))
