"""A client of Turnout in one file: ask agents, hear their events once and in order, over dropped connections.

It needs `websockets` and `httpx`, and nothing else of Turnout: copy it, or put its folder on the path.

    async with TurnoutClient("http://127.0.0.1:8000", token) as client:
        run = await client.ask(await client.create_thread(), "What is 12 * 13?")
        async for event in run:
            print(event["type"])
        print(run.text)

The stream is a cursor into the user's log, so the client keeps one position and a seq, changes both in one place, and
comes back with them after every break. Commands without a reply are sent again with their id: they act once.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

Event = Mapping[str, Any]

PROTOCOL = Subprotocol("turnout.v1")
ACK_EVENTS = 128  # at the latest then the server hears how far this client has come
ACK_BYTES = 65_536
FRAME_BYTES = 4 * 1024 * 1024  # a page of the log
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 15.0
FOR_GOOD = {4400: "the server does not understand this client", 4401: "the token is unknown or has ended"}
FOR_GOOD |= {
    4403: "this user may not use the chat",
    4409: "this user has too many connections",
    4413: "a frame was too large",
}
TERMINAL = ("RUN_FINISHED", "RUN_ERROR")


class TurnoutError(Exception):
    """Base of what this client raises."""


class CommandRefused(TurnoutError):  # noqa: N818 - an answer
    """The server refused a command; `code` is one of its error codes, `retry_after_s` when to try again, if known."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error["message"])
        self.code: str = error["code"]
        self.retry_after_s: float | None = error.get("retry_after_s")


class ConnectionLost(TurnoutError):  # noqa: N818 - what happened
    """The server sent this client away for good; the text says why. Nothing is tried again."""


class StreamReset(TurnoutError):  # noqa: N818 - what happened
    """Events are gone that this client has not seen (`reason` says why): load the thread's snapshot instead."""


