"""The sender of one connection: drives its cursor, performs what the cursor decides, in order, and nothing else.

Inputs come on the event loop and never wait; one task performs the actions, because only `send` may have to. What waits
to be sent is bounded: events by the cursor's window, of pongs and pings one each, replies and refusals by
`waiting_frames`, beyond which the tab is closed, since it does not read.

An ack counts from the moment at which the frame was handed to the transport. Else a tab that acknowledges what another
tab of its user has read, and reads nothing itself, would move its window on and on, and everything would wait here.
"""

import logging
from asyncio import CancelledError, Event, Task
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from apps.realtime import protocol
from apps.realtime.cursor import Action, CheckPosition, CursorState, DeliveryCursor, ReadLog, SendEvents, SendReset
from apps.realtime.protocol import CloseCode, ProtocolViolation, ResetReason
from apps.realtime.reader import PageAnswer, PageReader, PageRequest, PositionAnswer, PositionRequest
from apps.realtime.values import Page
from apps.vocabulary import Position, UserId

logger = logging.getLogger(__name__)


class Transport(Protocol):
    """The socket, as the consumer lends it."""

    async def send_text(self, text: str) -> None: ...
    async def send_bytes(self, content: bytes) -> None: ...
    async def close(self, code: int) -> None: ...


class TabUnreachable(Exception):  # noqa: N818 - says what happened
    """The tab was told to go, and took neither that nor what went before it in time."""


@dataclass(slots=True)
class _Waiting:
    """One frame. Text that is not ASCII waits as UTF-8: as a `str` it would take up to four times its size."""

    content: str | bytes
    is_text: bool
    upto: int | None = None  # the last event in it


