"""All sockets of this process: who is connected, who must hear of a commit, who keeps up, how they are sent away."""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, TracebackType
from typing import NoReturn, Self

from apps.realtime.connection import Health, UserWebSocketContext
from apps.realtime.periodic import Periodic
from apps.realtime.protocol import CloseCode
from apps.realtime.values import Page
from apps.vocabulary import ConnectionId, Position, UserId

logger = logging.getLogger(__name__)

_TICK_S = 1.0
_LATE_TICKS = 2  # a tick that comes later than this shows that the loop stood still
_NOBODY: Mapping[ConnectionId, UserWebSocketContext] = MappingProxyType({})


class ConnectionRefused(Exception):  # noqa: N818 - an answer to the client
    """There is no room for another connection; `close_code` and `retry_after_ms` tell the client what to do."""

    def __init__(self, close_code: CloseCode, reason: str, retry_after_ms: int) -> None:
        super().__init__(reason)
        self.close_code = close_code
        self.reason = reason
        self.retry_after_ms = retry_after_ms


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Sockets of one process, of one user and of one address in it; seconds between looks; milliseconds to spread
    reconnects over.
    """

    connections: int
    connections_per_user: int
    connections_per_address: int
    head_poll_s: float
    revalidate_s: float
    reconnect_spread_ms: int


class WebSocketConnectionPool:
    """The audience of the log in this process. `show` and `hint` may be called on any thread."""

    def __init__(
        self,
        limits: PoolLimits,
        *,
        read_heads: Callable[[Sequence[UserId]], Awaitable[Mapping[UserId, Position]]],
        find_invalid: Callable[[Sequence[object]], Awaitable[set[object]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._read_heads = read_heads
        self._find_invalid = find_invalid
        self._clock = clock
        self._looked_at = self._now = clock()
        self._by_user: dict[UserId, dict[ConnectionId, UserWebSocketContext]] = {}
        self._count = 0
        self._places = 0
        self._by_address: Counter[str] = Counter()
        self._loop = asyncio.get_running_loop()
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._stack = AsyncExitStack()
        self.opened = 0
        self.refused = 0
        self.closed_for: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<WebSocketConnectionPool connections={self._count} users={len(self._by_user)}>"

    async def __aenter__(self) -> Self:
        limits = self._limits
        await self._stack.enter_async_context(Periodic("connection-tick", _TICK_S, self._tick))
        await self._stack.enter_async_context(Periodic("head-poll", limits.head_poll_s, self._poll_heads))
        await self._stack.enter_async_context(Periodic("revalidation", limits.revalidate_s, self._revalidate))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # -- membership

    @contextmanager
    def place(self, address: str | None) -> Iterator[None]:
        """A place for one socket, from its handshake on. Raises ConnectionRefused when there is none.

        It is taken before anybody is asked who comes: a flood of handshakes waits for the database, and would be
        outside of every bound otherwise. `address` is None where the client's own is not known.
        """
        self._admit(address)
        self._places += 1
        if address is not None:
            self._by_address[address] += 1
        try:
            yield
        finally:
            self._places -= 1
            if address is not None:
                self._by_address[address] -= 1
                if not self._by_address[address]:
                    del self._by_address[address]

    def _admit(self, address: str | None) -> None:
        limits = self._limits
        if self._draining:
            self._refuse(CloseCode.RESTARTING, "the server is restarting")
        if self._places >= limits.connections:
            self._refuse(CloseCode.OVERLOADED, "the server has no room for another connection")
        if address is not None and self._by_address[address] >= limits.connections_per_address:
            self._refuse(CloseCode.OVERLOADED, f"one address may have {limits.connections_per_address} connections")

    def _refuse(self, code: CloseCode, reason: str) -> NoReturn:
        self.refused += 1
        raise ConnectionRefused(code, reason, self.retry_after_ms())

    def check_open(self) -> None:
        """Raises ConnectionRefused when the process has begun to drain."""
        if self._draining:
            self._refuse(CloseCode.RESTARTING, "the server is restarting")

    def add(self, connection: UserWebSocketContext) -> None:
        """Take a connection in; the user's oldest goes when there are too many."""
        mine = self._by_user.setdefault(connection.identity.user_id, {})
        mine[connection.connection_id] = connection
        self._count += 1
        self.opened += 1
        self._empty.clear()
        open_ones = [known for known in mine.values() if known.health is not Health.DRAINING]
        for oldest in open_ones[: max(len(open_ones) - self._limits.connections_per_user, 0)]:
            oldest.close(
                CloseCode.REPLACED,
                f"a user may have {self._limits.connections_per_user} connections; this was the oldest",
            )

    def remove(self, connection: UserWebSocketContext) -> None:
        """Let a connection go. Doing it twice changes nothing."""
        mine = self._by_user.get(connection.identity.user_id, {})
        if mine.pop(connection.connection_id, None) is None:
            return
        self._count -= 1
        if not mine:
            del self._by_user[connection.identity.user_id]
        if not self._count:
            self._empty.set()

    def closing(self, code: CloseCode) -> None:
        """Count that a connection was told to go; each tells it once."""
        self.closed_for[code.name.lower()] += 1

    def retry_after_ms(self) -> int:
        """A delay that spreads the clients which are sent away together."""
        return random.randrange(self._limits.reconnect_spread_ms) + 1  # noqa: S311 - spreads load, guards nothing

    # -- the audience of the log

    def show(self, pages: Sequence[Page]) -> None:
        """Hand committed pages to the connections of their users, in this process."""
        if pages:
            self._on_loop(self._show, pages)

    def hint(self, heads: Mapping[UserId, int]) -> None:
        """Tell connections how far their users' streams reach."""
        if heads:
            self._on_loop(self._hint, heads)

    def _on_loop[T](self, take: Callable[[T], None], argument: T) -> None:
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - the only way to ask without an exception
            take(argument)
        else:
            self._loop.call_soon_threadsafe(take, argument)

    def _show(self, pages: Sequence[Page]) -> None:
        for page in pages:
            for connection in self._connections_of(page.user_id):
                _tell(connection, partial(connection.committed, page))

    def _hint(self, heads: Mapping[UserId, int]) -> None:
        for user_id, head in heads.items():
            for connection in self._connections_of(user_id):
                _tell(connection, partial(connection.hinted, head))

    def _connections_of(self, user_id: UserId) -> Iterable[UserWebSocketContext]:
        return self._by_user.get(user_id, _NOBODY).values()

    # -- sending away

    def close_user(self, user_id: UserId, code: CloseCode, reason: str) -> int:
        """Close all sockets of a user in this process; returns how many there were."""
        connections = list(self._by_user.get(user_id, {}).values())
        for connection in connections:
            connection.close(code, reason)
        return len(connections)

    @property
    def draining(self) -> bool:
        """Whether the process takes no further connection."""
        return self._draining

    def refuse_newcomers(self) -> None:
        """Take no further connection."""
        self._draining = True

    def say_goodbye(self) -> None:
        """Tell every tab to come back elsewhere or later."""
        self._draining = True
        for connection in self._all():
            connection.close(CloseCode.RESTARTING, "the server is restarting")

    def send_back(self) -> None:
        """Close every socket, so that each tab comes back with its position, which is judged anew."""
        for connection in self._all():
            connection.close(CloseCode.GOING_AWAY, "the database went back in time; come back")

    async def wait_until_empty(self) -> None:
        """Return when the last connection is gone."""
        await self._empty.wait()

    # -- looks

    @property
    def now(self) -> float:
        """Seconds in which this process did its work. A process that was stopped or hung for a minute finds all the
        pongs of that minute unread: the minute counts against no tab.
        """
        return self._now + min(self._clock() - self._looked_at, _LATE_TICKS * _TICK_S)

    async def _tick(self) -> None:
        self._now, self._looked_at = self.now, self._clock()
        for connection in self._all():
            connection.tick(self._now)

    async def _poll_heads(self) -> None:
        # A hint may be lost; this query makes that cost a second, not an event.
        if self._by_user:
            for user_id, head in (await self._read_heads(list(self._by_user))).items():
                for connection in self._connections_of(user_id):
                    _tell(connection, partial(connection.polled, head))

    async def _revalidate(self) -> None:
        by_principal: dict[object, list[UserWebSocketContext]] = {}
        for connection in self._all():
            by_principal.setdefault(connection.principal, []).append(connection)
        if by_principal:
            for principal in await self._find_invalid(list(by_principal)):
                for connection in by_principal[principal]:
                    connection.close(CloseCode.NO_USER, "the session or token has ended; log in again")

    def _all(self) -> list[UserWebSocketContext]:
        return [connection for mine in self._by_user.values() for connection in mine.values()]

    def census(self) -> Mapping[str, int]:
        """Counts for the process report and the metrics; never who."""
        health = Counter(connection.health.value for connection in self._all())
        return {
            "connections": self._count,
            "connected_users": len(self._by_user),
            "handshakes": self._places - self._count,
            "addresses": len(self._by_address),
            "connections_opened_total": self.opened,
            "connections_refused_total": self.refused,
            **{f"connections_{state.value}": health[state.value] for state in Health},
            **{f"connections_closed_{reason}_total": count for reason, count in sorted(self.closed_for.items())},
        }


def _tell(connection: UserWebSocketContext, take: Callable[[], None]) -> None:
    try:
        take()
    except Exception:
        # The log's writer calls this for everybody: a broken connection is sent away and comes back from the log.
        logger.exception("%r cannot go on", connection, extra={"connection_id": connection.connection_id})
        connection.close(CloseCode.GOING_AWAY, "the server lost this connection's place; come back")
