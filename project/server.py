"""Our life cycle on Daphne's server: open before the first socket, drain on SIGTERM, close in reverse, exit 0.

Daphne cuts: on SIGTERM it cancels every application at once, sends no close frame and never calls `disconnect`. Here
the shutdown first stops listening, then lets the services drain (each tab hears `bye` and why, runs end or are handed
over), and only then cancels what is left. Daphne has no ASGI lifespan either; so the services live in one task of the
reactor's loop, entered before the reactor runs and left after it drained.

Daphne buffers without bound, too; `backpressure` is about that.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any

from daphne.server import Server  # first: it installs the asyncio reactor
from twisted.internet import defer, reactor

from apps.chat.streaming import ABORT
from project.asgi import build_application
from project.backpressure import BoundedRequest, BoundedWebSocket, Intake, Message
from project.composition import Services
from project.configuration import Configuration
from project.descriptors import is_for_clients, within_descriptors
from project.life import STOPPING, CutOff, ServiceLife

logger = logging.getLogger(__name__)

_BACKLOG = 2_048  # Twisted's own of 50 drops connections when a thousand tabs come back at once
_FRAME_MARGIN = 4  # the consumer answers frames over its limit with 4413; Daphne itself would drop the TCP connection


class AddressTaken(OSError):  # noqa: N818 - says what was met
    """Another program listens on this address."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises AddressTaken, or OSError for an address that is not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), port))
    except OSError as error:
        listening.close()
        raise AddressTaken(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    listening.listen(_BACKLOG)
    listening.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return listening


def _endpoint(listening: socket.socket) -> str:
    if listening.family is socket.AF_INET:
        return f"fd:fileno={listening.fileno()}"
    # Daphne's way to take over a socket knows IPv4 only: this one proved that the address is free, and makes way.
    host, port = listening.getsockname()[:2]
    listening.close()
    escaped = host.replace(":", r"\:")
    return f"tcp6:port={port}:interface={escaped}:backlog={_BACKLOG}"


class TurnoutServer(Server):  # type: ignore[misc]  # Daphne has no types
    """Daphne's server, which drains before it kills."""

    def __init__(self, services: Services, listening: socket.socket, life: "ServiceLife") -> None:
        super().__init__(
            build_application(services),
            endpoints=[_endpoint(listening)],
            websocket_max_frame_size=services.configuration.frame_bytes * _FRAME_MARGIN,
            websocket_max_message_size=services.configuration.frame_bytes * _FRAME_MARGIN,
            websocket_timeout=-1,  # Daphne would close every socket after a day
            ping_interval=float(
                "inf"
            ),  # and drop after 50 s who answers no ping of its own: ours say why, by our bounds
            server_name="turnout",
            signal_handlers=False,
            verbosity=0,
        )
        self._services = services
        self._life = life
        self.failure: str | None = None
        self._is_full = False

    # Daphne makes its factories as it begins to run, and asks nobody what they shall make.

    @property
    def http_factory(self) -> Any:
        """Makes the protocol of each TCP connection."""
        return self._http_factory

    @http_factory.setter
    def http_factory(self, factory: Any) -> None:
        build = factory.buildProtocol

        def build_bounded(address: Any) -> Any:
            protocol = build(address)
            protocol.requestFactory = BoundedRequest
            protocol.makeConnection = partial(self._connect, protocol.makeConnection)
            return protocol

        factory.buildProtocol = build_bounded
        self._http_factory = factory

    def _connect(self, make_connection: Callable[[Any], object], transport: Any) -> None:
        make_connection(transport)
        was_full, self._is_full = self._is_full, not is_for_clients(transport.getHandle().fileno())
        if self._is_full:
            if not was_full:
                logger.warning("descriptors run out: connections are cut off until some are free (see ulimit -n)")
            transport.abortConnection()

    @property
    def ws_factory(self) -> Any:
        """Makes the protocol of each WebSocket."""
        return self._ws_factory

    @ws_factory.setter
    def ws_factory(self, factory: Any) -> None:
        factory.protocol = BoundedWebSocket
        self._ws_factory = factory

    def create_application(self, protocol: Any, scope: MutableMapping[str, Any]) -> Any:
        """Begin to serve a request or a socket; returns the queue that it receives from."""
        if scope["type"] != "websocket":
            scope.setdefault("extensions", {})[ABORT] = protocol.abort
            return super().create_application(protocol, scope)
        bounds = self._services.configuration
        intake = Intake(bounds.intake_frames, bounds.intake_bytes)
        application = self.application(
            scope={**scope, "asgi": {"version": "3.0"}},
            receive=intake.get,
            send=partial(self.handle_reply, protocol),
        )
        self.connections[protocol]["application_instance"] = asyncio.ensure_future(application)
        return intake

    async def handle_reply(self, protocol: Any, message: Message) -> None:
        """Pass on what an application sends, and return when its client has taken enough of what came before."""
        await super().handle_reply(protocol, message)
        outlet = protocol.outlet
        if outlet is None or not outlet.is_full or message["type"] == "websocket.close":
            return  # a close frame goes out behind what is written, or the connection is dropped a second later
        if isinstance(protocol, BoundedWebSocket):
            await outlet.until_free()  # the connection's own clock says when it has waited for too long
            return
        try:
            async with asyncio.timeout(self._services.configuration.stall_timeout_s):
                await outlet.until_free()
        except TimeoutError:
            protocol.abort()

    def listen_error(self, failure: Any) -> None:
        """Called when an endpoint cannot be opened: the server stops, and `serve` says why."""
        self.failure = failure.getErrorMessage()
        super().listen_error(failure)

    def kill_all_applications(self) -> "defer.Deferred[None]":
        """Called once, before the reactor stops."""
        return defer.Deferred.fromFuture(asyncio.ensure_future(self._shut_down()))

    async def _shut_down(self) -> None:
        deadline = self._services.deadline()
        for listener in self.listeners:
            listener.addCallback(lambda port: port.stopListening())
        try:
            await self._services.drain(deadline)
        finally:
            applications = [
                details["application_instance"]
                for details in self.connections.values()
                if "application_instance" in details
            ]
            for application in applications:
                application.cancel()
            if applications:
                await asyncio.wait(applications, timeout=self._services.configuration.shutdown_s / 2)
            await self._life.end(deadline)


def _open(loop: asyncio.AbstractEventLoop, life: ServiceLife) -> Services | None:
    """The open services; None when a signal came first. A second signal ends the process as signals do."""
    opening = loop.create_task(life.begin(), name="opening")

    def stop(*_: object) -> None:
        loop.call_soon_threadsafe(opening.cancel)
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)

    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets SIGHUP
            signal.signal(number, stop)
    try:
        return loop.run_until_complete(opening)
    except asyncio.CancelledError:
        return None


