"""The same services under another server: opened by ASGI lifespan; without lifespan, refused by a helpful error."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.serving import ROOT, ServerProcess
from tests.socket_client import Client


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def started(prepared: ServerProcess, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another server in the environment of a prepared one, ready to answer."""
    prepared.port = free_port()
    prepared.url = f"http://127.0.0.1:{prepared.port}"
    with (prepared.folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, str(prepared.port)],
            cwd=ROOT,
            env=prepared.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            wait_until_it_answers(prepared, process)
            yield process
        finally:
            process.kill()
            process.wait()


def wait_until_it_answers(prepared: ServerProcess, process: subprocess.Popen[bytes]) -> None:
    transport = httpx.HTTPTransport(retries=0)
    with httpx.Client(transport=transport) as http:
        while process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                http.get(f"{prepared.url}/healthz")
                return
    raise AssertionError((prepared.folder / "log").read_text())


@pytest.fixture
def prepared(tmp_path, migrated) -> ServerProcess:
    return ServerProcess(tmp_path, migrated)


async def test_under_uvicorn_lifespan_opens_the_services_and_a_signal_drains_them(prepared):
    token = prepared.token("anna")
    with started(prepared, "uvicorn", "project.asgi:application", "--log-level", "warning", "--port") as process:
        client = Client(prepared.url, prepared.ws_url, token)
        thread_id = await client.new_thread()
        async with client.connected():
            run_id = await client.run(thread_id, "count=20 interval_ms=5 tag=x")
            await client.until_ended(run_id)
            assert client.text(run_id) == "".join(f"{i}:x " for i in range(20))
            long_run = await client.run(thread_id, "count=9000 interval_ms=20 tag=x")
            await client.until(lambda c: len(c.events(long_run)) > 4)
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 40)
    await asyncio.to_thread(prepared.start)
    try:
        client.url, client.ws_url = prepared.url, prepared.ws_url
        async with client.connected():
            await client.until_ended(long_run)
        assert [event["code"] for event in client.terminals(long_run)] == ["interrupted"]
    finally:
        prepared.kill()


async def test_without_lifespan_runs_are_refused_with_an_error_that_names_serve(prepared):
    token = prepared.token("anna")
    with started(prepared, "daphne", "-v", "0", "project.asgi:application", "-p"):
        async with Client(prepared.url, prepared.ws_url, token).http() as http:
            answer = await http.post("/api/runs", json={"id": "a", "thread_id": "x", "text": "hi"})
            ready = await http.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["code"] == "unavailable"
        assert "manage.py serve" in answer.text
        assert ready.status_code == 503
        assert "manage.py serve" in ready.text


def test_an_ipv6_address_is_served_where_the_machine_has_one(prepared):
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
    prepared.environment["ALLOWED_HOSTS"] = "[::1]"
    prepared.start(host="::1")
    try:
        assert prepared.url.startswith("http://[::1]:")
        assert httpx.get(f"{prepared.url}/readyz").status_code == 200
        assert prepared.stop() == 0
    finally:
        prepared.kill()
