"""A process that is told to stop ends in time, whatever hangs in it, and says so by its exit code."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.promises.test_drain import start_one
from tests.serving import ROOT, ServerProcess
from tests.socket_client import Client

SHORT = {
    "TURNOUT_CANCEL_TIMEOUT_S": "1",
    "TURNOUT_CLEANUP_TIMEOUT_S": "1",
    "TURNOUT_GOODBYE_S": "1",
    "TURNOUT_CLOSING_S": "0.5",
    "TURNOUT_SHUTDOWN_S": "1",
    "TURNOUT_DRAIN_TIMEOUT_S": "6",
}
CUT_OFF = 3


@pytest.fixture
def server(tmp_path, migrated):
    server = ServerProcess(tmp_path, migrated, SHORT)
    yield server
    server.kill()


@contextlib.contextmanager
def locked(database):
    """Nobody else can write."""
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


async def test_a_database_that_never_answers_is_cut_off_at_the_deadline_and_the_next_start_ends_the_run(server):
    client = Client(server.start().url, server.ws_url, server.token("anna"))
    async with client.connected():
        run_id = await start_one(client)
        with locked(server.database):
            began = time.monotonic()
            assert await asyncio.to_thread(server.stop) == CUT_OFF
            took = time.monotonic() - began
        await client.until(lambda c: c.close_code is not None)
    assert 5 < took < 8, "".join(server.output)
    assert "Turnout was cut off: not closed within 6 s" in "".join(server.output)
    await asyncio.to_thread(server.start)
    client.url, client.ws_url = server.url, server.ws_url
    async with client.connected():
        await client.until_ended(run_id)
    assert [event["code"] for event in client.terminals(run_id)] == ["interrupted"]
    assert server.stop() == 0


async def test_a_terminal_that_hangs_up_is_no_crash(server):
    client = Client(server.start().url, server.ws_url, server.token("anna"))
    async with client.connected():
        run_id = await start_one(client)
        server.process.send_signal(signal.SIGHUP)
        assert await asyncio.to_thread(server.wait) == 0
        await client.until(lambda c: c.close_code is not None)
    assert client.close_code == 4012
    assert [event["code"] for event in client.terminals(run_id)] == ["interrupted"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_is_told_to_stop_while_it_starts_closes_what_it_had_opened(server, number):
    starting = subprocess.Popen(
        [sys.executable, "manage.py", "serve", "--port", "0"],
        cwd=ROOT,
        env=server.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        while not opens_services(starting.pid, server.database):
            assert starting.poll() is None, starting.communicate()
            time.sleep(0.002)  # what another process does is not told to this one
        starting.send_signal(number)
        output, _ = starting.communicate(timeout=30)
    finally:
        starting.kill()
    assert "Traceback" not in output
    assert starting.returncode == 0, output


def opens_services(pid: int, database: Path) -> bool:
    """Whether a thread other than the first is there, and somebody has the database open."""
    with contextlib.suppress(OSError):
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        files = [os.path.realpath(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        return threads > 1 and str(database) in files
    return False
