r"""The place of one connection in its user's stream, and the decision what to send next. Pure: no I/O, no clock.

Retrying a send guarantees nothing, since a send returns when bytes are buffered. So delivery is pulled: the cursor
knows what was sent and what was acknowledged, and asks for pages of the log from exactly there. Reload, second tab,
slow tab, lost hint and restarted server are one case: the cursor is behind the head, and reads.

    NEW --subscribe--> CHECKING --positioned--> IDLE <--> READING <--> BLOCKED
                          \--refused--> RESET --subscribe--> CHECKING

Whoever drives a cursor calls one input at a time, performs the returned actions in order, and answers `CheckPosition`
and `ReadLog` with exactly one `positioned`/`refused` and `read_page` each; an answer that comes after a reset is
dropped. An input that is not legal raises ProtocolViolation and changes nothing.

The epoch may change under an open connection, when an operator rotates epochs after a restore. The cursor holds the
epoch of what it sent: a page or a head of another one means that this history has ended, and is answered by a reset.
"""

import enum
from collections import deque
from dataclasses import dataclass

from apps.realtime.protocol import CloseCode, ProtocolViolation, ResetReason
from apps.realtime.values import Page
from apps.vocabulary import Position


class CursorState(enum.Enum):
    """What the cursor waits for."""

    NEW = "new"  # the client's first subscribe
    CHECKING = "checking"  # whether the position can be served
    IDLE = "idle"  # the next event
    READING = "reading"  # a page of the log
    BLOCKED = "blocked"  # an ack that makes room in the window
    RESET = "reset"  # a new subscribe, after a reset


_SENDING = frozenset({CursorState.IDLE, CursorState.READING, CursorState.BLOCKED})


