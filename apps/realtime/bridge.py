"""Who receives a run's events, and the opening of a user's connections."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from apps.realtime.connection import ConnectionLimits, UserWebSocketContext
from apps.realtime.emitter import Transport, UserWebSocketEmitter
from apps.realtime.pool import WebSocketConnectionPool
from apps.realtime.reader import PageReader, PositionAnswer, PositionRequest
from apps.realtime.tracing import DeliveryTrace, TracedCursor
from apps.realtime.values import RunLease
from apps.vocabulary import ConnectionId, Identity, Position, UserId, new_id


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
        self, pool: WebSocketConnectionPool, reader: PageReader, limits: ConnectionLimits, trace: DeliveryTrace
    ) -> None:
        self._pool = pool
        self._reader = reader
        self._limits = limits
        self._trace = trace

    @asynccontextmanager
    async def open_connection(
        self, identity: Identity, transport: Transport, principal: object
    ) -> AsyncIterator[UserWebSocketContext]:
        """A connection of this user, in the pool until it is left. Raises ConnectionRefused."""
        self._pool.admit()
        head = await self._head(identity.user_id)
        limits = self._limits
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
            emitter=UserWebSocketEmitter(identity.user_id, transport, cursor, self._reader),
            cursor=cursor,
            head=head,
            limits=limits,
            members=self._pool,
            retry_after_ms=self._pool.retry_after_ms,
            now=time.monotonic(),
        )
        self._pool.admit()  # the process may have begun to drain while the head was read
        async with connection:
            yield connection

    @asynccontextmanager
    async def open_run_bridge(self, lease: RunLease) -> AsyncIterator[RunBridge]:
        """The bridge of one run on the factory's path."""
        yield OwnerBridge(lease)

    async def _head(self, user_id: UserId) -> Position:
        answered: asyncio.Future[Position] = asyncio.get_running_loop().create_future()

        def answer(found: PositionAnswer) -> None:
            if not answered.done():
                answered.set_result(found.head)

        self._reader.ask(PositionRequest(user_id, None), answer)
        return await answered
