"""Back-pressure for Daphne, which has none in either direction: what it buffers for one client has a bound here.

Out. Daphne's `send` returns at once and its transport takes everything: 200 MB for a tab that never reads. Here `send`
writes, and then waits while the transport holds more than it should (64 KiB, Twisted's own mark). So a sender learns
that its client does not read, and what is written beyond that mark is one frame.

In. Daphne queues every frame until the application asks for it, and autobahn keeps every byte that comes before the
handshake is answered. Here reading from the client stops while too much waits, TCP slows the client down, and reading
goes on when the application has caught up. What one read brings (64 KiB) still comes after the bound is reached.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from daphne.http_protocol import WebRequest
from daphne.ws_protocol import WebSocketProtocol
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

Message = Mapping[str, Any]


@implementer(IPushProducer)
class Outlet:
    """Whether the transport takes more. Twisted calls it, as the producer of what is written."""

    def __init__(self) -> None:
        self._is_free = asyncio.Event()
        self._is_free.set()

    @property
    def is_full(self) -> bool:
        """Whether more is written than the client has taken."""
        return not self._is_free.is_set()

    async def until_free(self) -> None:
        """Return when the client has taken enough, or is gone."""
        await self._is_free.wait()

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport holds too much."""
        self._is_free.clear()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport is empty again."""
        self._is_free.set()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The connection is lost: nobody need wait for it."""
        self._is_free.set()


class Intake(asyncio.Queue[Message]):
    """The frames of one client that wait for the application. Reading stops at `frames` or `size` bytes of them."""

    def __init__(self, frames: int, size: int) -> None:
        super().__init__()
        self._most_frames = frames
        self._most_bytes = size
        self._bytes = 0
        self._paused: Any = None  # the transport whose reading was stopped

    def received(self, message: Message, transport: Any) -> None:
        """Take a frame that came over this transport."""
        self._bytes += _size(message)
        self.put_nowait(message)
        if self._paused is None and (self.qsize() >= self._most_frames or self._bytes >= self._most_bytes):
            self._paused = transport
            transport.pauseProducing()

    def _get(self) -> Message:  # called by asyncio's queue wherever it gives an item away
        message: Message = super()._get()
        self._bytes -= _size(message)
        if self._paused is not None and not self.qsize():
            transport, self._paused = self._paused, None
            transport.resumeProducing()
        return message


class BoundedWebSocket(WebSocketProtocol):  # type: ignore[misc]  # Daphne has no types
    """Daphne's socket with both bounds. `application_queue` is an Intake; the server makes it."""

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """Take the transport over from the HTTP channel, which stays its producer otherwise, and in memory with it."""
        self.outlet = Outlet()
        self._heard_early = False
        self.transport.unregisterProducer()
        self.transport.registerProducer(self.outlet, True)  # noqa: FBT003 - Twisted's signature
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Read on only until the handshake is answered: what a client says before that waits in its own buffers."""
        super().dataReceived(data)
        if self.state == self.STATE_CONNECTING:
            if self._heard_early:
                self.transport.pauseProducing()
            self._heard_early = True  # the first data are the request of the handshake itself

    def unregisterProducer(self) -> None:  # noqa: N802 - autobahn's name
        """The connection is being dropped: whoever waits to send goes on, into nothing."""
        self.outlet.stopProducing()
        super().unregisterProducer()

    def serverAccept(self, subprotocol: str | None = None) -> None:  # noqa: N802 - Daphne's name
        """The handshake is answered: read on."""
        super().serverAccept(subprotocol)
        self.transport.resumeProducing()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803, FBT001 - autobahn's names
        """Hand a frame on."""
        if not self.muted:
            self.last_ping = time.time()  # Daphne pings those it heard nothing from
            content = {"bytes": payload} if isBinary else {"text": payload.decode()}
            self.application_queue.received({"type": "websocket.receive", **content}, self.transport)


class BoundedRequest(WebRequest):  # type: ignore[misc]  # Daphne has no types
    """Daphne's request, whose streamed response waits for the client that reads it."""

    outlet: Outlet | None = None

    def handle_reply(self, message: Message) -> None:
        """Write what the application answers."""
        if message["type"] == "http.response.body" and not self.finished and not self._disconnected:
            if message.get("more_body") and self.outlet is None:
                self.outlet = Outlet()
                self.registerProducer(self.outlet, True)  # noqa: FBT003 - Twisted's signature
            elif not message.get("more_body") and self.outlet is not None:
                self.unregisterProducer()
                self.outlet = None
        super().handle_reply(message)

    def abort(self) -> None:
        """Cut off a client that does not read."""
        if self.channel is not None:
            self.channel.forceAbortClient()


def _size(message: Message) -> int:
    return len(message.get("text") or message.get("bytes") or "")