@dataclass(frozen=True, slots=True)
class CheckPosition:
    """Look whether `after` (None: the head) lies in this stream's history."""

    after: Position | None


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Read whole segments from `after` + 1 on: at most these events and bytes, at least one segment."""

    after: int
    max_events: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class SendEvents:
    """Send this page to the tab."""

    page: Page


@dataclass(frozen=True, slots=True)
class SendReset:
    """Tell the tab that its position cannot be served."""

    reason: ResetReason
    head: Position


Action = CheckPosition | ReadLog | SendEvents | SendReset


def judge_position(after: Position, head: Position, tail: Position, tag_at_after: str | None) -> ResetReason | None:
    """Why `after` cannot be served from a stream that reaches from `tail` to `head`; None when it can.

    `tag_at_after` is the stored checksum at `after.seq`, None where no segment ends.
    """
    if after.epoch != head.epoch:
        return ResetReason.EPOCH_CHANGED
    if after.seq > head.seq:
        return ResetReason.AHEAD
    if after.seq < tail.seq:
        return ResetReason.TRIMMED
    if after.tag != tag_at_after:
        return ResetReason.FORKED
    return None


@dataclass(slots=True)
class _Sent:
    last_seq: int
    size: int


class DeliveryCursor:
    """See the module. `window_events` and `window_bytes` bound what is sent beyond the last ack.

    A page larger than the window goes alone. `segment_events` and `segment_bytes` are the largest ordinary segment:
    with less room than that a read would be wasted.
    """

    def __init__(self, *, window_events: int, window_bytes: int, segment_events: int, segment_bytes: int) -> None:
        self.window_events = window_events
        self.window_bytes = window_bytes
        self._segment_events = segment_events
        self._segment_bytes = segment_bytes
        self.state = CursorState.NEW
        self.sent = 0
        self.acked = 0
        self.head = 0
        self.epoch = ""  # of the history that is being sent; known with the first position
        self._outstanding: deque[_Sent] = deque()
        self._outstanding_bytes = 0
        self._refused_page: Page | None = None  # read, but larger than the room there was
        self._head_when_read = 0  # what the log was known to reach when the open ReadLog was asked for

    def __repr__(self) -> str:
        return f"<DeliveryCursor {self.state.value} acked={self.acked} sent={self.sent} head={self.head}>"

    @property
    def is_sending(self) -> bool:
        """Whether the position is known, and acks count."""
        return self.state in _SENDING

    @property
    def lag(self) -> int:
        """Events known to exist and not yet acknowledged."""
        return max(self.head - self.acked, 0)

    @property
    def outstanding(self) -> tuple[int, int]:
        """Events and bytes sent beyond the last ack."""
        return self.sent - self.acked, self._outstanding_bytes

    # -- inputs: the client

    def subscribed(self, after: Position | None) -> list[Action]:
        """The client asks for events after a position. Legal as the first frame, and after a reset."""
        if self.state not in (CursorState.NEW, CursorState.RESET):
            raise ProtocolViolation(CloseCode.VIOLATION, "subscribe again is allowed only after a reset")
        self.state = CursorState.CHECKING
        return [CheckPosition(after)]

    def acknowledged(self, seq: int) -> list[Action]:
        """The tab applied all events up to `seq`. An older ack than the last changes nothing."""
        if self.state in (CursorState.RESET, CursorState.CHECKING):
            return []  # it may have been under way when the reset was sent
        if self.state is CursorState.NEW:
            raise ProtocolViolation(CloseCode.VIOLATION, "the first frame is subscribe")
        if seq > self.sent:
            raise ProtocolViolation(CloseCode.VIOLATION, f"ack of {seq}, but only {self.sent} was sent")
        if seq <= self.acked:
            return []
        self.acked = seq
        while self._outstanding and self._outstanding[0].last_seq <= seq:
            self._outstanding_bytes -= self._outstanding.popleft().size
        return self._advance() if self.state is CursorState.BLOCKED else []

    # -- inputs: the log

    def positioned(self, position: Position, head: int) -> list[Action]:
        """The answer to CheckPosition: `position` lies in the history, whose head is `head`."""
        self._expect(CursorState.CHECKING)
        self.sent = self.acked = position.seq
        self.epoch = position.epoch
        self.head = max(self.head, head)  # a commit may have been seen since the head was read
        self._outstanding.clear()
        self._outstanding_bytes = 0
        self._refused_page = None
        return self._advance()

    def refused(self, reason: ResetReason, head: Position) -> list[Action]:
        """The answer to CheckPosition, or to ReadLog when what it asked for is trimmed: it cannot be served."""
        if self.state not in (CursorState.CHECKING, CursorState.READING):
            raise RuntimeError(f"refused while {self.state}")
        self.state = CursorState.RESET
        return [SendReset(reason, head)]

    def hinted(self, head: int) -> list[Action]:
        """The stream has reached at least `head`. A hint that is late, doubled or lost changes nothing but latency."""
        self.head = max(self.head, head)
        return self._advance() if self.state is CursorState.IDLE else []

    def polled(self, head: Position) -> list[Action]:
        """The stream's head as the database told it: as a hint, and a reset where the history is another one."""
        return self._other_history(head) or self.hinted(head.seq)

    def committed(self, page: Page) -> list[Action]:
        """A page just committed by this process: sent straight on if it continues what was sent, and fits."""
        if ended := self._other_history(page.position):
            return ended
        self.head = max(self.head, page.position.seq)
        if self.state is not CursorState.IDLE:
            return []
        # Many segments may have been committed together; the log gives them in parts that the window holds.
        handy = page.count == 1 or (page.count <= self.window_events and page.size <= self.window_bytes)
        if page.first == self.sent + 1 and handy and self._fits(page):
            return [self._send(page)]
        return self._advance()

    def read_page(self, page: Page | None) -> list[Action]:
        """The answer to ReadLog. None: there is nothing after what was sent (a hint ran ahead of the log)."""
        self._expect(CursorState.READING)
        if page is None:
            if self.head == self._head_when_read:
                self.head = self.sent
            return self._advance()
        if ended := self._other_history(page.position):
            return ended
        if page.first != self.sent + 1:
            raise RuntimeError(f"a page from {page.first} cannot follow {self.sent}")
        if not self._fits(page):
            self.state = CursorState.BLOCKED
            self._refused_page = page
            return []
        return [self._send(page), *self._advance()]

    # -- decisions

    def _other_history(self, position: Position) -> list[Action]:
        if position.epoch == self.epoch or self.state not in _SENDING:
            return []
        self.state = CursorState.RESET
        self.head = 0  # seqs of the two histories do not compare
        return [SendReset(ResetReason.EPOCH_CHANGED, position)]

    def _advance(self) -> list[Action]:
        if self.head <= self.sent:
            self.state = CursorState.IDLE
            return []
        if (page := self._refused_page) is not None:
            if not self._fits(page):
                self.state = CursorState.BLOCKED
                return []
            self._refused_page = None
            return [self._send(page), *self._advance()]
        events, size = self.outstanding
        room_events, room_bytes = self.window_events - events, self.window_bytes - size
        if events and (room_events < self._segment_events or room_bytes < self._segment_bytes):
            self.state = CursorState.BLOCKED
            return []
        self.state = CursorState.READING
        self._head_when_read = self.head
        return [ReadLog(self.sent, room_events, room_bytes)]

    def _fits(self, page: Page) -> bool:
        events, size = self.outstanding
        if not events:
            return True  # what is larger than the window goes alone
        return events + page.count <= self.window_events and size + page.size <= self.window_bytes

    def _send(self, page: Page) -> SendEvents:
        self.sent = page.position.seq
        self._outstanding.append(_Sent(self.sent, page.size))
        self._outstanding_bytes += page.size
        self.head = max(self.head, self.sent)
        return SendEvents(page)

    def _expect(self, state: CursorState) -> None:
        if self.state is not state:
            raise RuntimeError(f"this input belongs to {state}, the cursor is {self.state}")
