"""After a restore, on a real server: readiness says what was forgotten, the command mends it, tabs reload."""

import json
import shutil
import sqlite3
from contextlib import closing

import httpx
import pytest

from tests.serving import ServerProcess
from tests.socket_client import Client

FAST = {"TURNOUT_RETENTION_S": "0.1"}


def copy(source, target):
    """As a backup tool copies a database that is in use, in either direction."""
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


def readiness(server):
    answer = httpx.get(f"{server.url}/readyz", headers={"Host": "localhost"})
    return answer.status_code, answer.json().get("failed")


async def until_ready(server, status):
    """Bounded by the test's own time limit; the server looks every 0.1 s."""
    while True:
        code, failed = readiness(server)
        if code == status:
            return failed


@pytest.mark.timeout(60)
async def test_a_restore_is_noticed_and_after_new_epochs_every_tab_reloads(tmp_path, migrated):
    server = ServerProcess(tmp_path, migrated, FAST)
    token = server.token("anna")
    client = Client(server.url, server.ws_url, token)
    try:
        server.start()
        client.url, client.ws_url = server.url, server.ws_url
        thread_id = await client.new_thread()
        async with client.connected():
            run_id = await client.run(thread_id, "count=5 interval_ms=1 tag=before")
            await client.until_ended(run_id)
        assert server.stop() == 0
        backup = tmp_path / "backup"
        shutil.copy(server.database, backup)
        server.start()
        client.url, client.ws_url = server.url, server.ws_url
        async with client.connected():
            run_id = await client.run(thread_id, "count=5 interval_ms=300 tag=lost")
            await client.until_ended(run_id)
        lost = client.position
        assert server.stop() == 0

        for leftover in (f"{server.database}-wal", f"{server.database}-shm"):
            (tmp_path / leftover).unlink(missing_ok=True)
        shutil.copy(backup, server.database)
        server.start()
        assert await until_ready(server, 503) == {
            "history": "the database is older than it was; after a restore, run manage.py rotate_epochs"
        }
        done = server.manage("rotate_epochs", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["streams"] == 1
        assert await until_ready(server, 200) is None
        client.url, client.ws_url = server.url, server.ws_url
        async with client.connected():
            await client.until(lambda one: one.resets)
            assert client.resets[0]["reason"] == "epoch_changed"
            assert client.resets[0]["head"].split(".")[0] != lost.split(".")[0]
            run_id = await client.run(thread_id, "count=5 interval_ms=1 tag=after")
            await client.until_ended(run_id)
            assert "4:after" in client.text(run_id)
    finally:
        server.kill()


@pytest.mark.timeout(60)
async def test_a_restore_under_a_living_process_sends_its_tabs_back_and_they_are_told_that_they_are_ahead(
    tmp_path, migrated
):
    server = ServerProcess(tmp_path, migrated, FAST)
    client = Client(server.url, server.ws_url, server.token("anna"))
    try:
        server.start()
        client.url, client.ws_url = server.url, server.ws_url
        thread_id = await client.new_thread()
        async with client.connected():
            await client.until_ended(await client.run(thread_id, "count=5 interval_ms=1 tag=kept"))
            with (
                closing(sqlite3.connect(tmp_path / "backup")) as backup,
                closing(sqlite3.connect(server.database)) as live,
            ):
                live.backup(backup)
            await client.until_ended(await client.run(thread_id, "count=5 interval_ms=200 tag=lost"))
            with (
                closing(sqlite3.connect(tmp_path / "backup")) as backup,
                closing(sqlite3.connect(server.database)) as live,
            ):
                backup.backup(live)
            await client.until(lambda one: one.close_code is not None)
        assert client.bye["code"] == 4001
        async with client.connected():
            await client.until(lambda one: one.resets)
        assert client.resets[0]["reason"] == "ahead"
        assert "older than it was" in "".join(server.output)
    finally:
        server.kill()
