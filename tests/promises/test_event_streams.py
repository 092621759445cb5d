"""Event streams of a real server, read as EventSource reads them: joined in the middle, cut off, resumed, sent away."""

import contextlib
import json
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import ServerProcess, serving

NINE = "count=90 interval_ms=10 tag=A"


class Tab:
    """One user's program, with one event stream at a time."""

    def __init__(self, server: ServerProcess, name: str) -> None:
        headers = {"Authorization": f"Bearer {server.token(name)}"}
        self.http = httpx.Client(base_url=server.url, headers=headers, timeout=20)
        self.thread_id = self.http.post("/api/threads", json={}).json()["id"]
        self.last_id = ""

    def start(self, text: str = NINE, **more: Any) -> str:
        body = {"thread_id": self.thread_id, "text": text, "agent": "metronome", **more}
        answer = self.http.post("/api/runs", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["run_id"]

    def stream(self, query: str = "") -> Any:
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        return self.http.stream("GET", f"/api/threads/{self.thread_id}/events{query}", headers=headers)

    def turn(self, text: str, query: str = "?until=run_end") -> list[dict[str, Any]]:
        """A whole run, followed from before it begins."""
        self.last_id = ""
        with self.stream(query) as answer:
            lines = answer.iter_lines()
            self.start(text)
            told = list(blocks(lines))
        self.last_id = [place for place, _ in told if place is not None][-1]
        return [data for _, data in told if data is not None]

    def read(self, query: str = "", most: int = 10_000) -> list[dict[str, Any]]:
        """Up to `most` events of one connection, which is then dropped."""
        seen: list[dict[str, Any]] = []
        with self.stream(query) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert answer.headers["cache-control"] == "private, no-store"
            for place, data in blocks(answer.iter_lines()):
                self.last_id = self.last_id if place is None else place
                if data is not None:
                    seen.append(data)
                    if len(seen) >= most:
                        break
        return seen


def blocks(lines: Iterable[str]) -> Iterator[tuple[str | None, dict[str, Any] | None]]:
    """The `id` and `data` of each event, as EventSource's algorithm finds them."""
    place, data = None, None
    for line in lines:
        if line.startswith("id"):
            place = line.removeprefix("id").removeprefix(": ")
        elif line.startswith("data: "):
            data = json.loads(line.removeprefix("data: "))
        elif not line and (place is not None or data is not None):
            yield place, data
            place, data = None, None


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")


def counted(count: int, tag: str) -> str:
    return "".join(f"{number}:{tag} " for number in range(count))


@pytest.fixture
def tab_of() -> Iterator[Callable[[ServerProcess, str], Tab]]:
    """Makes tabs, and closes what they opened."""
    with contextlib.ExitStack() as stack:

        def open_tab(server: ServerProcess, name: str) -> Tab:
            tab = Tab(server, name)
            stack.callback(tab.http.close)
            return tab

        yield open_tab


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[ServerProcess]:
    """One server for the tests that do not stop it; every test has users of its own."""
    with serving(tmp_path_factory.mktemp("streams"), migrated) as started:
        yield started
        assert "Traceback" not in "".join(started.output), "".join(started.output)


@pytest.fixture
def ann(shared: ServerProcess, tab_of: Any, request: pytest.FixtureRequest) -> Tab:
    return tab_of(shared, f"ann-{request.node.name[:100]}")


def test_who_joins_in_the_middle_is_told_the_run_from_its_beginning_and_what_was_said_before(ann):
    ann.turn("count=2 interval_ms=1 tag=first")
    ann.last_id = ""
    ann.start()
    ann.read("?until=run_end", most=20)  # the run is on its way
    ann.last_id = ""
    seen = ann.read("?until=run_end")
    assert types(seen)[:3] == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "TEXT_MESSAGE_START"]
    assert types(seen)[-2:] == ["TEXT_MESSAGE_END", "RUN_FINISHED"]
    assert "CUSTOM" not in types(seen)
    said = [(message["role"], message["content"]) for message in seen[1]["messages"]]
    assert said == [("user", "count=2 interval_ms=1 tag=first"), ("assistant", "0:first 1:first "), ("user", NINE)]
    assert text_of(seen) == counted(90, "A")


