"""An OpenAI-compatible server over real HTTP that answers each request as the test scripts it, misbehaving included."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class FakeProvider:
    """`script` answers one request after the other; `requests` is what was sent."""

    url: str = ""
    script: deque[Behaviour] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)
    dropped: asyncio.Event = field(default_factory=asyncio.Event)
    sockets: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sockets.add(writer)
        try:
            while True:
                self.requests.append(await _read(reader))
                await self.script.popleft()(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.dropped.set()
        finally:
            self.sockets.discard(writer)
            writer.close()


@asynccontextmanager
async def fake_provider() -> AsyncIterator[FakeProvider]:
    provider = FakeProvider()
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield provider
    finally:
        server.close()
        for writer in provider.sockets:  # Server.close_clients() came with Python 3.13
            writer.transport.abort()
        await server.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    headers = {
        name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:] if line)
    }
    body = await reader.readexactly(int(headers["content-length"]))
    return Request(headers, json.loads(body))


def _head(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))
    await writer.drain()


async def begin(writer: asyncio.StreamWriter, *headers: str) -> None:
    writer.write(_head("200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked", *headers))


async def event(writer: asyncio.StreamWriter, delta: dict[str, Any], **choice: Any) -> None:
    body = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None, **choice}],
    }
    await _chunk(writer, b"data: " + json.dumps(body).encode() + b"\n\n")


async def usage(writer: asyncio.StreamWriter, prompt_tokens: int, completion_tokens: int) -> None:
    counted = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    body = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "fake", "choices": []}
    await _chunk(writer, b"data: " + json.dumps(body | {"usage": counted}).encode() + b"\n\n")


async def done(writer: asyncio.StreamWriter) -> None:
    await _chunk(writer, b"data: [DONE]\n\n")
    await _chunk(writer, b"")


def says(*pieces: str, headers: tuple[str, ...] = (), tokens: tuple[int, int] | None = (11, 7)) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter) -> None:
        await begin(writer, *headers)
        for piece in pieces:
            await event(writer, {"role": "assistant", "content": piece})
        await event(writer, {}, finish_reason="stop")
        if tokens:
            await usage(writer, *tokens)
        await done(writer)

    return behave


def calls_tool(name: str, *arguments: str) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        first = {"index": 0, "id": "call_0", "type": "function", "function": {"name": name, "arguments": ""}}
        await event(writer, {"role": "assistant", "tool_calls": [first]})
        for piece in arguments:
            await event(writer, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        await event(writer, {}, finish_reason="tool_calls")
        await done(writer)

    return behave


def fails(status: str, body: str, *headers: str) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter) -> None:
        data = body.encode()
        writer.write(_head(status, "Content-Type: application/json", f"Content-Length: {len(data)}", *headers))
        writer.write(data)
        await writer.drain()

    return behave


def sends(*chunks: bytes, headers: tuple[str, ...] = ()) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter) -> None:
        await begin(writer, *headers)
        for data in chunks:
            await _chunk(writer, data)
        await _chunk(writer, b"")

    return behave


def breaks_off(*pieces: str) -> Behaviour:
    """The socket dies in the middle of an event."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        for piece in pieces:
            await event(writer, {"role": "assistant", "content": piece})
        writer.write(b'100\r\ndata: {"id":"c1","cho')
        await writer.drain()
        raise ConnectionResetError

    return behave


def ends_early(*pieces: str) -> Behaviour:
    """A clean end of the response, without a finish_reason: a proxy that lost the provider does this."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        for piece in pieces:
            await event(writer, {"role": "assistant", "content": piece})
        await _chunk(writer, b"")

    return behave


def stalls(*pieces: str) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        for piece in pieces:
            await event(writer, {"role": "assistant", "content": piece})
        await asyncio.get_running_loop().create_future()

    return behave


def drips(piece: str) -> Behaviour:
    """Never stalls and never ends."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        while True:
            await event(writer, {"role": "assistant", "content": piece})
            await asyncio.sleep(0.005)

    return behave


def floods() -> Behaviour:
    """One line that never ends: whoever collects it runs out of memory."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        while True:
            await _chunk(writer, b"x" * 65_536)

    return behave
