"""npm's stock AG-UI client against a real server. It checks the grammar of every stream that it reads."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from apps.chat.management.commands.fetch_browser_libraries import npm_command
from tests.serving import ServerProcess, serving

FOLDER = Path(__file__).parent.parent / "agui"


@pytest.fixture(scope="session")
def node() -> str:
    """Node, with the client in place as locked."""
    npm = npm_command()
    if not (FOLDER / "node_modules" / "@ag-ui" / "client" / "package.json").exists():
        arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run([*npm, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, f"npm cannot fetch the AG-UI client: {done.stderr}"
    return "node" if len(npm) == 1 else npm[0]


class Driver:
    """Runs the steps of `drive.mjs` as one user."""

    def __init__(self, node: str, server: ServerProcess, name: str) -> None:
        self._node = node
        self._server = server
        self.token = server.token(name)
        self.http = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=20)

    def drive(self, *steps: dict[str, Any]) -> list[dict[str, Any]]:
        given = json.dumps({"url": self._server.url, "token": self.token, "steps": steps})
        command = [self._node, "drive.mjs", given]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        results: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return results


@pytest.fixture(scope="module")
def server(tmp_path_factory, migrated) -> Iterator[ServerProcess]:
    """One server for all; every test is another user."""
    with serving(tmp_path_factory.mktemp("agui"), migrated) as started:
        yield started
        assert "Traceback" not in "".join(started.output), "".join(started.output)


@pytest.fixture
def ann(node, server, request):
    driver = Driver(node, server, f"ann-{request.node.name[:100]}")
    with driver.http:
        yield driver


def say(name: str, text: str, **more: Any) -> dict[str, Any]:
    return {"agent": "one", "path": f"/api/agui/{name}", "say": text} | more


def said(result: dict[str, Any]) -> list[tuple[str, str]]:
    assert result["error"] is None, result["error"]
    return [(message["role"], message.get("content") or "") for message in result["messages"]]


def kinds(result: dict[str, Any]) -> list[str]:
    return [event["type"] for event in result["events"]]


def test_text_tools_and_a_second_turn_in_one_thread(ann):
    first, second = ann.drive(say("metronome", "count=3 interval_ms=5 tag=A"), say("assistant", "12 * (3 + 4)"))
    assert said(first) == [("user", "count=3 interval_ms=5 tag=A"), ("assistant", "0:A 1:A 2:A ")]
    assert kinds(first)[0] == "RUN_STARTED"
    assert kinds(first)[-1] == "RUN_FINISHED"
    roles = [role for role, _ in said(second)]
    assert roles[:3] == ["user", "assistant", "user"]
    (call,) = [message for message in second["messages"] if message.get("toolCalls")]
    assert call["toolCalls"][0]["function"]["name"] == "calculator"
    assert ("tool", "84") in said(second)
    assert "84" in said(second)[-1][1]
    (thread,) = ann.http.get("/api/threads").json()["threads"]
    snapshot = ann.http.get(f"/api/threads/{thread['id']}").json()
    assert [message["text"] for message in snapshot["messages"] if message["role"] == "user"] == [
        *("count=3 interval_ms=5 tag=A", "12 * (3 + 4)")
    ]


def test_a_failed_run_and_a_refused_call_are_told(ann):
    failed, unknown = ann.drive(say("metronome", "count=none"), say("nobody", "hello", agent="two"))
    assert kinds(failed)[-1] == "RUN_ERROR"
    assert unknown["error"]["status"] == 400
    assert "there is no agent" in str(unknown["error"])


def test_a_client_that_aborts_leaves_its_run_or_takes_it_along_as_it_wishes(ann):
    long = "count=6000 interval_ms=10 tag=A"
    cancel = {"forwardedProps": {"turnout": {"when_left": "cancel"}}}
    ann.drive(
        say("metronome", long, agent="left", abort_at="TEXT_MESSAGE_CONTENT"),
        say("metronome", long, agent="cancelled", abort_at="TEXT_MESSAGE_CONTENT", parameters=cancel),
    )
    running, cancelled = ann.http.get("/api/threads").json()["threads"][::-1]
    (run,) = ann.http.get(f"/api/threads/{running['id']}").json()["runs"]
    assert run["status"] == "running"
    deadline = time.monotonic() + 30
    while (stopped := ann.http.get(f"/api/threads/{cancelled['id']}").json()["runs"][0])["status"] != "cancelled":
        assert time.monotonic() < deadline, stopped
    assert ann.http.post(f"/api/runs/{run['id']}/cancel").json()["status"] == "cancelling"


def test_a_stock_client_joins_a_run_in_the_middle_and_sees_it_cancelled(ann):
    thread_id = ann.http.post("/api/threads", json={}).json()["id"]
    body = {"thread_id": thread_id, "text": "count=90 interval_ms=20 tag=A", "agent": "metronome"}
    run_id = ann.http.post("/api/runs", json=body).json()["run_id"]
    with ann.http.stream("GET", f"/api/threads/{thread_id}/events") as stream:
        next(line for line in stream.iter_lines() if "TEXT_MESSAGE_CONTENT" in line)
    path = f"/api/threads/{thread_id}/events?until=run_end"
    (joined,) = ann.drive({"agent": "one", "path": path, "follow": True})
    assert kinds(joined)[:2] == ["RUN_STARTED", "MESSAGES_SNAPSHOT"]
    answer = "".join(f"{number}:A " for number in range(90))
    assert said(joined) == [("user", "count=90 interval_ms=20 tag=A"), ("assistant", answer)]
    assert joined["events"][0]["runId"] == run_id


def test_the_same_run_id_acts_once_and_another_users_thread_is_never_met(ann, node, server):
    body = {"threadId": "mine", "runId": "r1", "messages": [{"id": "m", "role": "user", "content": "1 + 1"}]}
    first, again = (ann.http.post("/api/agui/assistant", json=body) for _ in range(2))
    assert first.status_code == again.status_code == 200
    runs = [line for line in first.text.splitlines() + again.text.splitlines() if "RUN_STARTED" in line]
    assert len(set(runs)) == 1
    bob = Driver(node, server, "bob")
    with bob.http as http:
        (thread,) = ann.http.get("/api/threads").json()["threads"]
        for name in ("mine", thread["id"]):
            answer = http.post("/api/agui/assistant", json=body | {"threadId": name})
            assert answer.status_code == 200
            assert thread["id"] not in answer.text.replace(f'"{name}"', "")
        snapshot = ann.http.get(f"/api/threads/{thread['id']}").json()
    assert len(snapshot["runs"]) == 1


def test_a_stock_client_is_asked_answers_and_sees_what_was_approved_happen(ann):
    (asked,) = ann.drive(say("assistant", "rename this thread to Whales"))
    outcome = asked["events"][-1]["outcome"]
    assert outcome["type"] == "interrupt"
    (interrupt,) = outcome["interrupts"]
    assert ann.http.get("/api/threads").json()["threads"][0]["title"] != "Whales"
    thread_id = asked["events"][0]["threadId"]
    resume = [{"interruptId": interrupt["id"], "status": "resolved", "payload": {"approved": True}}]
    step = {"agent": "two", "path": "/api/agui/assistant", "thread_id": thread_id, "parameters": {"resume": resume}}
    resumed, again = ann.drive(step, step | {"agent": "three"})
    assert resumed["events"][0]["parentRunId"] == asked["events"][0]["runId"]
    assert "now called “Whales”" in said(resumed)[-1][1]
    assert ann.http.get("/api/threads").json()["threads"][0]["title"] == "Whales"
    assert again["error"]["status"] == 409
    assert "already_decided" in str(again["error"])
