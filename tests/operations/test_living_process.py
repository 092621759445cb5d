"""A real server: healthy, killed while it answers, audited from outside, and stopped in order."""

import sqlite3
import time
from contextlib import closing

import httpx
import pytest

from tests.serving import serving

# Short times, so that a process is missed after a second and not after ten.
IMPATIENT = {"TURNOUT_REPORT_S": "0.2", "TURNOUT_REPORT_STALE_S": "1", "TURNOUT_METRICS": "1"}
DEADLINE_S = 30  # seconds after which a state that was waited for will not come


@pytest.fixture
def server(tmp_path, migrated):
    with serving(tmp_path / "server", migrated, IMPATIENT) as started:
        yield started


def audit(server, *arguments):
    done = server.manage("audit_cleanup", *arguments)
    assert not done.stderr
    return done.stdout, done.returncode


def eventually(look):
    """The first true answer of `look`."""
    deadline = time.monotonic() + DEADLINE_S
    while not (answer := look()):
        assert time.monotonic() < deadline
    return answer


def start_run(server):
    """A run that would go on for a minute; returns its id once it has said something."""
    client = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.token('ann')}"})
    with client:
        thread_id = client.post("/api/threads", json={}).json()["id"]
        body = {"thread_id": thread_id, "text": "count=600 interval_ms=100", "agent": "metronome"}
        run_id = client.post("/api/runs", json=body).json()["run_id"]
        eventually(lambda: client.get(f"/api/runs/{run_id}").json()["status"] == "running")
        return run_id


def terminal_events(server, run_id):
    with closing(sqlite3.connect(server.database)) as database:
        rows = database.execute("SELECT payload FROM realtime_segment").fetchall()
    return sum(
        payload.count('"RUN_ERROR"') + payload.count('"RUN_FINISHED"') for (payload,) in rows if run_id in payload
    )


def test_a_killed_process_is_missed_and_its_run_ended_with_one_terminal_event(server):
    run_id = start_run(server)
    server.kill()
    text = eventually(lambda: next((text for text, status in [audit(server)] if status == 1), None))
    assert "is silent for" in text
    assert f"1 of 1 running runs: run {run_id}" in text
    assert terminal_events(server, run_id) == 0

    assert audit(server, "--fix")[1] == 0
    assert terminal_events(server, run_id) == 1


def test_a_ready_process_that_is_told_to_stop_ends_its_runs_and_holds_nothing_at_its_end(server):
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{server.url}/readyz").json() == {"status": "ok"}
    run_id = start_run(server)
    assert "turnout_executor_running 1.0" in httpx.get(f"{server.url}/metrics").text

    assert server.stop() == 0

    text, status = audit(server)
    assert status == 0, text
    assert "Ended processes held nothing KEPT 1 processes that stopped in order" in " ".join(text.split())
    assert terminal_events(server, run_id) == 1
