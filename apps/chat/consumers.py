"""The socket of one tab: handshake, decoding, pace and order of commands. Glue: it decides nothing about
runs.

Why not Channels' own loop. Its `dispatch` takes every frame of every socket through one shared thread (to
close old database connections), so that one slow query anywhere delays every ack and every ping. And when a
server gives a tab up, it cancels the consumer without calling `disconnect`. So the frames are received
here, by a loop that never waits for anything but the next frame, and everything that must be closed is
closed by an `async with` around it.

What a server does while a handler waits differs: plain Daphne reads on without bound. That is why receiving
must not wait, and why commands go into a bounded inbox that one task empties in order.

A socket takes its place in the pool before anybody asks the database who it is, so that a flood of handshakes
is bounded like everything else.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from channels.consumer import AsyncConsumer
from django.db import DatabaseError

from apps.chat.authentication import Principal, authenticate
from apps.chat.handshake import Credentials, HandshakeRefused, check_handshake, client_address
from apps.realtime import protocol
from apps.realtime.bridge import WebSocketBridgeFactory
from apps.realtime.connection import Health, UserWebSocketContext
from apps.realtime.database import DatabaseThreads
from apps.realtime.decoding import decode
from apps.realtime.pool import ConnectionRefused
from apps.realtime.protocol import (
    Ack,
    ClientFrame,
    CloseCode,
    Command,
    Limits,
    Ping,
    Pong,
    ProtocolViolation,
    RefusedCommand,
    Subscribe,
)
from apps.realtime.rate import Pace, TokenBucket
from apps.vocabulary import ErrorCode, Identity, Refusal

logger = logging.getLogger(__name__)

COMMAND_COST: Final = 1.0  # tokens of the connection's bucket
_LAST_WORDS_S: Final = 1.0  # for a tab that may not read to take a frame
SIGNAL_COST: Final = 0.05  # tokens for an ack, ping or pong: acking more often than needed is allowed, and costs

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


WhoIs = Callable[[Credentials], Principal | None]


class SocketBounds(Protocol):
    """The bounds that a socket keeps, as the configuration names them."""

    @property
    def frame_bytes(self) -> int: ...
    @property
    def event_bytes(self) -> int: ...
    @property
    def text_bytes(self) -> int: ...
    @property
    def attachments_per_run(self) -> int: ...
    @property
    def open_runs_per_user(self) -> int: ...
    @property
    def inbox_commands(self) -> int: ...
    @property
    def inbox_bytes(self) -> int: ...
    @property
    def command_rate_per_s(self) -> float: ...
    @property
    def command_burst(self) -> int: ...


class Commands(Protocol):
    """Carries out one command in its own transaction, on a database thread, and returns the text of the reply frame.

    Also there it says how many open runs a user may have: a plan may ask the database.
    """

    def execute(self, identity: Identity, command: Command) -> str: ...

    def most_open_runs(self, identity: Identity) -> int: ...


class ChatServices(Protocol):
    """What a socket needs of its process."""

    @property
    def configuration(self) -> SocketBounds: ...
    @property
    def database(self) -> DatabaseThreads: ...
    @property
    def bridges(self) -> WebSocketBridgeFactory: ...
    @property
    def conversation(self) -> Commands: ...


class ChatConsumer(AsyncConsumer):  # type: ignore[misc]  # Channels has no types
    """`ChatConsumer.as_asgi(services=...)` is the ASGI application of `/ws/chat/`; one instance serves one socket."""

    channel_layer_alias = None  # with a layer, a Redis that dies would close every socket

    def __init__(self, *, services: ChatServices, who_is: WhoIs = authenticate) -> None:
        self._services = services
        self._who_is = who_is

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve the socket until one side closes it. Everything that it opened is closed when this returns."""
        if (await receive())["type"] != "websocket.connect":
            return
        socket = _Socket(send)
        try:
            credentials = check_handshake(scope)
        except HandshakeRefused as refused:
            logger.info("handshake refused: %s", refused)
            await socket.close(CloseCode.FORBIDDEN)  # before accept, every server makes this HTTP 403
            return
        try:
            with self._services.bridges.place(client_address(scope)):
                await self._admit(credentials, socket, receive)
        except ConnectionRefused as refused:
            await socket.accept()
            await socket.say_bye(refused.close_code, refused.reason, refused.retry_after_ms)

    async def _admit(self, credentials: Credentials, socket: "_Socket", receive: Receive) -> None:
        retry_after_ms = self._services.bridges.retry_after_ms()
        try:
            principal, open_runs = await self._services.database.call(self._known, credentials)
        except DatabaseError:
            logger.exception("nobody can log in: the database does not answer")
            await socket.accept()
            await socket.say_bye(CloseCode.OVERLOADED, "the database does not answer", retry_after_ms)
            return
        await socket.accept()
        if principal is None:
            await socket.say_bye(CloseCode.NO_USER, "log in, or send a valid token", retry_after_ms)
            return
        await self._serve(principal, open_runs, socket, receive)

    def _known(self, credentials: Credentials) -> tuple[Principal | None, int | None]:
        """Who that is, and how many open runs they may have, if that can be told. On a database thread."""
        principal = self._who_is(credentials)
        if principal is None:
            return None, None
        try:
            return principal, self._services.conversation.most_open_runs(principal.identity)
        except DatabaseError:
            raise
        except Exception:  # the installation's own code: who cannot begin a run may still read what was said
            logger.exception("a user's plan cannot be told: hello names everybody's bound")
            return principal, None

    async def _serve(self, principal: Principal, open_runs: int | None, socket: "_Socket", receive: Receive) -> None:
        services = self._services
        opening = services.bridges.open_connection(principal.identity, socket, principal, open_runs)
        async with opening as connection:
            await _Dialogue(services, connection).run(receive)
        if (last := connection.last_words) is not None:
            await socket.say_bye(last.code, last.reason, last.retry_after_ms)


