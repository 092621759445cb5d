"""A tab of a drill: connects, runs, acknowledges, comes back by itself, and writes down what it was sent.

It follows the protocol by the letter, so that what its history shows is the server's doing. State is the list of runs
that have ended; `recoveries` are the seconds from each loss of its socket until it was served again.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from apps.operations.faults.websocket import SocketClosed, WebSocket
from apps.realtime.constructs import TERMINAL

_ACK_EVENTS = 128
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class Person:
    """Whose tab it is, and what it asks of the metronome."""

    name: str
    user: str
    token: str = field(repr=False)
    threads: Sequence[str]
    text: str


class Tab:
    """One user's tab, with a run in each of its threads at a time. `load_s` seconds long each run that ends, however it
    ends, is followed by another; `run` returns when everything that was asked is answered, ended and received.
    """

    def __init__(self, person: Person, ports: Sequence[int], chance: Random, load_s: float) -> None:
        self.name = person.name
        self.user = person.user
        self._token = person.token
        self._text = person.text
        self._ports = ports
        self._chance = chance
        self._until = time.monotonic() + load_s
        self._unanswered: dict[str, Mapping[str, Any]] = {}
        self._asked = 0
        for thread_id in person.threads:
            self._ask(thread_id)
        self._open_runs: set[str] = set()
        self._ended: set[str] = set()
        self._socket: WebSocket | None = None
        self._position: str | None = None
        self._seq = self._acked = 0
        self._lost_at: float | None = None
        self.history: list[dict[str, Any]] = []
        self.recoveries: list[float] = []
        self.latencies: list[float] = []
        self.close_codes: list[int] = []
        self.refused: list[str] = []
        self.begun = asyncio.Event()  # it was sent something
        self.paused = asyncio.Event()  # while it is not set the tab does not read
        self.paused.set()

    @property
    def done(self) -> bool:
        """Whether all commands are answered and all runs have ended in this tab."""
        return not self._unanswered and not self._open_runs

    async def run(self) -> None:
        """Listen through whatever happens, until there is nothing more to come."""
        pause = _FIRST_PAUSE_S
        while not self.done:
            try:
                await self._connect()
                pause = _FIRST_PAUSE_S
                await self._listen()
            except (SocketClosed, OSError) as lost:
                if self._lost_at is None:
                    self._lost_at = time.monotonic()
                if isinstance(lost, SocketClosed) and lost.code is not None:
                    self.close_codes.append(lost.code)
                await asyncio.sleep(pause * self._chance.uniform(0.5, 1.0))
                pause = min(2 * pause, _LAST_PAUSE_S)
            finally:
                if self._socket is not None:
                    self._socket.close()
                    self._socket = None
        self._note("done")

    def cut(self) -> bool:
        """Break its socket; whether there was one."""
        if self._socket is None:
            return False
        self._socket.abort()
        return True

    async def _connect(self) -> None:
        socket = await WebSocket.connect(
            "127.0.0.1", self._chance.choice(self._ports), "/ws/chat/", {"Authorization": f"Bearer {self._token}"}
        )
        hello = json.loads(await socket.receive())
        if hello["type"] != "hello":
            raise SocketClosed(str(hello), None)
        self._socket = socket
        after = self._position or hello["head"]
        self._seq = self._acked = int(after.split(".")[1])
        self._position = after
        self._note("subscribed", after=after)
        await self._send({"type": "subscribe", "after": after})
        for command in list(self._unanswered.values()):
            await self._send(command)
        if self._lost_at is not None:
            self.recoveries.append(time.monotonic() - self._lost_at)
            self._lost_at = None

    async def _listen(self) -> None:
        socket = self._socket
        assert socket is not None
        while not self.done:
            await self.paused.wait()
            frame = json.loads(await socket.receive())
            match frame["type"]:
                case "events":
                    await self._events(frame)
                case "reply":
                    self._reply(frame)
                case "ping":
                    self._acked = self._seq
                    await self._send({"type": "pong", "t": frame["t"], "acked": self._seq})
                case "reset":
                    self._position = frame["head"]
                    self._seq = self._acked = int(frame["head"].split(".")[1])
                    self._note("reset", head=frame["head"])
                    await self._send({"type": "subscribe", "after": self._position})

    async def _events(self, frame: Mapping[str, Any]) -> None:
        now = time.time()
        self.begun.set()
        self._note("events", events=frame["events"], position=frame["position"])
        for entry in frame["events"]:
            self._seq = entry["seq"]
            self.latencies.append(now - entry["at"])
            if entry["event"]["type"] in TERMINAL:
                self._ended.add(entry["run_id"])
                self._open_runs.discard(entry["run_id"])
                if time.monotonic() < self._until:
                    await self._send(self._ask(entry["thread_id"]))
        self._position = frame["position"]
        if self._seq - self._acked >= _ACK_EVENTS or self.done:
            self._acked = self._seq
            self._note("acked", seq=self._seq)
            await self._send({"type": "ack", "seq": self._seq})

    def _ask(self, thread_id: str) -> Mapping[str, Any]:
        self._asked += 1
        command = {
            "type": "run.start",
            "id": f"drill-{self._asked}",
            "thread_id": thread_id,
            "agent": "metronome",
            "text": self._text,
        }
        self._unanswered[command["id"]] = command
        return command

    def _reply(self, frame: Mapping[str, Any]) -> None:
        if frame["ok"]:
            self._unanswered.pop(frame["id"], None)
            run_id = frame["result"]["run_id"]
            if run_id not in self._ended:
                self._open_runs.add(run_id)
        elif frame["error"]["code"] not in {"unavailable", "internal", "rate_limited", "queue_full"}:
            self._unanswered.pop(frame["id"], None)
            self.refused.append(f"{frame['error']['code']}: {frame['error']['message']}")
        # else it is sent again with the next connection

    def _note(self, what: str, **fields: Any) -> None:
        self.history.append({"client": self.name, "user": self.user, "what": what, **fields})

    async def _send(self, frame: Mapping[str, Any]) -> None:
        assert self._socket is not None
        await self._socket.send(json.dumps(frame))