class UserWebSocketEmitter:
    """One per connection. `run` is the task body; everything else is synchronous and called on the loop."""

    def __init__(
        self,
        user_id: UserId,
        transport: Transport,
        cursor: DeliveryCursor,
        reader: PageReader,
        waiting_frames: int,
    ) -> None:
        self._user_id = user_id
        self._transport = transport
        self._cursor = cursor
        self._reader = reader
        self._waiting_frames = waiting_frames
        self._frames: deque[_Waiting] = deque()
        self._words = 0  # those of the frames that hold no events
        self._pong_t: float | None = None  # the pong that waits, if any
        self._greeted = False
        self._handed_over = 0  # seq of the last event that the transport was given
        self._asked = 0  # requests to the reader so far; the answer to an older one than the last is dropped
        self._close_code: CloseCode | None = None
        self._task: Task[None] | None = None
        self._wake = Event()
        self._deflate = False
        self._aborted = False
        self.closed = False

    # -- inputs

    def greet(self, hello: str) -> None:
        """Send the first frame; what waits goes after it."""
        if self._close_code is not None:
            return
        self._frames.appendleft(_text(hello))
        self._words += 1
        self._greeted = True
        self._wake.set()

    def enqueue(self, frame: str) -> bool:
        """Send this frame after what waits already. False, and not sent, when too many replies wait unread."""
        if self._close_code is not None:
            return True
        if self._words >= self._waiting_frames:
            return False
        self._frames.append(_text(frame))
        self._words += 1
        self._wake.set()
        return True

    def answer_ping(self, t: float) -> None:
        """Send a pong after what waits already. Of several pings that wait for their answer the last is answered."""
        if self._close_code is None:
            if self._pong_t is None:
                self._frames.append(_Waiting("", is_text=True))
                self._wake.set()
            self._pong_t = t

    def close(self, code: CloseCode, reason: str, retry_after_ms: int) -> None:
        """Say bye and close, after what waits already. The first close wins."""
        if self._close_code is None:
            self._frames.append(_text(protocol.bye(code, reason, retry_after_ms)))
            self._words += 1
            self._close_code = code
            self._wake.set()

    def abort(self) -> None:
        """Let `run` raise TabUnreachable, whatever it waits for."""
        if self._task is not None and not self._task.done():
            self._aborted = True
            self._task.cancel()

    def compress_events(self) -> None:
        """From now on send large events frames as raw deflate."""
        self._deflate = True

    def subscribed(self, after: Position | None) -> None:
        self._perform(self._cursor.subscribed(after))

    def acknowledged(self, seq: int) -> None:
        if seq > self._handed_over and self._cursor.is_sending:
            text = f"ack of {seq}, but only {self._handed_over} was sent"
            raise ProtocolViolation(CloseCode.VIOLATION, text)
        self._perform(self._cursor.acknowledged(seq))

    def committed(self, page: Page) -> None:
        self._perform(self._cursor.committed(page))

    def hinted(self, head: int) -> None:
        self._perform(self._cursor.hinted(head))

    def polled(self, head: Position) -> None:
        self._perform(self._cursor.polled(head))

    # -- the task

    def started_as(self, task: Task[None]) -> None:
        """Learn which task runs `run`, so that `abort` can end it."""
        self._task = task

    async def run(self) -> None:
        """Send until the connection is closed, by either side. Raises TabUnreachable after `abort`."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._greeted or self._close_code is not None:
                    while self._frames:
                        await self._hand_over(self._frames.popleft())
                if self._close_code is not None:
                    self.closed = True
                    await self._transport.close(self._close_code)
                    return
        except CancelledError:
            if self._aborted:
                raise TabUnreachable(TabUnreachable.__doc__) from None
            raise

    async def _hand_over(self, waiting: _Waiting) -> None:
        content = waiting.content
        if waiting.upto is not None:
            self._handed_over = waiting.upto  # before the await: the tab may read it while `send` still waits
        elif content:
            self._words -= 1
        else:
            content, self._pong_t = protocol.pong(self._pong_t or 0), None
        if isinstance(content, str):
            await self._transport.send_text(content)
        elif waiting.is_text:
            await self._transport.send_text(content.decode())
        else:
            await self._transport.send_bytes(content)

    # -- performing

    def _perform(self, actions: list[Action]) -> None:
        if self._close_code is not None:
            return
        for action in actions:
            match action:
                case SendEvents(page):
                    self._frames.append(self._events(page))
                    self._wake.set()
                case ReadLog(after, max_events, max_bytes):
                    self._asked += 1
                    request = PageRequest(self._user_id, after, max_events, max_bytes)
                    self._reader.ask(request, partial(self._page_answered, self._asked))
                case CheckPosition(after):
                    self._asked += 1
                    self._reader.ask(
                        PositionRequest(self._user_id, after), partial(self._position_answered, self._asked)
                    )
                case SendReset(reason, head):
                    self._asked += 1  # what was asked of the history that ended is of no use
                    self._frames.append(_text(protocol.reset(reason, head)))
                    self._words += 1
                    self._wake.set()

    def _events(self, page: Page) -> _Waiting:
        # What is made here is kept on the page, for the other tabs of its user.
        upto, made = page.position.seq, page.frames
        if self._deflate and protocol.is_worth_deflating(page):
            if made.deflated is None:
                made.deflated = protocol.deflated(protocol.events(page))
            return _Waiting(made.deflated, is_text=False, upto=upto)
        if made.text is None:
            made.text = _compact(protocol.events(page))
        return _Waiting(made.text, is_text=True, upto=upto)

    def _position_answered(self, asked: int, answer: PositionAnswer) -> None:
        if asked != self._asked:
            return
        if answer.reset is None:
            self._handed_over = answer.position.seq
            self._perform(self._cursor.positioned(answer.position, answer.head.seq))
        else:
            self._perform(self._cursor.refused(answer.reset, answer.head))

    def _page_answered(self, asked: int, answer: PageAnswer) -> None:
        if asked != self._asked or self._cursor.state is not CursorState.READING:
            return
        if answer.trimmed_head is not None:
            self._perform(self._cursor.refused(ResetReason.TRIMMED, answer.trimmed_head))
        else:
            self._perform(self._cursor.read_page(answer.page))


def _text(frame: str) -> _Waiting:
    return _Waiting(_compact(frame), is_text=True)


def _compact(frame: str) -> str | bytes:
    return frame if frame.isascii() else frame.encode()
