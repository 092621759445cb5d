"""A pool with real connections over a real log, for tests: only the socket is a list, and the clock a number."""

import asyncio
import json
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from ag_ui.core import CustomEvent
from django.db import transaction

from apps.realtime.bridge import WebSocketBridgeFactory
from apps.realtime.connection import ConnectionLimits, UserWebSocketContext
from apps.realtime.database import DatabaseThreads
from apps.realtime.log import EventLog, LogLimits
from apps.realtime.pool import PoolLimits, WebSocketConnectionPool
from apps.realtime.proofs import ProofChecker, ProofLimits
from apps.realtime.protocol import Limits, Window
from apps.realtime.reader import PageReader, PositionRequest, read_heads
from apps.realtime.tracing import DeliveryTrace
from apps.realtime.values import LogEntry
from apps.vocabulary import Identity, MessageId, UserId


class Wire:
    """The tab's end of a socket."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.packed: list[bytes] = []
        self.close_code: int | None = None
        self.changed = asyncio.Event()

    async def send_text(self, text: str) -> None:
        self.frames.append(json.loads(text))
        self.changed.set()

    async def send_bytes(self, content: bytes) -> None:
        self.packed.append(content)
        await self.send_text(zlib.decompress(content, wbits=-zlib.MAX_WBITS).decode())

    async def close(self, code: int) -> None:
        self.close_code = code
        self.changed.set()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] == kind]

    def seqs(self) -> list[int]:
        return [entry["seq"] for frame in self.of("events") for entry in frame["events"]]

    async def until(self, condition) -> None:
        async with asyncio.timeout(10):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()


class ConnectedRoom:
    def __init__(
        self, log: EventLog, database: DatabaseThreads, pool: WebSocketConnectionPool, reader: PageReader
    ) -> None:
        self.log = log
        self.reader = reader
        self.digests: dict[tuple[UserId, MessageId], list[str]] = {}
        self.proofs = ProofChecker(database, lambda _: self.digests, ProofLimits(10, 4, 100, 3600.0, 60.0))
        self.database = database
        self.pool = pool
        self.bridges: WebSocketBridgeFactory
        self.invalid: set[object] = set()
        self.stack: AsyncExitStack

    async def connect(
        self, user: int, wire: Wire, principal: object = "p", address: str | None = None
    ) -> UserWebSocketContext:
        self.stack.enter_context(self.pool.place(address))
        opened = self.bridges.open_connection(Identity(UserId(user), f"user{user}"), wire, principal)
        connection = await self.stack.enter_async_context(opened)
        # The connection has asked for the same: who asked later is answered later.
        greeted = asyncio.get_running_loop().create_future()
        self.reader.ask(PositionRequest(UserId(user), None), greeted.set_result)
        await greeted
        return connection

    async def append(self, user: int, events: int = 1) -> None:
        await self.database.call(self._append, UserId(user), events)

    async def head(self, user: int) -> int:
        heads = await self.database.call(read_heads, [UserId(user)])
        return heads[UserId(user)].seq if heads else 0

    def _append(self, user_id: UserId, events: int) -> None:
        with transaction.atomic():
            self.log.append(user_id, [LogEntry(CustomEvent(name="n", value=n)) for n in range(events)])


@asynccontextmanager
async def open_connected_room(
    clock: Callable[[], float] = time.monotonic, **bounds: Any
) -> AsyncIterator[ConnectedRoom]:
    pool_bounds = {
        "connections": 100,
        "connections_per_user": 3,
        "connections_per_address": 100,
        "head_poll_s": 3600.0,
        "revalidate_s": 3600.0,
        "reconnect_spread_ms": 1000,
    }
    limits = ConnectionLimits(
        window=Window(bounds.pop("window_events", 512), 262_144),
        announced=Limits(65_536, 65_536, 32_768, 8, 20),
        segment_events=64,
        segment_bytes=65_536,
        heartbeat_s=15,
        stall_timeout_s=30,
        subscribe_timeout_s=10,
        closing_s=2,
        stalled_after_s=10,
        lagging_events=64,
        waiting_frames=bounds.pop("waiting_frames", 256),
    )
    room: ConnectedRoom

    async def find_invalid(principals):
        return set(principals) & room.invalid

    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(DatabaseThreads(2))
        pool = WebSocketConnectionPool(
            PoolLimits(**pool_bounds | bounds),
            clock=clock,
            read_heads=lambda users: database.call(read_heads, users),
            find_invalid=find_invalid,
        )
        reader = await stack.enter_async_context(PageReader(database))
        room = ConnectedRoom(EventLog(LogLimits(), pool), database, pool, reader)
        room.bridges = WebSocketBridgeFactory(pool, reader, limits, DeliveryTrace(1_000), room.proofs)
        await stack.enter_async_context(pool)
        room.stack = await stack.enter_async_context(AsyncExitStack())
        yield room
