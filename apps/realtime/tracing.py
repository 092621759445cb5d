"""What happened to events in this process lately: hinted, sent, acknowledged, with times, in a bounded ring. Pure.

It is for an operator who asks after one event, so it is written with every page and read almost never: a mark is one
tuple at the end of a ring, and finding one walks the ring. Times are Unix seconds of this process's clock. The cursor
of a connection sees all three steps; the one here takes notes, and decides what any other decides.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, override

from apps.realtime.cursor import Action, CursorState, DeliveryCursor, SendEvents
from apps.realtime.values import Page
from apps.vocabulary import ConnectionId, UserId

Step = Literal["hinted", "sent", "acked"]

_SENDING = frozenset({CursorState.IDLE, CursorState.READING, CursorState.BLOCKED})  # before, all of the past is news


@dataclass(frozen=True, slots=True)
class Mark:
    """One step of an event's walk to one connection."""

    step: Step
    at: float
    connection_id: ConnectionId


class DeliveryTrace:
    """Holds the last `marks` marks; older ones are no longer known. Used on the event loop and read anywhere."""

    def __init__(self, marks: int, clock: Callable[[], float] = time.time) -> None:
        self._ring: deque[tuple[Step, float, UserId, ConnectionId, int, int]] = deque(maxlen=marks)
        self._clock = clock
        self._began = clock()

    def note(self, step: Step, user_id: UserId, connection_id: ConnectionId, first: int, last: int) -> None:
        """The events `first`..`last` of this user came so far on this connection."""
        self._ring.append((step, self._clock(), user_id, connection_id, first, last))

    @property
    def known_since(self) -> float:
        """What happened before is no longer known."""
        full = len(self._ring) == self._ring.maxlen
        return self._ring[0][1] if full else self._began

    def find(self, user_id: UserId, seq: int) -> list[Mark]:
        """The walk of one event here, in the order in which it happened."""
        return [
            Mark(step, at, connection_id)
            for step, at, user, connection_id, first, last in list(self._ring)
            if user == user_id and first <= seq <= last
        ]


class TracedCursor(DeliveryCursor):
    """The cursor of one connection, which notes what it hears, what it has sent and what was acknowledged."""

    def __init__(
        self,
        trace: DeliveryTrace,
        user_id: UserId,
        connection_id: ConnectionId,
        *,
        window_events: int,
        window_bytes: int,
        segment_events: int,
        segment_bytes: int,
    ) -> None:
        super().__init__(
            window_events=window_events,
            window_bytes=window_bytes,
            segment_events=segment_events,
            segment_bytes=segment_bytes,
        )
        self._trace = trace
        self._place = user_id, connection_id

    @override
    def hinted(self, head: int) -> list[Action]:
        self._hears_of(head)
        return super().hinted(head)

    @override
    def committed(self, page: Page) -> list[Action]:
        self._hears_of(page.position.seq)
        return super().committed(page)

    @override
    def acknowledged(self, seq: int) -> list[Action]:
        acked = self.acked
        actions = super().acknowledged(seq)
        if self.acked > acked:
            self._trace.note("acked", *self._place, acked + 1, self.acked)
        return actions

    @override
    def _send(self, page: Page) -> SendEvents:
        self._trace.note("sent", *self._place, page.first, page.position.seq)
        return super()._send(page)

    def _hears_of(self, head: int) -> None:
        if head > self.head and self.state in _SENDING:
            self._trace.note("hinted", *self._place, self.head + 1, head)