class Run:
    """One run: iterate over its events, from the first to the terminal one. `text` is what was said so far."""

    def __init__(self, client: "TurnoutClient", run_id: str, thread_id: str) -> None:
        self.run_id = run_id
        self.thread_id = thread_id
        self.text = ""
        self.terminal: Event | None = None
        self._client = client
        self._events: asyncio.Queue[Event | TurnoutError] = asyncio.Queue()  # bounded by what one run may log

    def __repr__(self) -> str:
        return f"<Run {self.run_id} {'ended' if self.terminal else 'open'}>"

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Raises StreamReset or ConnectionLost when the rest cannot be had here."""
        while True:
            event = await self._events.get()
            if isinstance(event, TurnoutError):
                raise event
            yield event
            if event["type"] in TERMINAL:
                return

    async def finished(self) -> Event:
        """Hear the run to its end and return the terminal event."""
        async for _ in self:
            pass
        assert self.terminal is not None
        return self.terminal

    async def cancel(self) -> str:
        """Ask the run to stop: `cancelling`, or `cancelled` if it had not begun. Raises CommandRefused."""
        status: str = (await self._client.command("run.cancel", run_id=self.run_id))["status"]
        return status

    def _take(self, event: Event) -> None:
        if event["type"] == "TEXT_MESSAGE_CONTENT":
            self.text += event["delta"]
        if event["type"] in TERMINAL:
            self.terminal = event
        self._events.put_nowait(event)


class TurnoutClient:
    """One user's connection; it comes back by itself while the block is open. `token` is a bearer token."""

    def __init__(self, url: str, token: str) -> None:
        self._address = url.rstrip("/").replace("http", "ws", 1) + "/ws/chat/"
        self._bearer = {"Authorization": f"Bearer {token}"}
        self._http = httpx.AsyncClient(base_url=url, headers=self._bearer, timeout=30)
        self._position: str | None = None
        self._seq = 0
        self._acked = 0
        self._unacked_bytes = 0
        self._runs: dict[str, Run] = {}
        self._early: dict[str, list[Event]] = {}  # of runs whose reply has not come yet
        self._unanswered: dict[str, tuple[str, asyncio.Future[Mapping[str, Any]]]] = {}
        self._socket: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._lost: TurnoutError | None = None
        self.connections = 0

    def __repr__(self) -> str:
        return f"<TurnoutClient seq={self._seq} runs={len(self._runs)} unanswered={len(self._unanswered)}>"

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._stay_connected(), name="turnout-client")
        await self._ready.wait()
        if self._lost is not None:
            await self.__aexit__(None, None, None)
            raise self._lost
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._http.aclose()

    # -- what a program does

    async def create_thread(self, title: str = "") -> str:
        """The id of a new thread."""
        thread: dict[str, Any] = await self.http("POST", "/api/threads", json={"title": title})
        thread_id: str = thread["id"]
        return thread_id

    async def snapshot(self, thread_id: str) -> Mapping[str, Any]:
        """The thread with all its messages, as `GET /api/threads/{id}` answers."""
        answer: Mapping[str, Any] = await self.http("GET", f"/api/threads/{thread_id}")
        return answer

    async def ask(self, thread_id: str, text: str, **fields: Any) -> Run:
        """Say something in a thread; `fields` as `run.start` takes them (`agent`, …). Raises CommandRefused."""
        result = await self.command("run.start", thread_id=thread_id, text=text, **fields)
        return self._open(result["run_id"], thread_id)

    async def decide(self, thread_id: str, interrupt_id: str, *, approve: bool, reason: str = "") -> Run:
        """Answer a tool call that waits for approval; the run that goes on from it. Raises CommandRefused."""
        result = await self.command("tool.decide", interrupt_id=interrupt_id, approve=approve, reason=reason)
        return self._open(result["run_id"], thread_id)

    async def command(self, kind: str, **fields: Any) -> Mapping[str, Any]:
        """Send a command, over as many connections as it takes, and return its result. It acts once.

        Raises CommandRefused, or ConnectionLost when the server sent this client away for good.
        """
        if self._lost is not None:
            raise self._lost
        command_id = secrets.token_hex(16)
        text = json.dumps({"type": kind, "id": command_id, **fields})
        reply: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._unanswered[command_id] = (text, reply)
        try:
            await self._send(text)
            return await reply
        finally:
            self._unanswered.pop(command_id, None)

    async def http(self, method: str, path: str, **options: Any) -> Any:
        """A call of the HTTP API. Raises CommandRefused with the problem's code."""
        answer = await self._http.request(method, path, **options)
        body = answer.json() if answer.content else None
        if answer.is_success:
            return body
        retry = answer.headers.get("Retry-After")
        problem = body if isinstance(body, dict) else {}
        raise CommandRefused(
            {
                "code": problem.get("code", f"http_{answer.status_code}"),
                "message": problem.get("detail", answer.reason_phrase),
                "retry_after_s": float(retry) if retry else None,
            }
        )

    # -- the connection

    async def _stay_connected(self) -> None:
        wait_s = FIRST_WAIT_S
        while self._lost is None:
            asked_s = 0.0
            try:
                async with connect(
                    self._address,
                    subprotocols=[PROTOCOL],
                    additional_headers=self._bearer,
                    max_size=FRAME_BYTES,
                    compression=None,
                    ping_interval=None,
                ) as self._socket:
                    asked_s = await self._listen(self._socket)
                wait_s = FIRST_WAIT_S
            except (OSError, InvalidHandshake, TimeoutError):
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            self._socket = None
            if self._lost is None:
                await asyncio.sleep(asked_s or wait_s * (0.5 + secrets.randbelow(500) / 1000))
        self._give_up(self._lost)

    async def _listen(self, socket: ClientConnection) -> float:
        """Take frames until the socket closes; returns the seconds that the server asks to stay away."""
        asked_s = 0.0
        try:
            async for text in socket:
                frame = json.loads(text)
                if frame["type"] == "bye":
                    asked_s = frame.get("retry_after_ms", 0) / 1000
                else:
                    await self._take(frame, len(text))
        except ConnectionClosed:
            pass
        if socket.close_code in FOR_GOOD:
            self._lost = ConnectionLost(FOR_GOOD[socket.close_code])
        return asked_s

    async def _take(self, frame: Mapping[str, Any], size: int) -> None:
        match frame["type"]:
            case "hello":
                await self._subscribe(frame["head"])
            case "events":
                await self._events(frame, size)
            case "reply":
                self._reply(frame)
            case "reset":
                self._give_up(StreamReset(frame["reason"]))
                self._position = None
                await self._subscribe(frame["head"])
            case "ping":
                await self._send(json.dumps({"type": "pong", "t": frame["t"], "acked": self._seq}))
                self._acked = self._seq

    async def _subscribe(self, head: str) -> None:
        if self._position is None:
            self._position = head
            self._seq = self._acked = int(head.split(".")[1])
        await self._send(json.dumps({"type": "subscribe", "after": self._position}))
        self.connections += 1
        self._ready.set()
        for text, _ in list(self._unanswered.values()):
            await self._send(text)

    async def _events(self, frame: Mapping[str, Any], size: int) -> None:
        ended = False
        for entry in frame["events"]:
            if entry["seq"] <= self._seq:
                continue
            if entry["seq"] != self._seq + 1:
                raise OSError(f"event {self._seq + 1} is missing")  # break off, and come back with the last position
            self._seq = entry["seq"]
            ended |= entry["event"]["type"] in TERMINAL
            self._hand_on(entry["run_id"], entry["event"])
        self._position = frame["position"]
        self._unacked_bytes += size
        if ended or self._seq - self._acked >= ACK_EVENTS or self._unacked_bytes >= ACK_BYTES:
            await self._send(json.dumps({"type": "ack", "seq": self._seq}))
            self._acked, self._unacked_bytes = self._seq, 0

    def _hand_on(self, run_id: str | None, event: Event) -> None:
        if run_id in self._runs:
            self._runs[run_id]._take(event)  # noqa: SLF001 - one file, two halves
            if event["type"] in TERMINAL:
                del self._runs[run_id]
        elif run_id is not None and self._unanswered:
            self._early.setdefault(run_id, []).append(event)

    def _open(self, run_id: str, thread_id: str) -> Run:
        run = self._runs[run_id] = Run(self, run_id, thread_id)
        for event in self._early.pop(run_id, ()):
            self._hand_on(run_id, event)
        if not self._unanswered:
            self._early.clear()  # of runs that other tabs of this user started
        return run

    def _reply(self, frame: Mapping[str, Any]) -> None:
        _, reply = self._unanswered.get(frame["id"], ("", None))
        if reply is None or reply.done():
            return
        if frame["ok"]:
            reply.set_result(frame["result"])
        else:
            reply.set_exception(CommandRefused(frame["error"]))

    def _give_up(self, error: TurnoutError) -> None:
        for run in self._runs.values():
            run._events.put_nowait(error)  # noqa: SLF001
        self._runs.clear()
        if isinstance(error, ConnectionLost):
            for _, reply in self._unanswered.values():
                if not reply.done():
                    reply.set_exception(error)
        self._ready.set()

    async def _send(self, text: str) -> None:
        if self._socket is not None:
            with suppress(ConnectionClosed):  # it is sent again on the next connection
                await self._socket.send(text)
