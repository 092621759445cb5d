"""The sender of one connection: drives its cursor, performs what the cursor decides, in order, and nothing else.

Inputs come on the event loop and never wait; one task performs the actions, because only `send` may have to. What
waits to be sent is bounded by the cursor's window, by one reply for each command in the inbox, and by one ping.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from apps.realtime import protocol
from apps.realtime.cursor import Action, CheckPosition, CursorState, DeliveryCursor, ReadLog, SendEvents, SendReset
from apps.realtime.protocol import CloseCode, ResetReason
from apps.realtime.reader import PageAnswer, PageReader, PageRequest, PositionAnswer, PositionRequest
from apps.realtime.values import Page
from apps.vocabulary import Position, UserId

logger = logging.getLogger(__name__)


class Transport(Protocol):
    """The socket, as the consumer lends it."""

    async def send_text(self, text: str) -> None: ...
    async def send_bytes(self, content: bytes) -> None: ...
    async def close(self, code: int) -> None: ...


class UserWebSocketEmitter:
    """One per connection. `run` is the task body; everything else is synchronous and called on the loop."""

    def __init__(self, user_id: UserId, transport: Transport, cursor: DeliveryCursor, reader: PageReader) -> None:
        self._user_id = user_id
        self._transport = transport
        self._cursor = cursor
        self._reader = reader
        self._frames: deque[str | bytes] = deque()
        self._close_code: CloseCode | None = None
        self._wake = asyncio.Event()
        self._compress: Callable[[str], str | bytes] = str
        self.closed = False

    # -- inputs

    def enqueue(self, frame: str) -> None:
        """Send this frame after what waits already."""
        if self._close_code is None:
            self._frames.append(frame)
            self._wake.set()

    def close(self, code: CloseCode, reason: str, retry_after_ms: int) -> None:
        """Say bye and close, after what waits already. The first close wins."""
        if self._close_code is None:
            self._frames.append(protocol.bye(code, reason, retry_after_ms))
            self._close_code = code
            self._wake.set()

    def compress_events(self) -> None:
        """From now on send large events frames as raw deflate."""
        self._compress = _deflate_large

    def subscribed(self, after: Position | None) -> None:
        self._perform(self._cursor.subscribed(after))

    def acknowledged(self, seq: int) -> None:
        self._perform(self._cursor.acknowledged(seq))

    def committed(self, page: Page) -> None:
        self._perform(self._cursor.committed(page))

    def hinted(self, head: int) -> None:
        self._perform(self._cursor.hinted(head))

    # -- the task

    async def run(self) -> None:
        """Send until the connection is closed, by either side."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._frames:
                frame = self._frames.popleft()
                if isinstance(frame, str):
                    await self._transport.send_text(frame)
                else:
                    await self._transport.send_bytes(frame)
            if self._close_code is not None:
                self.closed = True
                await self._transport.close(self._close_code)
                return

    # -- performing

    def _perform(self, actions: list[Action]) -> None:
        if self._close_code is not None:
            return
        for action in actions:
            match action:
                case SendEvents(page):
                    self._frames.append(self._compress(protocol.events(page)))
                    self._wake.set()
                case ReadLog(after, max_events, max_bytes):
                    self._reader.ask(PageRequest(self._user_id, after, max_events, max_bytes), self._page_answered)
                case CheckPosition(after):
                    self._reader.ask(PositionRequest(self._user_id, after), self._position_answered)
                case SendReset(reason, head):
                    self.enqueue(protocol.reset(reason, head))

    def _position_answered(self, answer: PositionAnswer) -> None:
        if self._cursor.state is not CursorState.CHECKING:
            return
        if answer.reset is None:
            self._perform(self._cursor.positioned(answer.position, answer.head.seq))
        else:
            self._perform(self._cursor.refused(answer.reset, answer.head))

    def _page_answered(self, answer: PageAnswer) -> None:
        if self._cursor.state is not CursorState.READING:
            return
        if answer.trimmed_head is not None:
            self._perform(self._cursor.refused(ResetReason.TRIMMED, answer.trimmed_head))
        else:
            self._perform(self._cursor.read_page(answer.page))


def _deflate_large(frame: str) -> str | bytes:
    return protocol.deflated(frame) if len(frame.encode()) > protocol.COMPRESS_ABOVE_BYTES else frame