class _Dialogue:
    """What one accepted connection says, taken in order."""

    def __init__(self, services: ChatServices, connection: UserWebSocketContext) -> None:
        bounds = services.configuration
        self._services = services
        self._connection = connection
        self._limits = Limits(
            frame_bytes=bounds.frame_bytes,
            event_bytes=bounds.event_bytes,
            text_bytes=bounds.text_bytes,
            attachments=bounds.attachments_per_run,
            runs=bounds.open_runs_per_user,
        )
        self._bucket = TokenBucket(bounds.command_rate_per_s, bounds.command_burst, time.monotonic())
        self._inbox: deque[tuple[Command, int]] = deque()  # each with the bytes of its frame
        self._inbox_commands = bounds.inbox_commands
        self._inbox_room = bounds.inbox_bytes
        self._tasks: asyncio.TaskGroup | None = None
        self._at_work = False  # whether a task empties the inbox: an idle socket need not hold one
        self._has_subscribed = False

    async def run(self, receive: Receive) -> None:
        """Until the tab is gone. The command at work is finished, those behind it in the inbox are not begun.

        The tab sends what it has no reply for again. A command at work acts even if this is cancelled: its
        transaction runs in a thread, and its reply is remembered.
        """
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            while (message := await receive())["type"] != "websocket.disconnect":
                self._received(message.get("text"))
            self._inbox.clear()

    async def _carry_out_commands(self) -> None:
        identity, execute = self._connection.identity, self._services.conversation.execute
        try:
            while self._inbox:
                command, size = self._inbox.popleft()
                self._inbox_room += size
                if not self._is_closing:  # a user whose rights ended has no say any more
                    self._connection.reply(await self._services.database.call(execute, identity, command))
        finally:
            self._at_work = False

    @property
    def _is_closing(self) -> bool:
        return self._connection.health is Health.DRAINING

    def _received(self, text: str | None) -> None:
        if self._is_closing:
            return
        try:
            self._obey(_decoded(text, self._limits), text or "")
        except ProtocolViolation as violation:
            if violation.command_id is not None:
                self._refuse(violation.command_id, Refusal(ErrorCode.BAD_REQUEST, violation.message))
            self._connection.close(violation.close_code, violation.message)

    def _obey(self, frame: ClientFrame, text: str) -> None:
        if not self._has_subscribed and not isinstance(frame, Subscribe):
            command_id = None if isinstance(frame, Ack | Ping | Pong) else frame.id
            raise ProtocolViolation(CloseCode.VIOLATION, "the first frame is subscribe", command_id)
        cost = SIGNAL_COST if isinstance(frame, Ack | Ping | Pong) else COMMAND_COST
        pace = self._bucket.take(cost, time.monotonic())
        if pace is Pace.FAR_OVER:
            raise ProtocolViolation(CloseCode.TOO_FAST, "far over the command rate")
        match frame:
            case Ack():
                self._connection.acknowledged(frame)
            case Pong():
                self._connection.ponged(frame)
            case Ping():
                self._connection.pinged(frame)
            case Subscribe():
                self._connection.subscribe(frame)
                self._has_subscribed = True
            case RefusedCommand():
                self._refuse(frame.id, frame.refusal)
            case _ if pace is Pace.OVER:
                self._refuse(frame.id, self._too_fast())
            case _:
                self._take(frame, len(text.encode()))

    def _take(self, command: Command, size: int) -> None:
        if len(self._inbox) >= self._inbox_commands or size > self._inbox_room:
            text = f"commands wait already, {len(self._inbox)} of them; await their replies"
            raise ProtocolViolation(CloseCode.TOO_FAST, text)
        self._inbox.append((command, size))
        self._inbox_room -= size
        if not self._at_work:
            assert self._tasks is not None
            self._at_work = True
            self._tasks.create_task(self._carry_out_commands(), name=f"commands-{self._connection.connection_id}")

    def _refuse(self, command_id: str, refusal: Refusal) -> None:
        self._connection.reply(protocol.reply_error(command_id, refusal))

    def _too_fast(self) -> Refusal:
        wait_s = round(self._bucket.wait_s(COMMAND_COST), 1)
        text = f"at most {self._services.configuration.command_rate_per_s:g} commands a second"
        return Refusal(ErrorCode.RATE_LIMITED, text, {"limit": self._services.configuration.command_rate_per_s}, wait_s)


