"""The ASGI application: HTTP by Django, the socket by ChatConsumer, life by lifespan where the server speaks it.

`manage.py serve` opens the services itself and calls `build_application`. Any other server loads `application`, which
opens the same services on its `lifespan.startup` (uvicorn, hypercorn). Under a server without lifespan pages are
served, and sockets and runs are refused with an error that names `serve`.
"""

import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django_application = get_asgi_application()

from django.conf import settings  # noqa: E402 - apps must be loaded first

from apps.chat.agui import rebuild_within  # noqa: E402 - apps must be loaded first
from apps.chat.consumers import ChatConsumer  # noqa: E402
from apps.chat.streaming import StreamDoor  # noqa: E402
from project.composition import Services, open_services  # noqa: E402

Message = Any  # a scope or message; each server and framework types them differently
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

SOCKET_PATH = "/ws/chat/"


def build_application(services: Services) -> Application:
    """The application of a process whose services are open."""
    sockets = {SOCKET_PATH: ChatConsumer.as_asgi(services=services)}
    for path, who_is in services.switch.sockets().items():
        sockets[path] = ChatConsumer.as_asgi(services=services, who_is=who_is)

    async def socket(scope: Message, receive: Receive, send: Send) -> None:
        await sockets.get(scope["path"], refuse_socket)(scope, receive, send)

    rebuild = rebuild_within(services.configuration.stream_snapshot_bytes)
    http = StreamDoor(django_application, services, rebuild)
    application: Application = ProtocolTypeRouter({"http": http, "websocket": socket})
    return application


async def refuse_socket(scope: Message, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
    """Refuse a handshake: HTTP 403, all that Daphne can say."""
    await receive()
    await send({"type": "websocket.close", "code": 4403})


class LifespanApplication:
    """Opens the services when the server says that it starts, and closes them when it says that it stops."""

    def __init__(self) -> None:
        self._application: Application | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._application is not None:
            await self._application(scope, receive, send)
        elif scope["type"] == "http":
            await django_application(scope, receive, send)
        else:
            await refuse_socket(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        async with AsyncExitStack() as stack:
            try:
                services = await stack.enter_async_context(open_services(settings.CONFIGURATION, kind="lifespan"))
            except Exception as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                raise
            self._application = build_application(services)
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
            await services.drain(services.deadline())
            self._application = None
        await send({"type": "lifespan.shutdown.complete"})


application = LifespanApplication()
