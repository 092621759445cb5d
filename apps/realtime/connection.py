"""One open socket of one user: identity, cursor, sender and health, and the task that owns the sending.

Entered when the handshake has named a user, left on every way out of the consumer; leaving cancels the sender and takes
the connection out of the pool. It owns no queue of events: the log is the queue, and survives the process.

The first frame needs the stream's head, and a database may be slow. So a connection is in the pool, bounded and
counted, and hears its tab, while it still waits for that; what it has to say waits with it.
"""

import asyncio
import enum
import logging
import warnings
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, Self

from apps.realtime import protocol
from apps.realtime.cursor import CursorState, DeliveryCursor
from apps.realtime.emitter import TabUnreachable, UserWebSocketEmitter
from apps.realtime.proofs import ProofChecker
from apps.realtime.protocol import Ack, CloseCode, Limits, Ping, Pong, ProtocolViolation, Subscribe, Window
from apps.realtime.values import Page
from apps.vocabulary import ConnectionId, Identity, Position

logger = logging.getLogger(__name__)


class Health(enum.StrEnum):
    """How a connection keeps up."""

    HEALTHY = "healthy"  # at most `lagging_events` behind the head
    LAGGING = "lagging"  # further behind, and it answers
    STALLED = "stalled"  # has left a ping unanswered for `stalled_after_s`
    DRAINING = "draining"  # told to go


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Times in seconds. `heartbeat_s` is the interval of pings, `stall_timeout_s` how long one may stay unanswered.

    From `stalled_after_s` on a connection is reported as stalled; from `lagging_events` unacknowledged events on as
    lagging. Who was told to go has `closing_s` to take it. `waiting_frames` bounds what waits beside events.
    """

    window: Window
    announced: Limits
    segment_events: int
    segment_bytes: int
    heartbeat_s: float
    stall_timeout_s: float
    subscribe_timeout_s: float
    closing_s: float
    stalled_after_s: float
    lagging_events: int
    waiting_frames: int

    def announcing(self, runs: int) -> "ConnectionLimits":
        """The same, for a user who may have so many open runs."""
        return replace(self, announced=replace(self.announced, runs=runs))


class Membership(Protocol):
    """The pool, as far as a connection knows it."""

    def add(self, connection: "UserWebSocketContext") -> None: ...
    def remove(self, connection: "UserWebSocketContext") -> None: ...
    def closing(self, code: CloseCode) -> None: ...
    def retry_after_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class LastWords:
    """What is still to be said to a tab whose sender has ended by itself."""

    code: CloseCode
    reason: str
    retry_after_ms: int


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
        limits: ConnectionLimits,
        members: Membership,
        proofs: ProofChecker,
        now: float,
    ) -> None:
        self.connection_id = connection_id
        self.identity = identity
        self.principal = principal
        self._emitter = emitter
        self._cursor = cursor
        self._limits = limits
        self._members = members
        self._proofs = proofs
        self._tasks = asyncio.TaskGroup()
        self._sender: asyncio.Task[None] | None = None
        self._head_at_start: Position | None = None  # None until it is greeted
        self._waiting_subscribe: Subscribe | None = None  # heard before it was greeted
        self._opened_at = now
        self._looked_at = now
        self._last_ping = now
        self._ping_t: float | None = None
        self._unanswered_since: float | None = None
        self._closing_since: float | None = None
        self._close_code = CloseCode.GOING_AWAY
        self.last_words: LastWords | None = None  # known when it is left

    def __repr__(self) -> str:
        return f"<UserWebSocketContext {self.connection_id} {self.health.value} {self._cursor!r}>"

    def __del__(self) -> None:
        if self._sender is not None:
            warnings.warn(f"{self.connection_id} was collected while open", ResourceWarning, stacklevel=1)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._members.add(self)
        self._sender = self._tasks.create_task(self._emitter.run(), name=f"emitter-{self.connection_id}")
        self._emitter.started_as(self._sender)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Leave the pool and end the sender. A sender that failed ended the block: then that is reported here."""
        self._members.remove(self)
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.cancel()
        cancelled = error if isinstance(error, asyncio.CancelledError) else None
        try:
            await self._tasks.__aexit__(None if cancelled is None else kind, cancelled, None)
        except BaseExceptionGroup as group:
            self._report(group)
            return error is cancelled  # an error of the block's own goes on
        return False

    def _report(self, failures: BaseExceptionGroup[BaseException]) -> None:
        _, defects = failures.split(TabUnreachable)
        if defects is not None:
            logger.error(
                "sending to %s failed",
                self.connection_id,
                exc_info=defects,
                extra={"connection_id": self.connection_id},
            )
        retry_after_ms = self._members.retry_after_ms()
        if self._closing_since is None:
            self._members.closing(self._close_code)
        self.last_words = LastWords(self._close_code, "the server could not go on sending to this tab", retry_after_ms)

    def greet(self, head: Position) -> None:
        """Say hello: the stream's head is known. What the tab asked meanwhile is done now."""
        limits = self._limits
        self._head_at_start = head
        self._emitter.greet(
            protocol.hello(self.connection_id, self.identity, head, limits.heartbeat_s, limits.window, limits.announced)
        )
        waiting, self._waiting_subscribe = self._waiting_subscribe, None
        if waiting is not None:
            self.subscribe(waiting)

    # -- what the client says

    def subscribe(self, frame: Subscribe) -> None:
        """Begin to send events. Raises ProtocolViolation when the client is subscribed already.

        Without a position the first subscribe begins at the head that `hello` told, so that nothing is missed of what
        is committed between the two.
        """
        if self._head_at_start is None:
            if self._waiting_subscribe is not None:
                raise ProtocolViolation(CloseCode.VIOLATION, "subscribe again is allowed only after a reset")
            self._waiting_subscribe = frame
            return
        if frame.compress is not None:
            self._emitter.compress_events()
        after = frame.after
        if after is None and self._cursor.state is CursorState.NEW:
            after = self._head_at_start
        self._emitter.subscribed(after)

    def acknowledged(self, frame: Ack) -> None:
        """Move the window. Raises ProtocolViolation for an ack of what was never sent."""
        self._advance_to(frame.seq)
        if frame.proofs and self.subscribed:
            self._proofs.hand_in(self.identity.user_id, self.connection_id, frame.proofs, self._cursor.epoch, frame.seq)

    def pinged(self, frame: Ping) -> None:
        """Answer a client's ping."""
        self._emitter.answer_ping(frame.t)

    def ponged(self, frame: Pong) -> None:
        """The tab lives, if it answers the last ping; its pong carries the rest of its acks."""
        if frame.t == self._ping_t:
            self._unanswered_since = None
        if self.subscribed:
            self._advance_to(frame.acked)

    def _advance_to(self, seq: int) -> None:
        if self._waiting_subscribe is not None:
            return  # nothing was sent yet, as after a reset
        # Only what proves that the tab reads counts as life: a tab that talks and never reads must stall.
        acked = self._cursor.acked
        self._emitter.acknowledged(seq)
        if self._cursor.acked > acked:
            self._unanswered_since = None

    # -- what the server says

    def reply(self, frame: str) -> None:
        """Send the reply to a command. A tab that lets too many of them wait is closed."""
        if not self._emitter.enqueue(frame):
            self.close(CloseCode.TOO_FAST, f"{self._limits.waiting_frames} replies wait, and are not read")

    def close(self, code: CloseCode, reason: str) -> None:
        """Say bye and close the socket, after what waits to be sent. The first close wins."""
        if self._closing_since is None:
            self._closing_since = self._looked_at
            self._close_code = code
            self._members.closing(code)
            self._emitter.close(code, reason, self._members.retry_after_ms())

    def committed(self, page: Page) -> None:
        """A page of this user's stream was committed by this process."""
        self._emitter.committed(page)

    def hinted(self, head: int) -> None:
        """The user's stream has reached `head`."""
        self._emitter.hinted(head)

    def polled(self, head: Position) -> None:
        """The database says that the user's stream is at `head`."""
        self._emitter.polled(head)

    def tick(self, now: float) -> None:
        """Ping in time; close a socket that neither progresses nor answers. `now` is monotonic, in seconds."""
        self._looked_at = now
        limits = self._limits
        if self._closing_since is not None:
            # A server may let `send` wait for a tab that does not read; without this it would wait for ever.
            if now - self._closing_since > limits.closing_s:
                self._emitter.abort()
        elif self._cursor.state is CursorState.NEW and now - self._opened_at > limits.subscribe_timeout_s:
            if self._head_at_start is None:
                self.close(CloseCode.OVERLOADED, "the database does not answer")
            else:
                self.close(CloseCode.VIOLATION, "no subscribe in time; it is the first frame")
        elif self._unanswered_since is not None:
            # One ping is on its way at most: the pong of a slow tab, too, answers the last one.
            if now - self._unanswered_since > limits.stall_timeout_s:
                self.close(CloseCode.NO_PROGRESS, "no ack and no pong in time")
        elif self._head_at_start is not None and now - self._last_ping >= limits.heartbeat_s:
            self._last_ping = self._unanswered_since = now
            self._ping_t = round(now, 3)
            self.reply(protocol.ping(self._ping_t))

    # -- what operators see

    @property
    def subscribed(self) -> bool:
        return self._cursor.is_sending

    @property
    def lag(self) -> int:
        """Events that exist and are not acknowledged."""
        return self._cursor.lag if self.subscribed else 0

    @property
    def health(self) -> Health:
        if self._closing_since is not None:
            return Health.DRAINING
        silent_since = self._unanswered_since
        if silent_since is not None and self._looked_at - silent_since >= self._limits.stalled_after_s:
            return Health.STALLED
        return Health.LAGGING if self.lag > self._limits.lagging_events else Health.HEALTHY
