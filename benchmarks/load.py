"""The listening side of the benchmarks: many sockets in one process of their own, which only counts and measures.

Latency is from the publisher's acceptance of an event (`at`, on the same machine's clock) to its arrival here. A merged
delta counts as the deltas it holds, at the time of the first, so merging cannot make a figure better than it is.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

_OPEN_AT_ONCE = 50  # handshakes under way


@dataclass(slots=True)
class Heard:
    """What all sockets received together. Latencies in seconds, one for each delta."""

    deltas: int = 0
    frames: int = 0
    latencies: list[float] = field(default_factory=list)
    run_seconds: list[float] = field(default_factory=list)
    foreign_deltas: int = 0

    def percentile_ms(self, share: float) -> float:
        """The latency that this share of the deltas stayed below, in milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


async def open_sockets(url: str, tokens: Sequence[str]) -> list[ClientConnection]:
    """One subscribed socket for each token; an empty token connects to the bare sender."""
    gate = asyncio.Semaphore(_OPEN_AT_ONCE)

    async def one(token: str) -> ClientConnection:
        async with gate:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            socket = await connect(
                url,
                subprotocols=["turnout.v1"],  # type: ignore[list-item]
                additional_headers=headers,
                compression=None,
                ping_interval=None,
                open_timeout=60,
                max_size=2**22,
            )
            if token:
                await socket.recv()
                await socket.send(json.dumps({"type": "subscribe"}))
            return socket

    return list(await asyncio.gather(*(one(token) for token in tokens)))


async def run_and_listen(
    socket: ClientConnection, thread_id: str, count: int, interval_ms: int, heard: Heard, start_after_s: float
) -> None:
    """Start one metronome run and listen until it has ended, acknowledging as a browser does."""
    await asyncio.sleep(start_after_s)
    command = {
        "type": "run.start",
        "id": f"b{time.monotonic_ns()}",
        "thread_id": thread_id,
        "text": f"count={count} interval_ms={interval_ms} tag=x",
        "agent": "metronome",
    }
    started = time.monotonic()
    await socket.send(json.dumps(command))
    run_id: str | None = None
    acked = seq = 0
    async for text in socket:
        now = time.time()
        frame: dict[str, Any] = json.loads(text)
        if frame["type"] == "reply":
            assert frame["ok"], frame
            run_id = frame["result"]["run_id"]
        elif frame["type"] == "ping":
            await socket.send(json.dumps({"type": "pong", "t": frame["t"], "acked": seq}))
        elif frame["type"] == "events":
            heard.frames += 1
            ended = False
            for entry in frame["events"]:
                seq = entry["seq"]
                ended |= _hear(entry, now, thread_id, heard)
            if ended or seq - acked >= 128:
                acked = seq
                await socket.send(json.dumps({"type": "ack", "seq": seq}))
            if ended and run_id is not None:
                heard.run_seconds.append(time.monotonic() - started)
                return


def _hear(entry: dict[str, Any], now: float, thread_id: str, heard: Heard) -> bool:
    event = entry["event"]
    if event["type"] == "TEXT_MESSAGE_CONTENT":
        deltas = event["delta"].count(" ")
        heard.deltas += deltas
        heard.latencies.extend([now - entry["at"]] * deltas)
        heard.foreign_deltas += deltas if entry["thread_id"] != thread_id else 0
    return event["type"] in ("RUN_FINISHED", "RUN_ERROR") and entry["thread_id"] == thread_id


async def listen_bare(socket: ClientConnection, count: int, heard: Heard) -> None:
    """Listen to the bare sender until it has sent everything."""
    async for text in socket:
        now = time.time()
        for entry in json.loads(text)["events"]:
            heard.frames += 1
            heard.deltas += 1
            heard.latencies.append(now - entry["at"])
            if entry["seq"] == count:
                return
