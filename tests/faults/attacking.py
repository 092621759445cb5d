"""Attacks on the socket of a real server, and the proof that nobody else noticed.

`server.names` maps names of users to their bearer tokens. The attacker is anna, the bystander is bert.
"""

import asyncio
import contextlib
import json
import sqlite3
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

SUBSCRIBE = {"type": "subscribe"}
LAST = 424_242  # the `t` of the ping that ends an attack
STORED = ("chat_thread", "chat_message", "chat_commandreceipt", "execution_run", "realtime_segment")
DROPPED = 1006  # the server's own limit on frames is 4 times ours; what is over that is cut off


@dataclass
class Outcome:
    """What came back to an attacker."""

    frames: list[dict] = field(default_factory=list)
    close_code: int | None = None

    def of(self, kind):
        return [frame for frame in self.frames if kind in (None, frame["type"])]

    @property
    def errors(self):
        return {frame["id"]: frame.get("error", {}).get("code") for frame in self.of("reply")}


def bearer(server, name):
    return {"Authorization": f"Bearer {server.names[name]}"}


@asynccontextmanager
async def socket_of(server, name, max_queue=None):
    async with connect(
        server.ws_url,
        subprotocols=["turnout.v1"],
        additional_headers=bearer(server, name),
        compression=None,
        max_size=None,
        max_queue=max_queue,
        ping_interval=None,
    ) as socket:
        assert json.loads(await socket.recv())["type"] == "hello"
        yield socket


async def attack(server, *frames, subscribe=SUBSCRIBE, awaiting=None, times=1):
    """Send frames as anna; read until the server closes, or has answered the ping after them and what is awaited."""
    outcome = Outcome()
    async with socket_of(server, "anna") as socket:
        try:
            for frame in (*([subscribe] if subscribe else []), *frames, {"type": "ping", "t": LAST}):
                await socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))
                await asyncio.sleep(0)  # so that a close is heard
        except ConnectionClosed:
            pass  # it said enough already
        try:
            async with asyncio.timeout(30):
                while {"type": "pong", "t": LAST} not in outcome.frames or len(outcome.of(awaiting)) < times:
                    outcome.frames.append(json.loads(await socket.recv()))
        except ConnectionClosed:
            outcome.close_code = socket.close_code
    if outcome.close_code not in (None, DROPPED):
        assert outcome.frames[-1]["type"] == "bye"
        assert outcome.frames[-1]["code"] == outcome.close_code
    return outcome


def stored(server):
    with closing(sqlite3.connect(f"file:{server.database}?mode=ro", uri=True)) as database:
        return {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in STORED}


@asynccontextmanager
async def nobody_notices(server, may_store=()):
    """Others' sockets stay open and get their answers, and no table has a row more."""
    before = stored(server)
    async with socket_of(server, "bert") as bert, socket_of(server, "anna") as another_tab:
        for socket in (bert, another_tab):
            await socket.send(json.dumps(SUBSCRIBE))
        yield
        for socket in (bert, another_tab):
            await socket.send(json.dumps({"type": "ping", "t": LAST}))
            async with asyncio.timeout(30):
                assert json.loads(await socket.recv()) == {"type": "pong", "t": LAST}, "and nothing before it"
    after = stored(server)
    assert {table for table in STORED if after[table] != before[table]} <= set(may_store)
    assert "Traceback" not in "".join(server.output)


async def say_without_listening(server, frames):
    """Send as a client that never reads, until the server has had enough; the code of its end.

    Who does not read does not learn that the other side is gone, either: once everything is said, it looks.
    """
    async with socket_of(server, "anna", max_queue=1) as socket:
        try:
            for frame in frames:
                await socket.send(json.dumps(frame))
        except ConnectionClosed:
            pass
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionClosed):
                async for _ in socket:
                    pass
        return socket.close_code


async def head_of(server):
    async with connect(server.ws_url, subprotocols=["turnout.v1"], additional_headers=bearer(server, "anna")) as socket:
        return json.loads(await socket.recv())["head"]


def ping_with(extra):
    return '{"type":"ping","t":1,' + extra + "}"


def damaged(chance, frame):
    at = chance.randrange(len(frame))
    junk = chance.choice([b"", b'"', b"{", b"\\u0000", b"\\ud800", b"1e999", b":", b"\xf0\x9f\x98\x80", b"null", b",,"])
    return (frame[:at] + junk + frame[at + chance.randrange(6) :]).decode()
