"""Tabs that stop reading, as the kernel sees them: a socket with small buffers that nobody reads, and what is in it."""

import base64
import json
import os
import socket
import struct
from pathlib import Path

import httpx

_GROW = """
import json, sys
from ag_ui.core import CustomEvent
from django.contrib.auth import get_user_model
from django.db import transaction
from apps.realtime.log import EventLog, LogLimits
from apps.realtime.values import LogEntry
bounds, log, began = json.loads(sys.stdin.read()), EventLog(LogLimits()), {}
for user in get_user_model().objects.filter(username__in=bounds["names"]):
    with transaction.atomic():
        began[user.username] = str(log.head(user.pk))
        entry = LogEntry(CustomEvent(name="n", value="x" * bounds["size"]))
        log.append(user.pk, [entry] * bounds["events"])
print(json.dumps(began))
"""


class StalledTab:
    """Shakes hands and says what it is told, and reads nothing unless asked."""

    def __init__(self, server, token, *, receive_buffer=4_096):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(30)
        self.left = b""
        self.open = False
        try:
            self._ask(server, token)
        except OSError:
            self.socket.close()
            raise

    def _ask(self, server, token):
        self.socket.connect(("127.0.0.1", server.port))
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET /ws/chat/ HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: turnout.v1\r\n"
            f"Authorization: Bearer {token}\r\n\r\n"
        )
        self.socket.sendall(request.encode())

    def shake_hands(self):
        """Wait for the answer to the handshake, before which a client may say nothing."""
        while b"\r\n\r\n" not in self.left:
            self._receive()
        self.left, self.open = self.left.partition(b"\r\n\r\n")[2], True
        return self

    def say(self, frame):
        """Send a frame, masked with zeros, which is a mask too."""
        content = json.dumps(frame).encode()
        length = (
            struct.pack("!B", 0x80 | len(content)) if len(content) < 126 else struct.pack("!BH", 0xFE, len(content))
        )
        self.socket.sendall(b"\x81" + length + b"\0\0\0\0" + content)

    def sent_so_far(self):
        """Begin to read: every frame that the server had sent, found by asking for a pong behind them."""
        self.say({"type": "ping", "t": 424_242})
        frames = []
        while not frames or frames[-1] != {"type": "pong", "t": 424_242}:
            frames.append(self.frame())
        return frames

    def frame(self):
        """The next frame; a close frame is its code."""
        if not self.open:
            self.shake_hands()
        opcode, size = self._take(2)
        if size == 126:
            (size,) = struct.unpack("!H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._take(8))
        content = self._take(size)
        if opcode & 15 == 8:
            return struct.unpack("!H", content[:2])[0]
        return json.loads(content)

    def _take(self, size):
        while len(self.left) < size:
            self._receive()
        taken, self.left = self.left[:size], self.left[size:]
        return taken

    def _receive(self):
        part = self.socket.recv(1 << 20)
        if not part:
            raise EOFError("the server closed")
        self.left += part

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def resident_bytes(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024


def descriptors(server):
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def sockets(server):
    held = Path(f"/proc/{server.process.pid}/fd").iterdir()
    return sum(os.path.realpath(each).rpartition("/")[2].startswith("socket:") for each in held)


def counts(server):
    """What the server says that it holds, by the names of its metrics."""
    lines = httpx.get(f"{server.url}/metrics", timeout=30).text.splitlines()
    rows = (line.split() for line in lines if not line.startswith("#"))
    return {row[0].removeprefix("turnout_"): float(row[1]) for row in rows if len(row) == 2}


def grow_streams(server, events, size):
    """Let the stream of every user grow by so many events of this size; where each began, by name."""
    bounds = json.dumps({"names": list(server.names), "events": events, "size": size})
    done = server.manage("shell", "-v", "0", "-c", _GROW, stdin=bounds)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
