"""The application in front of Django that streams a thread's events to programs and stock AG-UI clients.

A stream is a connection like a tab's, whose client lives in this process: it stands in the pool, so it counts against
the same limits, ends with the session and in a drain; it reads the same cursor, and acknowledges a page when the
client's buffer took it, so what waits for a slow reader is one window. A `send` that waits too long drops the client.

Django answers all that comes before the stream (who asks, CSRF, hosts, refusals); then the stream runs outside of it.
Inside, every open stream would hold a thread and a database connection for hours, because Django keeps both for the
length of a request.

A position that cannot be served any more ends the stream and clears the client's id, so that it begins anew.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, Protocol

import orjson
from django.db import DatabaseError

from apps.chat import problems
from apps.chat.sse import CONTENT_TYPE, Following, ThreadEvents, Told, WhenLeft, block, placed
from apps.realtime.bridge import WebSocketBridgeFactory
from apps.realtime.connection import UserWebSocketContext
from apps.realtime.database import DatabaseThreads
from apps.realtime.pool import ConnectionRefused
from apps.realtime.protocol import Ack, Command, Pong, RunCancel, Subscribe
from apps.vocabulary import Identity, Position, Refusal, RunId, ThreadId, UserId, new_id

logger = logging.getLogger(__name__)

OFFER: Final = "turnout.stream"  # in a scope's `extensions`: where a view leaves what is to be streamed
ABORT: Final = "turnout.abort"  # in a scope's `extensions`: the server's way to drop a connection, where it has one
KEEP_ALIVE: Final = b": alive\n\n"
STAY_AWAY_MS: Final = 60_000  # for a client that should not come back by itself

_STREAMED: Final = re.compile(r"/api/(?:threads/[^/]+/events|agui/[^/]+)", re.ASCII)

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]
Rebuild = Callable[[UserId, ThreadId, RunId], Mapping[str, Any]]


class StreamOffer:
    """Where Django's view leaves what is to be streamed once its own answer is done."""

    def __init__(self) -> None:
        self.following: Following | None = None


class StreamBounds(Protocol):
    """The bounds that a stream keeps, as the configuration names them."""

    @property
    def stall_timeout_s(self) -> float: ...


class Commands(Protocol):
    """Carries out one command."""

    def execute(self, identity: Identity, command: Command) -> str: ...


class StreamServices(Protocol):
    """What a stream needs of its process."""

    @property
    def configuration(self) -> StreamBounds: ...
    @property
    def database(self) -> DatabaseThreads: ...
    @property
    def bridges(self) -> WebSocketBridgeFactory: ...
    @property
    def conversation(self) -> Commands: ...


class EventSource:
    """The client's end of a connection: takes the socket's frames, sends events, acknowledges what was taken."""

    def __init__(self, following: Following, send: Send, stall_timeout_s: float, rebuild: Callable[..., Any]) -> None:
        self._asked = following
        self._events = ThreadEvents(following)
        self._send = send
        self._stall_timeout_s = stall_timeout_s
        self._rebuild = rebuild
        self._rebuilt = not following.rebuilt
        self._connection: UserWebSocketContext | None = None
        self._sent = following.after.seq
        self.over = asyncio.Event()
        self.stalled = False

    def attach(self, connection: UserWebSocketContext) -> None:
        """Begin to receive events."""
        self._connection = connection
        connection.subscribe(Subscribe(self._asked.after, None))

    async def send_text(self, text: str) -> None:
        """One frame of the socket's protocol."""
        if self.over.is_set():
            return
        try:
            await self._take(orjson.loads(text))
        except (DatabaseError, Refusal) as error:  # the thread was deleted, or cannot be read: the client comes back
            logger.info("an event stream ends: %s", error)
            self.over.set()
        except Exception:
            logger.exception("an event stream of thread %s ends", self._asked.thread_id)
            self.over.set()

    async def send_bytes(self, content: bytes) -> None:
        """Never asked for: a stream does not subscribe with `compress`."""
        raise TypeError(f"{len(content)} bytes for a stream that takes text only")

    async def close(self, code: int) -> None:  # noqa: ARG002 - `bye` said it
        """The connection ends."""
        self.over.set()

    async def _take(self, frame: Mapping[str, Any]) -> None:
        connection = self._connection
        match frame["type"]:
            case "events" if connection is not None:
                data = bytearray()
                for told in self._events.take(frame):
                    data += await self._bytes(told)
                await self._write(bytes(data))
                self._sent = Position.parse(frame["position"]).seq
                connection.acknowledged(Ack(self._sent))
                if self._events.ended:
                    self.over.set()
            case "ping" if connection is not None:
                await self._write(KEEP_ALIVE)
                connection.ponged(Pong(frame["t"], self._sent))
            case "reset":
                await self._write(b"id\nretry: 0\n\n")
                self.over.set()
            case "bye":
                # A close code whose duty is not to come back has no time; an EventSource comes back all the same.
                await self._write(f"retry: {frame.get('retry_after_ms', STAY_AWAY_MS)}\n\n".encode())

    async def _bytes(self, told: Told) -> bytes:
        if told.event is None:
            return placed(told.place)
        if told.begins is None or self._rebuilt:
            return placed(told.place, block(told.event))
        self._rebuilt = True
        user_id = self._asked.principal.identity.user_id
        before = await self._rebuild(user_id, self._asked.thread_id, told.begins)
        # The place stands after both: who is cut off between the two begins again with the run.
        return block(told.event) + placed(told.place, block(before))

    async def _write(self, data: bytes) -> None:
        if self.over.is_set():
            return
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            self.stalled = True
            self.over.set()
        except OSError:  # servers other than ours raise one when the client is gone
            self.over.set()


