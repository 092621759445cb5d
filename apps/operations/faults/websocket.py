"""The client's side of a WebSocket (RFC 6455), as much as a drill needs: a deployment has no client library installed.

Text in, text out; pings are answered; a close, or a connection that breaks, raises SocketClosed.
"""

import asyncio
import base64
import os
import struct
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from collections.abc import Mapping
from typing import Self

SUBPROTOCOL = "turnout.v1"
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_HEAD_BYTES = 16_384
_BUFFER_BYTES = 65_536  # what the kernel and asyncio may hold of a tab that does not read


class SocketClosed(ConnectionError):  # noqa: N818 - says what happened
    """The socket is closed; `code` is None when it broke, or was refused, without a close frame."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


class WebSocket:
    """One open socket. Made by `connect`."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, host: str, port: int, path: str, headers: Mapping[str, str]) -> Self:
        """Raises SocketClosed, or OSError, when the server is not there or does not want it."""
        reader, writer = await asyncio.open_connection(host, port, limit=_BUFFER_BYTES)
        asked = {
            "Host": f"{host}:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Protocol": SUBPROTOCOL,
            **headers,
        }
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in asked.items())]
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode())
            head = await reader.readuntil(b"\r\n\r\n")
        except (IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
            writer.close()
            raise SocketClosed(f"no handshake: {error}") from error
        status = head[:_HEAD_BYTES].split(b"\r\n", 1)[0].decode("latin-1")
        if " 101" not in status:
            writer.close()
            raise SocketClosed(f"the handshake was answered {status}")
        return cls(reader, writer)

    async def receive(self) -> str:
        """The next text. Raises SocketClosed."""
        try:
            return await self._receive()
        except (IncompleteReadError, OSError) as error:
            raise SocketClosed(str(error) or type(error).__name__) from error

    async def _receive(self) -> str:
        parts: list[bytes] = []
        while True:
            first, second = await self._reader.readexactly(2)
            length = second & 0x7F
            if length == 126:  # noqa: PLR2004 - the protocol's number: two bytes of length follow
                (length,) = struct.unpack("!H", await self._reader.readexactly(2))
            elif length == 127:  # noqa: PLR2004 - as above: eight
                (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
            payload = await self._reader.readexactly(length)
            match first & 0x0F:
                case 8:
                    code = struct.unpack("!H", payload[:2])[0] if len(payload) > 1 else None
                    raise SocketClosed(payload[2:].decode("utf-8", "replace"), code)
                case 9:
                    await self._frame(_PONG, payload)
                case 10:
                    continue
                case _:
                    parts.append(payload)
                    if first & 0x80:
                        return b"".join(parts).decode()

    async def send(self, text: str) -> None:
        """Raises SocketClosed."""
        try:
            await self._frame(_TEXT, text.encode())
        except OSError as error:
            raise SocketClosed(str(error) or type(error).__name__) from error

    async def _frame(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        length = len(payload)
        if length < 126:  # noqa: PLR2004 - as above
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        elif length < 2**16:
            head = struct.pack("!BBH", 0x80 | opcode, 0xFE, length)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0xFF, length)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        self._writer.write(head + mask + masked)
        await self._writer.drain()

    def abort(self) -> None:
        """Break the connection as a network does: no close frame."""
        self._writer.transport.abort()

    def close(self) -> None:
        """Let the connection go."""
        self._writer.close()
