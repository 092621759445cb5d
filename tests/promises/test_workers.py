"""Runs on many machines: web processes that execute nothing, and workers that come, drain and die."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psycopg
import pytest

from apps.realtime.constructs import OpenConstructs
from apps.vocabulary import new_id
from tests.contracts.test_postgresql import database
from tests.promises.every_kind import KINDS
from tests.serving import ROOT, ServerProcess, WorkerProcess
from tests.socket_client import Client

pytestmark = pytest.mark.services


class Machines:
    """One web process, and as many workers as a test starts, on one PostgreSQL and one Valkey."""

    def __init__(self, folder, template, url, redis_url) -> None:
        self.url = url
        self.environment = {"DATABASE_URL": url, "REDIS_URL": redis_url, "TURNOUT_EXECUTION": "workers"}
        self._folder, self._template = folder, template
        self.web = ServerProcess(self._place("web"), template, self.environment)
        self.workers: list[WorkerProcess] = []

    def _place(self, name):
        place = self._folder / name
        place.mkdir()
        return place

    def restart_web(self, **environment: str) -> None:
        """With other settings, which the workers that follow have too."""
        self.environment |= environment
        self.web.environment |= environment
        self.web.kill()
        self.web.start()

    def worker(self) -> WorkerProcess:
        worker = WorkerProcess(self._place(f"worker{len(self.workers)}"), self._template, self.environment)
        self.workers.append(worker)
        return worker.start_working()

    def client(self, name="anna") -> Client:
        return Client(self.web.url, self.web.ws_url, self.web.token(name))

    def ask(self, query, *arguments):
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(query, arguments).fetchall()

    def kill(self) -> None:
        for process in (self.web, *self.workers):
            process.kill()


@pytest.fixture(scope="module")
def migrated_url(tmp_path_factory, migrated, postgresql_url) -> str:
    """A migrated database to copy from: migrating takes longer than most tests."""
    url = database(postgresql_url, "machines")
    web = ServerProcess(tmp_path_factory.mktemp("m"), migrated, {"DATABASE_URL": url, "TURNOUT_EXECUTION": "workers"})
    done = web.manage("migrate", "-v", "0")
    assert done.returncode == 0, done.stderr
    return url


@pytest.fixture
def machines(tmp_path, migrated, migrated_url, postgresql_url, valkey_url) -> Iterator[Machines]:
    name = f"machines_{new_id()}"
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE machines')
    machines = Machines(tmp_path, migrated, postgresql_url.replace("/postgres?", f"/{name}?"), valkey_url)
    try:
        machines.web.start()
        yield machines
    finally:
        machines.kill()


async def begun(client: Client, text: str, agent: str) -> str:
    run_id = await client.run(await client.new_thread(), text, agent)
    await client.until(lambda c: len(c.events(run_id)) > 3)
    return run_id


async def test_a_worker_runs_what_a_web_process_admits_and_is_cancelled_and_drained(machines):
    client = machines.client()
    async with client.connected():
        waiting = await client.run(await client.new_thread(), "count=3 interval_ms=1 tag=x", "metronome")
        worker = await asyncio.to_thread(machines.worker)
        await client.until_ended(waiting)
        assert client.text(waiting) == "0:x 1:x 2:x "
        silent = await begun(client, "mode=hang after=1", "faulty")
        asked = time.monotonic()
        await client.command("run.cancel", run_id=silent)
        await client.until_ended(silent)
        assert time.monotonic() - asked < 3
        assert client.terminals(silent)[0]["outcome"]["type"] == "cancelled"
        running = await begun(client, "count=6000 interval_ms=20 tag=y", "metronome")
        assert await asyncio.to_thread(worker.stop) == 0, "".join(worker.output)
        await client.until_ended(running)
    assert [event["code"] for event in client.terminals(running)] == ["interrupted"]
    assert machines.ask("SELECT count(*) FROM procrastinate_jobs") == [(0,)]
    assert [kind for (kind,) in machines.ask("SELECT DISTINCT agent FROM execution_run WHERE process_id <> ''")]
    web = machines.ask("SELECT counts->>'executor.claimed_total' FROM operations_processreport WHERE kind = 'serve'")
    assert web == [("0",)]
    assert "Traceback" not in "".join(worker.output)


async def test_what_a_draining_worker_leaves_another_takes(machines):
    first = await asyncio.to_thread(machines.worker)
    client = machines.client()
    async with client.connected():
        running = [await begun(client, "count=6000 interval_ms=20 tag=x", "metronome") for _ in range(3)]
        queued = await client.run(await client.new_thread(), "count=3 interval_ms=1 tag=y", "metronome")
        await asyncio.to_thread(machines.worker)
        assert await asyncio.to_thread(first.stop) == 0
        await client.until_ended(queued, *running)
    assert client.text(queued) == "0:y 1:y 2:y "


async def test_a_killed_workers_runs_end_within_seconds_though_no_worker_is_left(machines):
    worker = await asyncio.to_thread(machines.worker)
    client = machines.client()
    async with client.connected():
        run_id = await begun(client, "count=6000 interval_ms=20 tag=x", "metronome")
        killed = time.monotonic()
        worker.kill()
        await client.until_ended(run_id)
        took = time.monotonic() - killed
    assert [event["code"] for event in client.terminals(run_id)] == ["interrupted"]
    assert machines.ask("SELECT running, reserved_tokens FROM execution_userbudget") == [(0, 0)]
    print(f"ended after {took:.2f} s")
    assert took < 10  # 5 s p99 on a machine of its own: see `python -m benchmarks.recovery`


async def test_a_worker_that_is_killed_at_any_kind_of_event_leaves_one_end_and_nothing_open(machines):
    await asyncio.to_thread(
        machines.restart_web,
        TURNOUT_RUN_SLOTS_PER_USER=str(len(KINDS)),
        TURNOUT_AGENTS="tests.promises.every_kind.EveryKind",
    )
    worker = await asyncio.to_thread(machines.worker)
    client = machines.client()
    async with client.connected():
        run_ids = {kind: await client.run(await client.new_thread(), kind, "every-kind") for kind in KINDS}
        for run_id in run_ids.values():
            await client.until(lambda c, run_id=run_id: "RUN_STARTED" in {e["type"] for e in c.events(run_id)})
        await client.until(lambda c: "TEXT_MESSAGE_END" in {e["type"] for e in c.events(run_ids["TEXT_MESSAGE_END"])})
        worker.kill()
        await client.until_ended(*run_ids.values())
    for kind, run_id in run_ids.items():
        constructs = OpenConstructs()
        for event in client.events(run_id):
            constructs.see(event)
        assert (constructs.ended, len(constructs)) == (True, 0), kind
        assert [event["code"] for event in client.terminals(run_id)] == ["interrupted"], kind
    assert machines.ask("SELECT queued, running, reserved_tokens FROM execution_userbudget") == [(0, 0, 0)]
    audit = machines.web.manage("audit_cleanup")
    assert "Budgets count their runs" in audit.stdout
    broken = [line.split("  ")[0] for line in audit.stdout.splitlines() if "BROKEN" in line]
    assert broken in ([], ["Processes report"]), audit.stdout  # which knows by now that the worker is silent


async def test_a_stopped_worker_that_comes_back_is_refused_and_stops(machines):
    await asyncio.to_thread(machines.restart_web, TURNOUT_LEASE_HOLD_S="2.5", TURNOUT_LEASE_TTL_S="3")
    worker = await asyncio.to_thread(machines.worker)
    client = machines.client()
    async with client.connected():
        run_id = await begun(client, "count=6000 interval_ms=20 tag=x", "metronome")
        worker.process.send_signal(signal.SIGSTOP)
        await client.until_ended(run_id)
        before = client.events(run_id)
        await asyncio.sleep(3 * 3.0 - 3.0)  # three times to live: that is the drill
        worker.process.send_signal(signal.SIGCONT)
        counts = "SELECT counts->>'executor.fenced_total' FROM operations_processreport WHERE kind = 'run_worker'"
        async with asyncio.timeout(20):
            while machines.ask(counts) != [("1",)]:  # noqa: ASYNC110 - a row that another process writes
                await asyncio.sleep(0.1)
        again = await begun(client, "count=3 interval_ms=1 tag=y", "metronome")
        await client.until_ended(again)
        assert client.events(run_id) == before
    assert [event["code"] for event in client.terminals(run_id)] == ["interrupted"]
    assert client.text(again) == "0:y 1:y 2:y "


async def test_the_workers_of_another_backend_of_django_tasks_execute_runs_too(tmp_path, migrated):
    other = {"TURNOUT_EXECUTION": "workers", "DJANGO_SETTINGS_MODULE": "tests.tasks_db_settings"}
    web = ServerProcess(tmp_path, migrated, other)
    done = web.manage("migrate", "-v", "0")
    assert done.returncode == 0, done.stderr
    options = ["--interval", "0.1", "--no-startup-delay", "--no-reload"]
    worker = subprocess.Popen(  # noqa: ASYNC220 - starting it waits for nothing
        [sys.executable, "manage.py", "db_worker", *options], cwd=ROOT, env=web.environment
    )
    try:
        client = Client(web.start().url, web.ws_url, web.token("anna"))
        async with client.connected():
            thread_ids = [await client.new_thread() for _ in range(5)]
            run_ids = [await client.run(thread_id, "count=5 interval_ms=1 tag=x") for thread_id in thread_ids]
            await client.until_ended(*run_ids, timeout_s=60)
            silent = await begun(client, "mode=hang after=1", "faulty")
            await client.command("run.cancel", run_id=silent)
            await client.until_ended(silent)
        assert {client.text(run_id) for run_id in run_ids} == {"0:x 1:x 2:x 3:x 4:x "}
        assert client.terminals(silent)[0]["outcome"]["type"] == "cancelled"
    finally:
        worker.terminate()
        worker.wait(60)
        web.kill()
    assert "Traceback" not in "".join(web.output)


def test_where_nobody_would_execute_a_server_says_so_and_does_not_start(tmp_path, migrated):
    web = ServerProcess(tmp_path, migrated, {"TURNOUT_EXECUTION": "workers"}).manage("check")
    assert web.returncode == 1
    assert "turnout.E201" in web.stderr


def test_a_worker_says_what_it_needs(tmp_path, migrated):
    on_sqlite = ServerProcess(tmp_path, migrated, {"TURNOUT_EXECUTION": "workers"}).manage("run_worker")
    assert on_sqlite.returncode == 1
    assert "run_worker needs PostgreSQL" in on_sqlite.stderr
    assert "Traceback" not in on_sqlite.stderr


def test_a_job_whose_worker_beats_no_more_is_found_by_the_audit_and_closed(machines):
    machines.web.kill()  # its own sweep would do it
    workers = "INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval %s) RETURNING id"
    jobs = (
        "INSERT INTO procrastinate_jobs (queue_name, task_name, args, status, worker_id) "
        "VALUES ('turnout', 'turnout.wake_up', '{}', 'doing', %s) RETURNING id"
    )
    gone, alive = (machines.ask(workers.replace("%s", f"'{age}'"))[0][0] for age in ("1 hour", "1 second"))
    (stalled,), (at_work,) = machines.ask(jobs, gone)[0], machines.ask(jobs, alive)[0]

    def told(*options):
        output = machines.web.manage("audit_cleanup", *options).stdout
        return next(line for line in output.splitlines() if line.startswith("Wake-ups have a worker"))

    found = told()
    assert "BROKEN" in found
    assert f"1 of 2 wake-ups at work: job {stalled} of queue turnout" in found
    told("--fix")
    assert "KEPT" in told()
    assert machines.ask("SELECT id FROM procrastinate_jobs WHERE status = 'doing'") == [(at_work,)]
