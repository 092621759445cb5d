"""Reads pages of the log for all connections of a process: batched over users, shared by a user's tabs.

A connection asks and goes on; the answer comes as a callback on the event loop. All requests that gather while one
read is under way go into the next, as one call of a database thread, so a reconnect storm costs threads nothing.
While the database is away requests wait; a connection without pages lags, and is not closed for it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from types import TracebackType
from typing import Any, NamedTuple, Self, overload

from django.db import Error
from django.db.models import Q

from apps.realtime.appending import page_of
from apps.realtime.cursor import judge_position
from apps.realtime.database import DatabaseThreads
from apps.realtime.models import GENESIS_TAG, RunLedger, Segment, Stream, new_epoch
from apps.realtime.outages import Trouble, trouble_of
from apps.realtime.protocol import ResetReason
from apps.realtime.values import Page
from apps.vocabulary import Position, RunId, UserId

logger = logging.getLogger(__name__)

_RETRY_S = 0.5
_BATCH = 64  # requests that one call of a database thread serves


@dataclass(frozen=True, slots=True)
class PositionRequest:
    """Where this user's stream stands, and whether `after` lies in it."""

    user_id: UserId
    after: Position | None


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Whole segments from `after` + 1 on."""

    user_id: UserId
    after: int
    max_events: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class PositionAnswer:
    """`reset` is None when `position` can be served."""

    position: Position
    head: Position
    reset: ResetReason | None


@dataclass(frozen=True, slots=True)
class PageAnswer:
    """`page` is None when there is nothing after it; `trimmed_head` is set when what was asked for is gone."""

    page: Page | None
    trimmed_head: Position | None = None


Request = PositionRequest | PageRequest
Answer = PositionAnswer | PageAnswer


class PageReader:
    """See the module. `async with`; what is unanswered at the end is dropped with its connections."""

    def __init__(self, database: DatabaseThreads) -> None:
        self._database = database
        self._requests: dict[Request, list[Callable[[Any], None]]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.reads = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._serve(), name="page-reader")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    @overload
    def ask(self, request: PositionRequest, answered: Callable[[PositionAnswer], None]) -> None: ...
    @overload
    def ask(self, request: PageRequest, answered: Callable[[PageAnswer], None]) -> None: ...
    def ask(self, request: Request, answered: Callable[[Any], None]) -> None:
        """Have `answered` called once, on the event loop. Equal requests share one read."""
        self._requests.setdefault(request, []).append(answered)
        self._wake.set()

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            batch = dict(list(self._requests.items())[:_BATCH])
            if not batch:
                self._wake.clear()
                continue
            for request in batch:
                del self._requests[request]
            for request, answer in (await self._read(list(batch))).items():
                for answered in batch[request]:
                    self._answer(request, answered, answer)

    def _answer(self, request: Request, answered: Callable[[Any], None], answer: Answer) -> None:
        try:
            answered(answer)
        except Exception:
            # The connection that asked is broken; those of all others wait for this task.
            logger.exception("an answer to %r could not be taken", request)

    async def _read(self, requests: Sequence[Request]) -> Mapping[Request, Answer]:
        while True:
            try:
                self.reads += 1
                return await self._database.call(read_all, requests)
            except Error as error:
                logger.warning("reading the log failed, again in %.1f s: %s", _RETRY_S, error)
                await asyncio.sleep(_RETRY_S)
            except Exception:
                logger.exception("one of %d requests to the log cannot be answered", len(requests))
                if len(requests) == 1:
                    return {}  # its connection goes on without this page, and asks again when it comes back
                half = len(requests) // 2
                return {**await self._read(requests[:half]), **await self._read(requests[half:])}

    def census(self) -> Mapping[str, int]:
        """Counts for the process report."""
        return {"requests_waiting": len(self._requests), "reads_total": self.reads}


class Unreadable(Exception):  # noqa: N818 - names what was met
    """The database is there, and refuses one of the questions."""


def read_all(requests: Sequence[Request]) -> dict[Request, Answer]:
    """Answer all requests from the database. Synchronous.

    Raises a django.db.Error when the database cannot be reached; Unreadable when one of the requests is at fault.
    """
    try:
        pages = _read_pages([request for request in requests if isinstance(request, PageRequest)])
        return {
            request: _read_position(request) if isinstance(request, PositionRequest) else pages[request]
            for request in requests
        }
    except Error as error:
        if trouble_of(error) is Trouble.OUTAGE:
            raise
        raise Unreadable from error


def read_heads(user_ids: Sequence[UserId]) -> dict[UserId, Position]:
    """The heads of these users' streams, in one query. With their epochs, which an operator may have renewed."""
    rows = Stream.objects.filter(user_id__in=user_ids).values_list("user_id", "epoch", "head", "tag")
    return {UserId(user_id): Position(epoch, head, tag) for user_id, epoch, head, tag in rows}


