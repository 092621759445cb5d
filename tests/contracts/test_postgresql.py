"""What holds on SQLite holds on PostgreSQL: the suites of the rooms that write together are run there again."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.serving import ServerProcess
from tests.socket_client import Client

ROOT = Path(__file__).resolve().parents[2]
SUITES = (
    "tests/contracts/held_rows.py",  # rows are locked there only
    "tests/contracts/cut_links.py",
    "tests/contracts/test_lock_order.py",
    "tests/realtime/test_commit.py",
    "tests/realtime/test_cuts.py",
    "tests/realtime/test_log.py",
    "tests/realtime/test_epochs.py",
    "tests/realtime/test_erasing.py",
    "tests/realtime/test_retention.py",
    "tests/execution/test_admission.py",
    "tests/execution/test_fairness.py",
    "tests/execution/test_service.py",
    "tests/execution/test_settlement.py",
    "tests/execution/test_approvals.py",
    "tests/execution/test_quota.py",
    "tests/execution/test_two_processes.py",
    "tests/execution/test_recovery.py",
    "tests/rollout/test_moves.py",
    "tests/chat/test_receipts.py",
    "tests/chat/test_threads.py",
)
# What locks and races are not the point of: `make proof` runs these there, too.
IN_PROOF = (
    "tests/rollout/test_watch.py",
    "tests/realtime/test_reader.py",
    "tests/realtime/test_connection.py",
    "tests/realtime/test_pool.py",
    "tests/chat/test_decisions.py",
    "tests/rollout/test_recordings.py",
    "tests/rollout/test_mismatches.py",
    "tests/rollout/test_shadow.py",
    "tests/rollout/test_adapter.py",
    "tests/project/test_watching.py",
    "tests/chat/test_folding.py",
)

pytestmark = pytest.mark.services


def database(postgresql_url: str, name: str) -> str:
    """A new, empty database on the session's server."""
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return postgresql_url.replace("/postgres?", f"/{name}?")


@pytest.mark.timeout(900)
def test_the_suites_of_log_execution_rollout_and_commands_hold_on_postgresql(postgresql_url, request):
    suites = (*SUITES, *(IN_PROOF if request.config.getoption("--proof") else ()))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-skips", *suites],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database(postgresql_url, "suites")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    assert " passed" in done.stdout


async def test_a_chat_from_end_to_end_on_postgresql(tmp_path, migrated, postgresql_url):
    url = database(postgresql_url, "chat")
    server = ServerProcess(tmp_path, migrated, {"DATABASE_URL": url})
    done = server.manage("migrate", "-v", "0")
    assert done.returncode == 0, done.stderr
    token = server.token("anna")
    server.start()
    try:
        client = Client(server.url, server.ws_url, token)
        thread_id = await client.new_thread()
        async with client.connected():
            run_id = await client.run(thread_id, "count=50 interval_ms=5 tag=x")
            await client.until_ended(run_id)
            assert client.text(run_id) == "".join(f"{i}:x " for i in range(50))
            asked = await client.run(thread_id, "What is 12 * 13?", "assistant")
            await client.until_ended(asked)
            assert "156" in client.text(asked)
        snapshot = await client.snapshot(thread_id)
        assert [message["text"] for message in snapshot["messages"]][1] == client.text(run_id)
        assert server.manage("audit_isolation").returncode == 0
        assert server.stop() == 0
    finally:
        server.kill()
