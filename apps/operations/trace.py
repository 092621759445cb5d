"""One event's walk, with times: from the row, and from what every live process still knows of it.

A command cannot reach into other processes, but the database reaches all of them: the question is a row, each process
looks for questions as often as it reports itself, and answers in a row of its own. All functions are synchronous.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import orjson
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from apps.operations.models import ProcessReport, TraceAnswer, TraceRequest
from apps.realtime.database import DatabaseThreads
from apps.realtime.models import Segment, Stream
from apps.realtime.tracing import DeliveryTrace
from apps.vocabulary import UserId

ASKED_WITHIN_S = 60.0  # an older question has nobody waiting for its answer
_MARKS = 200  # of one answer
_QUESTIONS = 20  # of one look


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """What the row says of an event; never what it says. Times are Unix seconds."""

    seq: int
    type: str
    thread_id: str | None
    run_id: str | None
    accepted_at: float
    committed_at: float


class EventUnknown(LookupError):  # noqa: N818 - names what was met
    """There is no such event; the message says why."""


def stored_event(user_id: UserId, seq: int) -> StoredEvent:
    """The event as it lies in the log. Raises EventUnknown."""
    stream = Stream.objects.filter(pk=user_id).first()
    if stream is None or seq < 1 or seq > stream.head:
        raise EventUnknown(f"the stream of this user reaches to {0 if stream is None else stream.head}")
    row = Segment.objects.filter(user_id=user_id, first_seq__lte=seq, last_seq__gte=seq).first()
    if row is None:
        raise EventUnknown(f"seq {seq} is trimmed; the log begins behind {stream.tail}")
    entry = next(entry for entry in orjson.loads(row.payload) if entry["seq"] == seq)
    return StoredEvent(
        seq,
        entry["event"]["type"],
        entry["thread_id"],
        entry["run_id"],
        entry["at"],
        row.created_at.timestamp(),
    )


def ask(user_id: UserId, seq: int) -> int:
    """Put the question to all processes; returns its key. Questions that nobody waits for any more go."""
    with transaction.atomic():
        TraceRequest.objects.filter(asked_at__lt=Now() - timedelta(seconds=ASKED_WITHIN_S)).delete()
        return TraceRequest.objects.create(user_id=user_id, seq=seq).pk


def unanswered(request: int, silent_s: float) -> list[str]:
    """Processes that report themselves and have not answered yet, by name."""
    answered = TraceAnswer.objects.filter(request_id=request, process_id=OuterRef("pk"))
    living = ProcessReport.objects.running(silent_s).filter(~Exists(answered))
    return [str(process) for process in living]


def answers(request: int) -> list[Mapping[str, Any]]:
    """What the processes answered so far: process, known_since, marks."""
    names = {process.pk: str(process) for process in ProcessReport.objects.all()}
    return [
        {
            "process": names.get(answer.process_id, answer.process_id),
            "known_since": answer.known_since,
            "marks": answer.marks,
        }
        for answer in TraceAnswer.objects.filter(request_id=request).order_by("process_id")
    ]


def forget(request: int) -> None:
    """Delete the question with its answers."""
    TraceRequest.objects.filter(pk=request).delete()


@dataclass(frozen=True, slots=True)
class TraceAnswering:
    """Answers for one process; `turn` belongs into a `Periodic`."""

    database: DatabaseThreads
    process_id: str
    trace: DeliveryTrace

    async def turn(self) -> None:
        """Answer what this process was not asked before."""
        await self.database.call(self._answer_all)

    def _answer_all(self) -> None:
        mine = TraceAnswer.objects.filter(request_id=OuterRef("pk"), process_id=self.process_id)
        recent = TraceRequest.objects.filter(asked_at__gte=Now() - timedelta(seconds=ASKED_WITHIN_S))
        for request in recent.filter(~Exists(mine)).order_by("pk")[:_QUESTIONS]:
            found = self.trace.find(UserId(request.user_id), request.seq)
            answer = TraceAnswer(
                request=request,
                process_id=self.process_id,
                known_since=self.trace.known_since,
                marks=[asdict(mark) for mark in found[:_MARKS]],
            )
            TraceAnswer.objects.bulk_create([answer], ignore_conflicts=True)
