"""Leak classes that show on a real server alone: its connections, its names, its places, its numbers."""

import asyncio
import itertools
import re
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.serving import serving
from tests.socket_client import Client

LOOK_ALIKE = ["a.b", "a_b", "a-b", "A.B", "a+b", "а.b", "a@b", "x" * 120, "x" * 119 + "y"]  # noqa: RUF001 - one is Cyrillic


@pytest.fixture(scope="module")
def house(tmp_path_factory, migrated):
    bounds = {"TURNOUT_OPEN_RUNS_PER_USER": "2", "TURNOUT_WAITING_RUNS_PER_USER": "2"}
    bounds |= {"TURNOUT_RUN_SLOTS_PER_USER": "1", "TURNOUT_METRICS": "1"}
    with serving(tmp_path_factory.mktemp("house"), migrated, bounds) as server:
        server.names = server.tokens(["anna", "ben", *LOOK_ALIKE])
        server.command_ids = itertools.count(1, 1_000)
        yield server
        assert "Traceback" not in "".join(server.output), "".join(server.output)


def tab_of(house, name) -> Client:
    tab = Client(house.url, house.ws_url, house.names[name])
    tab._ids = itertools.count(next(house.command_ids))  # of a user who has had other tabs
    return tab


async def test_3_a_connection_that_served_one_user_serves_the_next_as_themselves(house):
    connections = set()
    async with httpx.AsyncClient(base_url=house.url, limits=httpx.Limits(max_connections=1)) as http:
        for name in ("anna", "ben", "", "anna", "ben"):
            headers = {"Authorization": f"Bearer {house.names[name]}"} if name else {}
            if name == "anna":
                said = {"title": "canary of anna " + "x" * 1_048_576}
                answer = await http.post("/api/threads", json=said, headers=headers)
                assert answer.status_code in (400, 413)
            answer = await http.get("/api/me", headers=headers)
            connections.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
            assert answer.json()["username" if name else "code"] == (name or "unauthenticated")
            assert "canary" not in answer.text
    assert len(connections) == 1, "else it proves nothing"


async def test_6_a_run_outlives_its_socket_and_stays_its_owners(house):
    anna, ben, ids = tab_of(house, "anna"), tab_of(house, "ben"), set()
    async with anna.connected():
        run_id = await anna.run(await anna.new_thread(), "count=60 interval_ms=10 tag=canary")
        ids.add(anna.hello["connection_id"])
    async with ben.connected():
        ids.add(ben.hello["connection_id"])
        own = await ben.run(await ben.new_thread(), "count=60 interval_ms=10 tag=mine")
        async with anna.connected():
            ids.add(anna.hello["connection_id"])
            await anna.until_ended(run_id)
        await ben.until_ended(own)
    assert anna.text(run_id) == "".join(f"{i}:canary " for i in range(60))
    assert "canary" not in str(ben.seen)
    assert len(ids) == 3


async def test_9_users_whose_names_look_alike_are_different_users(house):
    tabs = [tab_of(house, name) for name in LOOK_ALIKE]
    async with AsyncExitStack() as stack:
        runs = []
        for number, tab in enumerate(tabs):
            await stack.enter_async_context(tab.connected())
            runs.append(await tab.run(await tab.new_thread(f"of-{number}"), f"count=9 interval_ms=5 tag=of-{number}-"))
        for tab, run_id in zip(tabs, runs, strict=True):
            await tab.until_ended(run_id)
    for number, (name, tab) in enumerate(zip(LOOK_ALIKE, tabs, strict=True)):
        assert tab.hello["user"]["name"] == name
        assert set(re.findall(r"of-\d+", str(tab.seen))) == {f"of-{number}"}
        async with tab.http() as http:
            assert [one["title"] for one in (await http.get("/api/threads")).json()["threads"]] == [f"of-{number}"]
    assert len({tab.hello["user"]["id"] for tab in tabs}) == len(tabs)


async def test_12_a_position_of_another_user_resumes_nothing(house):
    anna, ben = tab_of(house, "anna"), tab_of(house, "ben")
    async with anna.connected():
        start = anna.hello["head"]
        await anna.until_ended(await anna.run(await anna.new_thread(), "count=9 interval_ms=5 tag=canary"))
    for stolen in (start, anna.position):
        ben = tab_of(house, "ben")
        ben.position, ben.seq = stolen, int(stolen.split(".")[1])
        async with ben.connected():
            await ben.until(lambda tab: tab.resets)
            assert ben.resets[0]["reason"] in ("epoch_changed", "forked", "ahead")
            assert ben.resets[0]["head"].split(".")[0] != stolen.split(".")[0]
            await ben.until_ended(await ben.run(await ben.new_thread(), "count=2 interval_ms=5 tag=mine"))
        assert "canary" not in str(ben.seen)


async def test_19_metrics_have_no_series_more_for_any_user(house):
    async def series():
        async with httpx.AsyncClient(base_url=house.url) as http:
            lines = (await http.get("/metrics")).text.splitlines()
        return {re.sub(r" [^ ]+$", "", line) for line in lines if not line.startswith("#")}

    anna = tab_of(house, "anna")
    async with anna.connected():
        await anna.until_ended(await anna.run(await anna.new_thread(), "count=2 interval_ms=5 tag=x"))
    before = await series()
    for name in LOOK_ALIKE:
        tab = tab_of(house, name)
        async with tab.connected():
            await tab.until_ended(await tab.run(await tab.new_thread(), "count=2 interval_ms=5 tag=x"))
    assert await series() == before
    assert len(before) > 20


async def test_27_bounds_and_places_are_told_without_a_number_of_anybody_else(house):
    async def fill(tab):
        """Both places of a user taken; what they were told of their place, and of the bound."""
        told = []
        for _ in range(3):
            thread_id = await tab.new_thread()
            reply = await tab.command(
                "run.start", thread_id=thread_id, text="count=9000 interval_ms=5 tag=x", agent="metronome"
            )
            told.append(reply["result"]["place"] if reply["ok"] else reply["error"])
        return told

    alone, others = tab_of(house, "anna"), [tab_of(house, name) for name in LOOK_ALIKE[:4]]
    async with AsyncExitStack() as stack:
        for tab in (alone, *others):
            await stack.enter_async_context(tab.connected())
        first = await fill(alone)
        crowded = [await fill(tab) for tab in others]
        assert first[2]["code"] == "too_many_runs"
        assert crowded == [first] * len(others)
        for tab in (alone, *others):
            for run_id in run_ids_of(tab) - tab.ended():
                await tab.command("run.cancel", run_id=run_id)
        await asyncio.gather(*(tab.until_ended(*run_ids_of(tab)) for tab in (alone, *others)))


def run_ids_of(tab):
    return {entry["run_id"] for entry in tab.seen if entry["run_id"]}
