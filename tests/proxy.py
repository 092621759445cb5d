"""A TCP proxy that breaks links on purpose, for fault tests: one stands between a process and what it talks to.

Everything passes until a verb is called; a verb holds for the links that are open and for those that come, until
`mend`. `cuts` and `lost_bytes` prove that the fault bit.
"""

import asyncio
import socket
import struct
from types import TracebackType
from typing import Literal, Self

Direction = Literal["up", "down"]  # towards the server, towards the client
_CHUNK = 65_536


class _Link:
    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.writers: dict[Direction, asyncio.StreamWriter] = {"up": server, "down": client}
        self.tasks: list[asyncio.Task[None]] = []

    def reset(self) -> None:
        """End both sides with RST instead of FIN."""
        for writer in self.writers.values():
            if writer.transport.is_closing():
                continue
            sock = writer.get_extra_info("socket")
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """`async with Proxy(target) as proxy:` listens on `proxy.port`; `target` is (host, port) or a Unix socket."""

    def __init__(self, target: tuple[str, int] | str) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._open = asyncio.Event()
        self._delay_s = 0.0
        self._slice = _CHUNK
        self._lost: set[Direction] = set()
        self._allowance: dict[Direction, int | None] = {"up": None, "down": None}
        self.port = 0
        self.connections = 0
        self.cuts = 0
        self.lost_bytes = 0
        self.mend()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        await self._server.wait_closed()

    # -- verbs

    def mend(self) -> None:
        """Let everything pass again. What was lost stays lost."""
        self._delay_s, self._slice = 0.0, _CHUNK
        self._lost.clear()
        self._allowance = {"up": None, "down": None}
        self._open.set()

    def delay(self, seconds: float) -> None:
        """Hold back every chunk for this long."""
        self._delay_s = seconds

    def reset(self) -> None:
        """Cut all links that are open."""
        for link in list(self._links):
            self.cuts += 1
            link.reset()

    def stall(self) -> None:
        """Pass nothing and lose nothing, so that both ends see a full window."""
        self._open.clear()

    def blackhole(self, *directions: Direction) -> None:
        """Take everything and pass nothing on, in these directions or both: the link looks alive."""
        self._lost.update(directions or ("up", "down"))

    def slice(self, size: int) -> None:
        """Pass `size` bytes at a time."""
        self._slice = size

    def half_close(self, direction: Direction) -> None:
        """End one direction of all open links."""
        for link in self._links:
            if link.writers[direction].can_write_eof():
                link.writers[direction].write_eof()

    def cut_after(self, count: int, direction: Direction) -> None:
        """Reset the link over which, from now on, the `count`-th byte in this direction would pass."""
        self._allowance[direction] = count

    # -- pumping

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if isinstance(self._target, str):
                back_reader, back_writer = await asyncio.open_unix_connection(self._target)
            else:
                back_reader, back_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, back_writer)
        self._links.add(link)
        try:
            await asyncio.gather(self._pump(link, reader, "up"), self._pump(link, back_reader, "down"))
        finally:
            self._links.discard(link)
            for end in link.writers.values():
                end.close()

    async def _pump(self, link: _Link, reader: asyncio.StreamReader, direction: Direction) -> None:
        writer = link.writers[direction]
        try:
            while chunk := await reader.read(_CHUNK):
                for start in range(0, len(chunk), self._slice):
                    await self._pass_on(link, writer, chunk[start : start + self._slice], direction)
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            link.reset()  # one end is gone: so is the other

    async def _pass_on(self, link: _Link, writer: asyncio.StreamWriter, part: bytes, direction: Direction) -> None:
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        await self._open.wait()
        if direction in self._lost:
            self.lost_bytes += len(part)
            return
        allowance = self._allowance[direction]
        if allowance is not None:
            if len(part) >= allowance:
                self._allowance[direction] = None
                self.cuts += 1
                link.reset()
                raise ConnectionResetError("cut")
            self._allowance[direction] = allowance - len(part)
        writer.write(part)
        await writer.drain()