class StreamDoor:
    """The ASGI application in front of Django: streams what a view has granted, passes all else through."""

    def __init__(self, django: Application, services: StreamServices, rebuild: Rebuild) -> None:
        self._django = django
        self._services = services
        self._rebuild = rebuild

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if _STREAMED.fullmatch(scope["path"]) is None:
            await self._django(scope, receive, send)
            return
        offer, client = StreamOffer(), _Client(receive)
        extensions = {**(scope.get("extensions") or {}), OFFER: offer}

        async def unless_granted(message: Message) -> None:
            if offer.following is None:
                await send(message)

        await self._django({**scope, "extensions": extensions}, client.receive, unless_granted)
        if offer.following is None:
            return
        if client.is_gone:
            await self._left(offer.following)
            return
        await self._serve(offer.following, client, send, extensions.get(ABORT))

    async def _serve(
        self, following: Following, client: "_Client", send: Send, abort: Callable[[], None] | None
    ) -> None:
        services = self._services
        if following.recalled:
            await send(_HEAD)
            body = b"".join(block(event) for event in following.recalled)
            await send({"type": "http.response.body", "body": body, "more_body": False})
            return

        async def rebuild(*names: Any) -> Mapping[str, Any]:
            return await services.database.call(self._rebuild, *names)

        source = EventSource(following, send, services.configuration.stall_timeout_s, rebuild)
        identity = following.principal.identity
        try:
            async with services.bridges.open_connection(identity, source, following.principal) as connection:
                await send(_HEAD)
                # Servers keep the head back until there is a body, and a client waits for it to call itself open.
                await send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})
                source.attach(connection)
                await client.gone_or(source.over)
                if not client.is_gone and not source.stalled:
                    # Before the pool lets go of the stream: a drain waits for the pool, and then cuts.
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ConnectionRefused as refused:
            await _refuse(refused, send)
            return
        if client.is_gone:
            await self._left(following)
        elif source.stalled and abort is not None:
            abort()

    async def _left(self, following: Following) -> None:
        if following.when_left is WhenLeft.CANCEL and following.run_id is not None:
            command = RunCancel(new_id(), following.run_id)
            execute = self._services.conversation.execute
            await self._services.database.call(execute, following.principal.identity, command)


class _Client:
    """What comes from the client: its request, which Django reads, and that it has gone."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_gone = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.is_gone = self.is_gone or message["type"] == "http.disconnect"
        return message

    async def gone_or(self, over: asyncio.Event) -> None:
        """Return when the client is gone, or `over` is set."""
        waiting = {asyncio.create_task(self._gone()), asyncio.create_task(over.wait())}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _gone(self) -> None:
        while not self.is_gone:
            await self.receive()


_HEAD: Final = {
    "type": "http.response.start",
    "status": HTTPStatus.OK.value,
    "headers": [
        (b"content-type", f"{CONTENT_TYPE}; charset=utf-8".encode()),
        (b"cache-control", b"private, no-store"),
        (b"x-accel-buffering", b"no"),  # a proxy that gathers the answer would show it at its end
        (b"x-content-type-options", b"nosniff"),
    ],
}


async def _refuse(refused: ConnectionRefused, send: Send) -> None:
    response = problems.problem(
        HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", refused.reason, retry_after_s=refused.retry_after_ms / 1000
    )
    headers = [(name.lower().encode(), value.encode()) for name, value in response.items()]
    headers.append((b"cache-control", b"private, no-store"))
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.content, "more_body": False})