def _stop_on_signals() -> None:
    """Stop at the first signal, and let no later one disturb the drain. Twisted's own handlers would know no SIGHUP."""
    told: list[int] = []

    def stop(number: int, _frame: object) -> None:
        told.append(number)
        if len(told) == 1:
            reactor.callFromThread(reactor.stop)

    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def _heed_no_more_signals() -> None:
    """Python gives its handlers back to the system as it ends, so a late signal would turn exit 0 into -15.

    Blocked first: of a signal that has come and whose handler is gone when it is looked at, Python prints a traceback.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def serve(configuration: Configuration, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP. `ready` is called when the services are open and the socket listens.

    Raises AddressTaken when the socket could not be opened after all, CutOff when it was told to stop and something
    did not end in time.
    """
    loop = reactor._asyncioEventloop  # noqa: SLF001 - Twisted offers no public way to its loop
    asyncio.set_event_loop(loop)
    life = ServiceLife(within_descriptors(configuration), kind="serve")
    services = _open(loop, life)
    if services is None:
        listening.close()
        return
    server = TurnoutServer(services, listening, life)
    _stop_on_signals()
    reactor.callWhenRunning(ready)
    server.run()
    _heed_no_more_signals()
    if life.cut_off:
        raise CutOff(life.cut_off)
    if server.failure is not None:
        raise AddressTaken(0, f"cannot listen: {server.failure}")
