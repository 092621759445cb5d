"""Who receives a run's events, and the opening of a user's connections."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Protocol

from apps.realtime.connection import ConnectionLimits, UserWebSocketContext
from apps.realtime.emitter import Transport, UserWebSocketEmitter
from apps.realtime.pool import WebSocketConnectionPool
from apps.realtime.proofs import ProofChecker
from apps.realtime.reader import PageReader, PositionAnswer, PositionRequest
from apps.realtime.tracing import DeliveryTrace, TracedCursor
from apps.realtime.values import RunLease
from apps.vocabulary import ConnectionId, Identity, UserId, new_id


class RunBridge(Protocol):
    """Names the users whose streams an event of one run is written to."""

    def recipients(self, event_type: str) -> frozenset[UserId]:
        """The users who receive an event of this type, asked once for each event."""
        ...


class OwnerBridge:
    """The factory's answer: the owner of the run, and nobody else, whatever happens around it."""

    def __init__(self, lease: RunLease) -> None:
        self._owner = frozenset({lease.user_id})

    def recipients(self, event_type: str) -> frozenset[UserId]:  # noqa: ARG002 - the answer never depends on it
        """The run's owner."""
        return self._owner


class WebSocketBridgeFactory:
    """Opens what connects users to the log: their sockets, and the bridge of one run. Holds no connection itself."""

    def __init__(
        self,
        pool: WebSocketConnectionPool,
        reader: PageReader,
        limits: ConnectionLimits,
        trace: DeliveryTrace,
        proofs: ProofChecker,
    ) -> None:
        self._pool = pool
        self._reader = reader
        self._limits = limits
        self._trace = trace
        self._proofs = proofs

    def place(self, address: str | None) -> AbstractContextManager[None]:
        """A place for the socket that shakes hands from this address. Entering raises ConnectionRefused."""
        return self._pool.place(address)

    def retry_after_ms(self) -> int:
        """When a client that is sent away may come back: a delay that spreads those sent away together."""
        return self._pool.retry_after_ms()

    @asynccontextmanager
    async def open_connection(
        self, identity: Identity, transport: Transport, principal: object, open_runs: int | None = None
    ) -> AsyncIterator[UserWebSocketContext]:
        """A connection of this user, in the pool until it is left. Raises ConnectionRefused while the process drains.

        It hears its tab at once; `hello` goes out when the stream's head is known. `open_runs` is this user's
        bound, where it is another than everybody's.
        """
        self._pool.check_open()
        limits = self._limits if open_runs is None else self._limits.announcing(open_runs)
        connection_id = ConnectionId(new_id())
        cursor = TracedCursor(
            self._trace,
            identity.user_id,
            connection_id,
            window_events=limits.window.events,
            window_bytes=limits.window.bytes,
            segment_events=limits.segment_events,
            segment_bytes=limits.segment_bytes,
        )
        connection = UserWebSocketContext(
            connection_id=connection_id,
            identity=identity,
            principal=principal,
            emitter=UserWebSocketEmitter(identity.user_id, transport, cursor, self._reader, limits.waiting_frames),
            cursor=cursor,
            limits=limits,
            members=self._pool,
            proofs=self._proofs,
            now=self._pool.now,
        )

        def greet(found: PositionAnswer) -> None:
            connection.greet(found.head)

        async with connection:
            self._reader.ask(PositionRequest(identity.user_id, None), greet)
            yield connection

    @asynccontextmanager
    async def open_run_bridge(self, lease: RunLease) -> AsyncIterator[RunBridge]:
        """The bridge of one run on the factory's path."""
        yield OwnerBridge(lease)
