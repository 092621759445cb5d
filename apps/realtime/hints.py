"""Hints: after a commit, the other processes are told how far which streams reach, and nothing else.

A hint is a message `{user: head}` to one group of all processes on the channel layer. No event ever goes through it,
and none depends on it: a tab that is not told in time is found by the pool's query of heads, a second later. So all
that is asked of the layer is speed, and all that its failure costs is latency.

That shapes everything here. Nobody waits for the layer: what is to be told is kept as the newest head a user, so a
slow layer makes fewer messages, not more memory. One task a process owns the layer, in sessions: it joins the group,
listens, and beats, and a process that does not hear its own beat knows that the layer lost it (a restarted Redis
knows no groups, a half-open connection says nothing for ever); it drops all connections and joins anew. Sockets run
without a layer, so nothing that happens to it can close one.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from apps.realtime.log import Audience
from apps.realtime.values import Page
from apps.vocabulary import MAX_SEQ, UserId

logger = logging.getLogger(__name__)

GROUP = "turnout.hints"
_MESSAGE = "turnout.hint"
_MOST_PEERS = 1_000  # processes whose beats are remembered; of more than that, hints go to all anyway
_CLOSING_S = 1.0  # for the last hints of a process that ends


class Layer(Protocol):
    """What is used of a channel layer."""

    async def new_channel(self) -> str: ...
    async def group_add(self, group: str, channel: str) -> None: ...
    async def group_discard(self, group: str, channel: str) -> None: ...
    async def group_send(self, group: str, message: dict[str, Any]) -> None: ...
    async def receive(self, channel: str) -> dict[str, Any]: ...


class LayerSilent(Exception):  # noqa: N818 - says what was noticed
    """No beat of this process comes back, so nothing else would come either."""


@dataclass(frozen=True, slots=True)
class HintLimits:
    """Times in seconds: between two beats, until silence counts as loss, for one message, between two sessions.

    `users` bounds those who have news that was not told yet, and those in one message.
    """

    beat_s: float = 1.0
    silence_s: float = 3.0
    timeout_s: float = 1.0
    rejoin_s: float = 0.5
    users: int = 10_000


class Hints:
    """The audience of the log in all processes: `show` shows pages to tabs here, and hints to the others.

    `async with`. `disconnect` drops all connections of the layer, which makes new ones when it is used again.
    """

    def __init__(
        self,
        local: Audience,
        layer: Layer,
        *,
        process_id: str,
        limits: HintLimits,
        disconnect: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._local = local
        self._layer = layer
        self._process_id = process_id
        self._limits = limits
        self._disconnect = disconnect
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._news: dict[UserId, int] = {}
        self._wake = asyncio.Event()
        self._company = asyncio.Event()
        self._peers: dict[str, float] = {}
        self._heard_at = -math.inf
        self._lost_at: float | None = None
        self._channel: str | None = None
        self._task: asyncio.Task[None] | None = None
        self.sent = 0
        self.heard = 0
        self.forgotten = 0
        self.malformed = 0
        self.sessions = 0

    def __repr__(self) -> str:
        return f"<Hints connected={self.is_connected} peers={len(self._peers)} news={len(self._news)}>"

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._supervise(), name="hints")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        try:
            async with asyncio.timeout(_CLOSING_S):
                while self._news and self.is_connected and not self._task.done():
                    await self._tell()
                await self._leave()
        except Exception as failure:  # noqa: BLE001 - whatever a layer raises, the process ends all the same
            logger.info("the last hints of this process are lost: %r", failure)
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._drop_connections()

    @property
    def is_connected(self) -> bool:
        """Whether this process has lately heard itself, and so hears the others."""
        return self._clock() - self._heard_at <= self._limits.silence_s

    # -- the audience of the log; on any thread

    def show(self, pages: Sequence[Page]) -> None:
        """Show committed pages to the tabs of this process, and tell the others of them. Never waits or fails."""
        if pages:
            self._on_loop(self._show, pages)

    def hint(self, heads: Mapping[UserId, int]) -> None:
        """Tell tabs of this process how far their streams reach."""
        self._local.hint(heads)

    def _on_loop(self, take: Callable[[Sequence[Page]], None], pages: Sequence[Page]) -> None:
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - the only way to ask without an exception
            take(pages)
            return
        try:
            self._loop.call_soon_threadsafe(take, pages)
        except RuntimeError:
            # A thread may commit while its process ends. The pages are stored; here is nobody left to be shown them.
            if not self._loop.is_closed():
                raise

    def _show(self, pages: Sequence[Page]) -> None:
        self._local.show(pages)
        if not self._peers:
            return
        for page in pages:
            # The newest stands last: what is forgotten first, when there is too much, is what waits longest.
            self._news[page.user_id] = max(page.position.seq, self._news.pop(page.user_id, 0))
        self._forget_too_many()
        self._wake.set()

    def _forget_too_many(self) -> None:
        for user_id in list(self._news)[: max(len(self._news) - self._limits.users, 0)]:
            del self._news[user_id]
            self.forgotten += 1

    # -- the layer

    async def _supervise(self) -> None:
        while True:
            try:
                await self._session()
            except Exception as error:  # noqa: BLE001 - whatever a layer raises is a reason to join again, no more
                self._lost(error)
            await self._drop_connections()
            await asyncio.sleep(self._limits.rejoin_s)

    def _lost(self, error: Exception) -> None:
        # Once an outage, not twice a second.
        if self._lost_at is None:
            self._lost_at = self._clock()
            cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            logger.warning("the channel layer is lost; tabs hear of other processes' events later: %r", cause)

    async def _session(self) -> None:
        self.sessions += 1
        self._company.clear()
        async with asyncio.timeout(self._limits.silence_s):
            await self._leave()
            self._channel = channel = await self._layer.new_channel()
            await self._layer.group_add(GROUP, channel)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(channel), name="hints-listen")
            group.create_task(self._beat(), name="hints-beat")
            group.create_task(self._speak(), name="hints-speak")

    async def _leave(self) -> None:
        # Not when a session ends, for then the layer is away; a member that nobody receives for fills up.
        if self._channel is not None:
            await self._layer.group_discard(GROUP, self._channel)
            self._channel = None

    async def _listen(self, channel: str) -> None:
        # Nothing else may be awaited here: a layer keeps what nobody receives, one of them without any bound.
        while True:
            self._take(await self._layer.receive(channel))

    async def _beat(self) -> None:
        joined_at = self._clock()
        while True:
            await self._send({})
            await asyncio.sleep(self._limits.beat_s)
            now = self._clock()
            if now - max(self._heard_at, joined_at) > self._limits.silence_s:
                raise LayerSilent(f"not heard for {self._limits.silence_s:g} s")
            for peer in [peer for peer, at in self._peers.items() if now - at > self._limits.silence_s]:
                del self._peers[peer]
            if not self._peers:
                self._company.clear()
                self._news.clear()

    async def _speak(self) -> None:
        while True:
            # After an outage all join anew; what is told before somebody is there again, nobody hears.
            await self._company.wait()
            await self._wake.wait()
            self._wake.clear()
            while self._news:
                await self._tell()

    async def _tell(self) -> None:
        heads, self._news = self._news, {}
        try:
            await self._send(heads)
        except BaseException:
            # Kept for the next session; what came meanwhile is newer.
            self._news = heads | {user_id: max(head, heads.get(user_id, 0)) for user_id, head in self._news.items()}
            self._forget_too_many()
            self._wake.set()
            raise
        self.sent += 1

    async def _send(self, heads: Mapping[UserId, int]) -> None:
        # A list of pairs: the layers' serialisers take no numbers as keys.
        message = {"type": _MESSAGE, "from": self._process_id, "heads": [[*pair] for pair in heads.items()]}
        async with asyncio.timeout(self._limits.timeout_s):
            await self._layer.group_send(GROUP, message)

    async def _drop_connections(self) -> None:
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                await self._disconnect()
        except Exception as error:  # noqa: BLE001 - they are given up in any case
            logger.warning("connections of the channel layer could not be closed: %r", error)

    # -- what is heard

    def _take(self, message: Mapping[str, Any]) -> None:
        try:
            sender, heads = _read(message)
        except (KeyError, TypeError, ValueError) as error:
            self.malformed += 1
            logger.warning("a message on the hints' group is not a hint: %r", error)
            return
        now = self._clock()
        if sender == self._process_id:
            self._heard_at = now
            if self._lost_at is not None:
                logger.warning("the channel layer is back after %.1f s", now - self._lost_at)
                self._lost_at = None
            return
        if sender in self._peers or len(self._peers) < _MOST_PEERS:
            self._peers[sender] = now
        self._company.set()
        self.heard += 1
        if heads:
            self._local.hint(heads)

    def census(self) -> Mapping[str, int]:
        """Counts for the process report."""
        return {
            "connected": int(self.is_connected),
            "peers": len(self._peers),
            "users_with_news": len(self._news),
            "sessions_total": self.sessions,
            "sent_total": self.sent,
            "heard_total": self.heard,
            "forgotten_total": self.forgotten,
            "malformed_total": self.malformed,
        }


def _read(message: Mapping[str, Any]) -> tuple[str, dict[UserId, int]]:
    """Sender and heads. Raises KeyError, TypeError or ValueError for what this module did not send."""
    sender = message["from"]
    if message["type"] != _MESSAGE or not isinstance(sender, str):
        raise ValueError("of another type")
    heads: dict[UserId, int] = {}
    for user_id, head in message["heads"]:
        if type(user_id) is not int or type(head) is not int or not 0 <= head <= MAX_SEQ:
            raise ValueError("heads are pairs of numbers")
        heads[UserId(user_id)] = max(head, heads.get(UserId(user_id), 0))
    return sender, heads
