"""The Python client that stands alone, against the real server: nothing lost, nothing twice, whatever breaks."""

import asyncio
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import ROOT, ServerProcess, serving

_SPEC = importlib.util.spec_from_file_location("turnout_client", ROOT / "clients" / "python" / "turnout_client.py")
assert _SPEC is not None
assert _SPEC.loader is not None
turnout_client = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(turnout_client)


def beats(count: int, tag: str) -> str:
    return "".join(f"{number}:{tag} " for number in range(count))


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory, migrated) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("server"), migrated) as started:
        yield started


@pytest.fixture
def server(shared_server: ServerProcess) -> ServerProcess:
    return shared_server


@pytest.fixture
def token(server: ServerProcess, request: pytest.FixtureRequest) -> str:
    return server.token(request.node.name[-30:])


async def test_a_question_is_asked_and_its_events_are_heard_to_the_end(server, token):
    async with turnout_client.TurnoutClient(server.url, token) as client:
        run = await client.ask(await client.create_thread("sums"), "12 * 13")
        kinds = [event["type"] async for event in run]
        assert (kinds[0], kinds[1], kinds[-1]) == ("CUSTOM", "RUN_STARTED", "RUN_FINISHED")
        assert "156" in run.text
        snapshot = await client.snapshot(run.thread_id)
        assert snapshot["messages"][-1]["text"] == run.text


async def test_two_runs_beside_each_other_get_their_own_events(server, token):
    async with turnout_client.TurnoutClient(server.url, token) as client:
        threads = [await client.create_thread() for _ in range(2)]
        runs = [
            await client.ask(thread, f"count=50 interval_ms=5 tag=t{number}", agent="metronome")
            for number, thread in enumerate(threads)
        ]
        await asyncio.gather(*(run.finished() for run in runs))
        assert [run.text for run in runs] == [beats(50, "t0"), beats(50, "t1")]


async def test_breaks_of_the_line_lose_nothing_and_double_nothing(server, token):
    async with turnout_client.TurnoutClient(server.url, token) as client:
        run = await client.ask(await client.create_thread(), "count=200 interval_ms=10 tag=b", agent="metronome")
        heard = 0
        async for _ in run:
            heard += 1
            if heard % 15 == 0 and client._socket is not None:
                client._socket.transport.abort()
        assert run.text == beats(200, "b")
        assert client.connections > 3


async def test_a_command_that_met_a_broken_line_acts_once(server, token):
    async with turnout_client.TurnoutClient(server.url, token) as client:
        thread = await client.create_thread()
        client._socket.transport.abort()
        run = await client.ask(thread, "count=3 interval_ms=1 tag=c", agent="metronome")
        await run.finished()
        assert run.text == beats(3, "c")
        assert len((await client.snapshot(thread))["runs"]) == 1


async def test_a_restart_of_the_server_ends_the_run_visibly_and_the_client_goes_on(server, token):
    async with turnout_client.TurnoutClient(server.url, token) as client:
        thread = await client.create_thread()
        run = await client.ask(thread, "count=2000 interval_ms=20 tag=r", agent="metronome")
        stopped = asyncio.create_task(asyncio.to_thread(server.stop))
        assert (await run.finished())["code"] == "interrupted"
        assert await stopped == 0
        await asyncio.to_thread(server.start, server.port)
        again = await client.ask(thread, "count=2 interval_ms=1 tag=r", agent="metronome")
        await again.finished()
        assert again.text == beats(2, "r")


async def test_a_run_is_stopped_and_a_refusal_says_its_code(server, token):
    async with turnout_client.TurnoutClient(server.url, token) as client:
        thread = await client.create_thread()
        run = await client.ask(thread, "count=5000 interval_ms=20", agent="metronome")
        with pytest.raises(turnout_client.CommandRefused) as refused:
            await client.ask(thread, "again")
        assert refused.value.code == "thread_busy"
        assert await run.cancel() == "cancelling"
        assert (await run.finished())["outcome"]["type"] == "cancelled"
        with pytest.raises(turnout_client.CommandRefused) as missing:
            await client.snapshot("nowhere")
        assert missing.value.code == "not_found"


async def test_an_unknown_token_is_told_at_once_and_not_tried_for_ever(server):
    with pytest.raises(turnout_client.ConnectionLost, match="token"):
        async with turnout_client.TurnoutClient(server.url, "wrong"):
            pass


def test_it_needs_nothing_of_turnout():
    text = Path(_SPEC.origin or "").read_text(encoding="utf-8")
    assert "apps." not in text
    assert "django" not in text.lower()
