"""One open socket of one user: identity, cursor, sender and health, and the task that owns the sending.

Entered when the handshake has named a user, left on every way out of the consumer; leaving cancels the sender and takes
the connection out of the pool. It owns no queue of events: the log is the queue, and survives the process.
"""

import asyncio
import enum
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from apps.realtime import protocol
from apps.realtime.cursor import CursorState, DeliveryCursor
from apps.realtime.emitter import UserWebSocketEmitter
from apps.realtime.protocol import Ack, CloseCode, Limits, Ping, Pong, Subscribe, Window
from apps.realtime.values import Page
from apps.vocabulary import ConnectionId, Identity, Position

logger = logging.getLogger(__name__)

_LAGGING_EVENTS = 64  # events behind the head from which a connection is reported as lagging


class Health(enum.StrEnum):
    """How a connection keeps up."""

    HEALTHY = "healthy"  # at most one segment behind
    LAGGING = "lagging"  # further behind, and acknowledging
    STALLED = "stalled"  # has left a ping unanswered
    DRAINING = "draining"  # told to go


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Times in seconds. `heartbeat_s` is the interval of pings, `stall_timeout_s` how long one may stay unanswered."""

    window: Window
    announced: Limits
    segment_events: int
    segment_bytes: int
    heartbeat_s: float
    stall_timeout_s: float
    subscribe_timeout_s: float


class Membership(Protocol):
    """The pool, as far as a connection knows it."""

    def add(self, connection: "UserWebSocketContext") -> None: ...
    def remove(self, connection: "UserWebSocketContext") -> None: ...


class UserWebSocketContext:
    """The lifetime of a connection. `async with`; all methods are called on the event loop and never wait."""

    def __init__(
        self,
        *,
        connection_id: ConnectionId,
        identity: Identity,
        principal: object,
        emitter: UserWebSocketEmitter,
        cursor: DeliveryCursor,
        head: Position,
        limits: ConnectionLimits,
        members: Membership,
        retry_after_ms: Callable[[], int],
        now: float,
    ) -> None:
        self.connection_id = connection_id
        self.identity = identity
        self.principal = principal
        self._emitter = emitter
        self._cursor = cursor
        self._head_at_start = head
        self._limits = limits
        self._members = members
        self._retry_after_ms = retry_after_ms
        self._sender: asyncio.Task[None] | None = None
        self._opened_at = now
        self._last_ping = now
        self._ping_t: float | None = None
        self._unanswered_since: float | None = None
        self._draining = False

    def __repr__(self) -> str:
        return f"<UserWebSocketContext {self.connection_id} {self.health.value} {self._cursor!r}>"

    def __del__(self) -> None:
        if self._sender is not None:
            warnings.warn(f"{self.connection_id} was collected while open", ResourceWarning, stacklevel=1)

    async def __aenter__(self) -> Self:
        self._members.add(self)
        self._sender = asyncio.create_task(self._emitter.run(), name=f"emitter-{self.connection_id}")
        limits = self._limits
        self._emitter.enqueue(
            protocol.hello(
                self.connection_id,
                self.identity,
                self._head_at_start,
                limits.heartbeat_s,
                limits.window,
                limits.announced,
            )
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._members.remove(self)
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.cancel()
            await asyncio.wait([sender])
            if not sender.cancelled() and (failure := sender.exception()) is not None:
                logger.error("sending to %s failed", self.connection_id, exc_info=failure)

    # -- what the client says

    def subscribe(self, frame: Subscribe) -> None:
        """Begin to send events. Raises ProtocolViolation when the client is subscribed already.

        Without a position the first subscribe begins at the head that `hello` told, so that nothing is missed of what
        is committed between the two.
        """
        if frame.compress is not None:
            self._emitter.compress_events()
        after = frame.after
        if after is None and self._cursor.state is CursorState.NEW:
            after = self._head_at_start
        self._emitter.subscribed(after)

    def acknowledged(self, frame: Ack) -> None:
        """Move the window. Raises ProtocolViolation for an ack of what was never sent."""
        self._advance_to(frame.seq)

    def pinged(self, frame: Ping) -> None:
        """Answer a client's ping."""
        self._emitter.enqueue(protocol.pong(frame.t))

    def ponged(self, frame: Pong) -> None:
        """The tab lives, if it answers the last ping; its pong carries the rest of its acks."""
        if frame.t == self._ping_t:
            self._unanswered_since = None
        if self.subscribed:
            self._advance_to(frame.acked)

    def _advance_to(self, seq: int) -> None:
        # Only what proves that the tab reads counts as life: a tab that talks and never reads must stall.
        acked = self._cursor.acked
        self._emitter.acknowledged(seq)
        if self._cursor.acked > acked:
            self._unanswered_since = None

    # -- what the server says

    def reply(self, frame: str) -> None:
        """Send the reply to a command."""
        self._emitter.enqueue(frame)

    def close(self, code: CloseCode, reason: str) -> None:
        """Say bye and close the socket, after what waits to be sent."""
        self._draining = True
        self._emitter.close(code, reason, self._retry_after_ms())

    def committed(self, page: Page) -> None:
        """A page of this user's stream was committed by this process."""
        self._emitter.committed(page)

    def hinted(self, head: int) -> None:
        """The user's stream has reached `head`."""
        self._emitter.hinted(head)

    def tick(self, now: float) -> None:
        """Ping in time; close a socket that neither progresses nor answers. `now` is monotonic, in seconds."""
        limits = self._limits
        if self._cursor.state is CursorState.NEW and now - self._opened_at > limits.subscribe_timeout_s:
            self.close(CloseCode.VIOLATION, "no subscribe in time; it is the first frame")
            return
        if self._unanswered_since is not None and now - self._unanswered_since > limits.stall_timeout_s:
            self.close(CloseCode.NO_PROGRESS, "no ack and no pong in time")
            return
        if now - self._last_ping >= limits.heartbeat_s:
            self._last_ping = now
            if self._unanswered_since is None:
                self._unanswered_since = now
            self._ping_t = round(now, 3)
            self._emitter.enqueue(protocol.ping(self._ping_t))

    # -- what operators see

    @property
    def subscribed(self) -> bool:
        return self._cursor.state not in (CursorState.NEW, CursorState.RESET, CursorState.CHECKING)

    @property
    def lag(self) -> int:
        """Events that exist and are not acknowledged."""
        return self._cursor.lag if self.subscribed else 0

    @property
    def health(self) -> Health:
        if self._draining:
            return Health.DRAINING
        if self._unanswered_since is not None and self._last_ping > self._unanswered_since:
            return Health.STALLED
        return Health.LAGGING if self.lag > _LAGGING_EVENTS else Health.HEALTHY