def read_head(user_id: UserId) -> Position:
    """Where the user's stream stands. Synchronous."""
    return _read_position(PositionRequest(user_id, None)).head


def position_before_run(user_id: UserId, run_id: RunId) -> Position | None:
    """Where the user's stream stood before the run's first event; None where that part is trimmed. Synchronous."""
    ledger = RunLedger.objects.filter(run_id=run_id, user_id=user_id).values_list("first_seq", flat=True).first()
    stream = Stream.objects.filter(user_id=user_id).first()
    if ledger is None or stream is None or ledger - 1 < stream.tail:
        return None
    tag = _tag_at(stream, ledger - 1)
    return None if tag is None else Position(stream.epoch, ledger - 1, tag)


def _read_position(request: PositionRequest) -> PositionAnswer:
    stream, _ = Stream.objects.get_or_create(user_id=request.user_id, defaults={"epoch": new_epoch()})
    head = stream.position
    after = request.after
    if after is None:
        return PositionAnswer(head, head, None)
    tail = Position(stream.epoch, stream.tail, stream.tail_tag)
    reset = judge_position(after, head, tail, _tag_at(stream, after.seq))
    return PositionAnswer(after, head, reset)


def _tag_at(stream: Stream, seq: int) -> str | None:
    if seq == 0 and stream.tail == 0:
        return GENESIS_TAG
    if seq == stream.tail:
        return stream.tail_tag
    if seq == stream.head:
        return stream.tag
    # The segment that ends here begins at most its length earlier; its place is indexed by where it begins.
    row = (
        Segment.objects.filter(user_id=stream.user_id, first_seq__lte=seq)
        .order_by("-first_seq")
        .values_list("last_seq", "tag")
        .first()
    )
    return row[1] if row is not None and row[0] == seq else None


type _Place = tuple[UserId, int]  # whose stream, and after which seq


class _Row(NamedTuple):
    """A segment without its payload."""

    user_id: int
    first_seq: int
    last_seq: int
    size: int
    tag: str
    pk: int


def _read_pages(requests: Sequence[PageRequest]) -> dict[PageRequest, PageAnswer]:
    """Three queries, whatever the number of requests. Those for the same place share one page, as large as the least of
    them takes: the tabs of one user are at the same place whenever they keep up.
    """
    if not requests:
        return {}
    bounds: dict[_Place, tuple[int, int]] = {}
    for request in requests:
        place = (request.user_id, request.after)
        events, size = bounds.get(place, (request.max_events, request.max_bytes))
        bounds[place] = min(events, request.max_events), min(size, request.max_bytes)
    chosen = _choose(bounds)
    wanted = [row.pk for rows in chosen.values() for row in rows]
    payloads = dict(Segment.objects.filter(pk__in=wanted).values_list("pk", "payload"))
    users = {user_id for user_id, _ in bounds}
    streams = {stream.user_id: stream for stream in Stream.objects.filter(pk__in=users)}
    answers = {place: _page(place, rows, payloads, streams.get(place[0])) for place, rows in chosen.items()}
    return {request: answers[request.user_id, request.after] for request in requests}


def _choose(bounds: Mapping[_Place, tuple[int, int]]) -> dict[_Place, list[_Row]]:
    """The segments that go into each page: contiguous, within its bounds, and one at least where there is one."""
    nearby = Q(pk__in=())
    for (user_id, after), (events, _) in bounds.items():
        nearby |= Q(user_id=user_id, first_seq__gt=after, first_seq__lte=after + events)
    rows: dict[int, list[_Row]] = {}
    for values in Segment.objects.filter(nearby).order_by("user_id", "first_seq").values_list(*_Row._fields):
        rows.setdefault(values[0], []).append(_Row(*values))
    chosen: dict[_Place, list[_Row]] = {}
    for (user_id, after), (most_events, most_bytes) in bounds.items():
        taken = chosen.setdefault((user_id, after), [])
        last, size = after, 0
        for row in rows.get(user_id, ()):
            if row.first_seq <= after:
                continue
            if row.first_seq != last + 1:
                break
            if taken and (row.last_seq - after > most_events or size + row.size > most_bytes):
                break
            taken.append(row)
            last, size = row.last_seq, size + row.size
    return chosen


def _page(place: _Place, rows: Sequence[_Row], payloads: Mapping[int, str], stream: Stream | None) -> PageAnswer:
    user_id, after = place
    if stream is None:
        return PageAnswer(None)
    # One that was trimmed between the queries ends the page; the next request learns that it is gone.
    read = list(takewhile(lambda row: row.pk in payloads, rows))
    if not read:
        return PageAnswer(None, stream.position if stream.tail > after else None)
    position = Position(stream.epoch, read[-1].last_seq, read[-1].tag)
    return PageAnswer(page_of(user_id, after + 1, position, [payloads[row.pk] for row in read]))
