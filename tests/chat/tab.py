"""A server's end of one socket, for tests of the consumer without a network, and a database that keeps one waiting."""

import asyncio
import json
import threading
from contextlib import asynccontextmanager

from apps.chat.consumers import ChatConsumer

WAIT_S = 10  # for a frame that must come; no test waits this long when it passes


class Tab:
    """An ASGI server's end of one socket."""

    def __init__(self, services, headers, subprotocols=("turnout.v1",)):
        self._to_app = asyncio.Queue()
        self._from_app = asyncio.Queue()
        self.is_gone = False
        scope = {
            "type": "websocket",
            "path": "/ws/chat/",
            "query_string": b"",
            "headers": [(b"host", b"testserver"), *headers],
            "subprotocols": list(subprotocols),
        }
        self.task = asyncio.create_task(ChatConsumer.as_asgi(services=services)(scope, self._to_app.get, self._send))
        self._to_app.put_nowait({"type": "websocket.connect"})

    async def _send(self, message):
        if self.is_gone:
            raise OSError("the client is gone")
        self._from_app.put_nowait(message)

    def send(self, *frames):
        for frame in frames:
            text = frame if isinstance(frame, str) else json.dumps(frame)
            self._to_app.put_nowait({"type": "websocket.receive", "text": text})

    def send_bytes(self, content):
        self._to_app.put_nowait({"type": "websocket.receive", "bytes": content})

    def drop(self):
        self.is_gone = True
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def message(self):
        return await asyncio.wait_for(self._from_app.get(), WAIT_S)

    async def frame(self, kind=None):
        """The next frame, or the next of this kind."""
        while True:
            message = await self.message()
            assert message["type"] == "websocket.send", message
            frame = json.loads(message["text"])
            if kind in (None, frame["type"]):
                return frame

    async def reply(self):
        return await self.frame("reply")

    async def closed(self):
        """The close code, which `bye` must have said before."""
        bye = await self.frame("bye")
        assert await self.message() == {"type": "websocket.close", "code": bye["code"]}
        self.drop()
        await self.ended()
        assert self._from_app.empty()
        return bye["code"]

    async def ended(self):
        await asyncio.wait_for(self.task, WAIT_S)

    async def subscribed(self):
        assert (await self.message())["type"] == "websocket.accept"
        assert (await self.frame())["type"] == "hello"
        self.send({"type": "subscribe"})
        return self


@asynccontextmanager
async def blocked_database(services):
    """All database threads are at work until `release` is set."""
    release = threading.Event()
    entered = threading.Barrier(services.database.threads + 1)

    def wait():
        entered.wait(WAIT_S)
        release.wait(WAIT_S)

    waiting = [asyncio.create_task(services.database.call(wait)) for _ in range(services.database.threads)]
    await asyncio.to_thread(entered.wait, WAIT_S)
    try:
        yield release
    finally:
        release.set()
        await asyncio.gather(*waiting)
