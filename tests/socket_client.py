"""A client of `turnout.v1` for tests, by the letter of the protocol, that checks every promise while it listens.

State and position live and die together: `seen` is the list of applied events, `position` the place after the last. A
gap, a repeat or an event out of order is an AssertionError at the frame that brought it.
"""

import asyncio
import contextlib
import itertools
import json
from types import TracebackType
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

ACK_EVENTS = 128


class Client:
    """One tab of one user. `async with client.connected():` listens; reconnect by entering it again."""

    def __init__(self, url: str, ws_url: str, token: str) -> None:
        self.url = url
        self.ws_url = ws_url
        self.token = token
        self.seen: list[dict[str, Any]] = []
        self.position: str | None = None
        self.seq = 0
        self.acked = 0
        self.hello: dict[str, Any] = {}
        self.bye: dict[str, Any] | None = None
        self.close_code: int | None = None
        self.resets: list[dict[str, Any]] = []
        self.history: list[dict[str, Any]] = []  # what it did and was sent, for `apps.operations.histories`
        self.connections = 0
        self._socket: ClientConnection | None = None
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count(1)
        self._changed = asyncio.Condition()

    # -- HTTP

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=30)

    async def new_thread(self, title: str = "") -> str:
        async with self.http() as http:
            answer = await http.post("/api/threads", json={"title": title} if title else {})
            assert answer.status_code == 201, answer.text
            return answer.json()["id"]

    async def snapshot(self, thread_id: str) -> dict[str, Any]:
        async with self.http() as http:
            answer = await http.get(f"/api/threads/{thread_id}")
            assert answer.status_code == 200, answer.text
            return answer.json()

    # -- socket

    def connected(self) -> "_Connected":
        return _Connected(self)

    async def open(self) -> None:
        self._socket = await connect(
            self.ws_url,
            subprotocols=["turnout.v1"],  # type: ignore[list-item]
            additional_headers={"Authorization": f"Bearer {self.token}"},
            max_size=4 * 1024 * 1024,
            compression=None,
            ping_interval=None,
        )
        self.connections += 1
        self.bye, self.close_code = None, None
        self.hello = json.loads(await self._socket.recv())
        if self.hello["type"] == "bye":
            self.bye = self.hello
            return
        assert self.hello["type"] == "hello", self.hello
        subscribe = {"type": "subscribe"} | ({"after": self.position} if self.position else {})
        self._note("subscribed", after=self.position or self.hello["head"])
        await self._socket.send(json.dumps(subscribe))

    def _note(self, what: str, **fields: Any) -> None:
        name = f"{self.hello['user']['name']}-{id(self)}"
        self.history.append({"client": name, "user": self.hello["user"]["id"], "what": what, **fields})

    async def listen(self) -> None:
        """Apply frames until the socket closes."""
        assert self._socket is not None
        try:
            async for text in self._socket:
                await self._frame(json.loads(text))
        except ConnectionClosed:
            pass
        self.close_code = self._socket.close_code
        async with self._changed:
            self._changed.notify_all()

    async def _frame(self, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "events":
                self._note("events", events=frame["events"], position=frame["position"])
                self._apply(frame)
                ended = any(e["event"]["type"] in ("RUN_FINISHED", "RUN_ERROR") for e in frame["events"])
                if ended or self.seq - self.acked >= ACK_EVENTS:
                    self.acked = self.seq
                    # The server may have closed already, with frames on the way that still are to be read.
                    with contextlib.suppress(ConnectionClosed):
                        await self.send({"type": "ack", "seq": self.seq})
                        self._note("acked", seq=self.seq)
            case "reply":
                waiting = self._replies.pop(frame["id"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(frame)
            case "ping":
                self.acked = self.seq
                await self.send({"type": "pong", "t": frame["t"], "acked": self.seq})
            case "reset":
                self.resets.append(frame)
                self._note("reset", head=frame["head"])
                self.position = frame["head"]
                self.seq = self.acked = int(frame["head"].split(".")[1])
                await self.send({"type": "subscribe", "after": self.position})
            case "bye":
                self.bye = frame
        async with self._changed:
            self._changed.notify_all()

    def _apply(self, frame: dict[str, Any]) -> None:
        for entry in frame["events"]:
            if self.position is not None or self.seen:
                assert entry["seq"] == self.seq + 1, f"{entry['seq']} after {self.seq}"
            self.seq = entry["seq"]
            self.seen.append(entry)
        self.position = frame["position"]
        assert self.position.split(".")[1] == str(self.seq)

    async def send(self, frame: dict[str, Any]) -> None:
        assert self._socket is not None
        await self._socket.send(json.dumps(frame))

    async def command(self, type_: str, timeout_s: float = 30, **fields: Any) -> dict[str, Any]:
        """Send a command and return its reply."""
        command_id = fields.pop("id", f"c{next(self._ids)}")
        future = self._replies[command_id] = asyncio.get_running_loop().create_future()
        await self.send({"type": type_, "id": command_id, **fields})
        return await asyncio.wait_for(future, timeout_s)

    async def run(self, thread_id: str, text: str, agent: str = "metronome", **fields: Any) -> str:
        """Start a run and return its id."""
        reply = await self.command("run.start", thread_id=thread_id, text=text, agent=agent, **fields)
        assert reply["ok"], reply
        return reply["result"]["run_id"]

    async def until(self, condition: Any, timeout_s: float = 30) -> None:
        """Wait until `condition(self)` holds."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: condition(self))

    async def until_ended(self, *run_ids: str, timeout_s: float = 30) -> None:
        await self.until(lambda client: set(run_ids) <= client.ended(), timeout_s)

    # -- what was seen

    def events(self, run_id: str) -> list[dict[str, Any]]:
        return [entry["event"] for entry in self.seen if entry["run_id"] == run_id]

    def text(self, run_id: str) -> str:
        return "".join(e["delta"] for e in self.events(run_id) if e["type"] == "TEXT_MESSAGE_CONTENT")

    def terminals(self, run_id: str) -> list[dict[str, Any]]:
        return [event for event in self.events(run_id) if event["type"] in ("RUN_FINISHED", "RUN_ERROR")]

    def ended(self) -> set[str]:
        return {e["run_id"] for e in self.seen if e["event"]["type"] in ("RUN_FINISHED", "RUN_ERROR")}

    def drop(self) -> None:
        """Cut the connection as a network does: no close frame."""
        if self._socket is not None:
            self._socket.transport.abort()


class _Connected:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Client:
        await self._client.open()
        self._task = asyncio.create_task(self._client.listen())
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._client._socket is not None
        assert self._task is not None
        await self._client._socket.close()
        await self._task