def _decoded(text: str | None, limits: Limits) -> ClientFrame:
    if text is None:
        raise ProtocolViolation(CloseCode.VIOLATION, "a client's frames are text, this one is binary")
    return decode(text, limits)


class _Socket:
    """The server's end, as the connection sends through it.

    Sending into a socket that is gone is no error, since only receiving tells when it went: Daphne drops
    such frames, other servers raise an OSError, which ends the sending here.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_open = True

    async def accept(self) -> None:
        await self._pass({"type": "websocket.accept", "subprotocol": protocol.SUBPROTOCOL})

    async def send_text(self, text: str) -> None:
        await self._pass({"type": "websocket.send", "text": text})

    async def send_bytes(self, content: bytes) -> None:
        await self._pass({"type": "websocket.send", "bytes": content})

    async def close(self, code: int) -> None:
        await self._pass({"type": "websocket.close", "code": int(code)})
        self._is_open = False

    async def say_bye(self, code: CloseCode, reason: str, retry_after_ms: int) -> None:
        """Close a socket that no connection sends on: it never became one, or its sender has ended.

        Whether it hears that is not waited for long. A server that buffers has passed it on by then, and closes.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self.send_text(protocol.bye(code, reason, retry_after_ms))
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self.close(code)

    async def _pass(self, message: Message) -> None:
        if self._is_open:
            try:
                await self._send(message)
            except OSError:
                self._is_open = False