def test_a_stream_that_is_cut_off_again_and_again_goes_on_with_the_next_event(ann):
    ann.start()
    seen: list[dict[str, Any]] = []
    connections = 0
    while not seen or seen[-1]["type"] != "RUN_FINISHED":
        seen += ann.read("?until=run_end", most=3)
        connections += 1
    assert connections > 5
    assert text_of(seen) == counted(90, "A")
    assert [kind for kind in types(seen) if kind != "TEXT_MESSAGE_CONTENT"] == [
        *("RUN_STARTED", "MESSAGES_SNAPSHOT", "TEXT_MESSAGE_START", "TEXT_MESSAGE_END", "RUN_FINISHED")
    ]


def test_entries_are_all_events_of_the_thread_as_on_the_socket(ann):
    seen = ann.turn("count=2 interval_ms=1 tag=A", "?shape=entries&until=run_end")
    assert {entry["thread_id"] for entry in seen} == {ann.thread_id}
    assert seen[-1]["event"]["type"] == "RUN_FINISHED"
    numbers = [entry["seq"] for entry in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert "turnout.run.queued" in {entry["event"].get("name") for entry in seen}


def test_nobody_else_can_follow_a_thread_and_a_place_that_is_none_is_refused(shared, ann, tab_of):
    bob = tab_of(shared, "bob")
    theirs = bob.http.get(f"/api/threads/{ann.thread_id}/events")
    unknown = bob.http.get("/api/threads/nothing/events")
    assert (theirs.status_code, theirs.content) == (404, unknown.content)
    assert httpx.get(f"{shared.url}/api/threads/{ann.thread_id}/events").status_code == 401
    ann.last_id = "yesterday"
    with ann.stream() as answer:
        assert answer.status_code == 400


def test_a_place_in_another_users_stream_ends_the_stream_and_clears_the_id(shared, ann, tab_of):
    bob = tab_of(shared, "bob")
    bob.turn("count=2 interval_ms=1 tag=B")
    ann.last_id = bob.last_id
    assert ann.read() == []
    assert ann.last_id == ""


def test_a_stream_ends_when_its_token_does(server, tab_of):
    ann = tab_of(server, "ann")
    with ann.stream() as answer:
        revoke = "from django.utils import timezone; ApiToken.objects.update(revoked_at=timezone.now())"
        server.manage("shell", "-v", "0", "-c", f"from apps.chat.models import ApiToken; {revoke}")
        began = time.monotonic()
        assert list(answer.iter_lines())[-2].startswith("retry: ")
    assert time.monotonic() - began < 5
    with ann.stream() as again:
        assert again.status_code == 401


def test_streams_count_as_connections_and_the_oldest_makes_way(tmp_path: Path, migrated: Path, tab_of):
    with serving(tmp_path / "server", migrated, {"TURNOUT_CONNECTIONS_PER_USER": "2"}) as server:
        ann = tab_of(server, "ann")
        with ann.stream() as first, ann.stream(), ann.stream():
            assert list(first.iter_lines())[-2:] == ["retry: 60000", ""]


def test_a_drain_ends_the_streams_after_their_runs(server, tab_of):
    ann = tab_of(server, "ann")
    ann.start("count=10000 interval_ms=10 tag=A")
    with ann.stream() as answer:
        lines = answer.iter_lines()
        events = (data for _, data in blocks(lines) if data is not None)
        assert next(events)["type"] == "RUN_STARTED"
        assert server.stop() == 0
        assert list(events)[-1]["code"] == "interrupted"


def test_a_client_that_does_not_read_is_dropped_and_nobody_else_waits(tmp_path: Path, migrated: Path, tab_of):
    slow = {"TURNOUT_STALL_TIMEOUT_S": "2", "TURNOUT_HEARTBEAT_S": "1", "TURNOUT_STALLED_AFTER_S": "1.5"}
    with serving(tmp_path / "server", migrated, slow) as server:
        ann = tab_of(server, "ann")
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            deaf.connect(("127.0.0.1", server.port))
            path = f"/api/threads/{ann.thread_id}/events?shape=entries"
            token = ann.http.headers["Authorization"]
            request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: {token}\r\n\r\n"
            deaf.sendall(request.encode())
            assert deaf.recv(64).startswith(b"HTTP/1.1 200")
            assert ann.turn("count=60000 interval_ms=0 tag=" + "x" * 64)[-1]["type"] == "RUN_FINISHED"
            watch = select.poll()
            watch.register(deaf, 0)  # told of errors alone: the server's reset
            assert watch.poll(15_000), "the server goes on writing to who does not read"
        assert server.stop() == 0
