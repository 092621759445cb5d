"""On PostgreSQL: a row that somebody holds keeps its own user waiting and nobody else. Run by test_postgresql.py."""

import asyncio
import contextlib
import time

import pytest
from ag_ui.core import TextMessageStartEvent

from apps.realtime.commit import Committed
from apps.realtime.group_commit import FlushLimits
from apps.realtime.log import LogLimits
from tests.chat.chat_room import Room, ending_of
from tests.realtime.committing import Run, new_committer
from tests.realtime.holding import held
from tests.realtime.logging_room import open_log_room
from tests.realtime.test_log import finished, started, text_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(("table", "column"), [("realtime_runledger", "run_id"), ("realtime_stream", "user_id")])
@pytest.mark.parametrize("ends", [False, True])
def test_a_commit_passes_over_whose_rows_are_held_and_takes_all_others(table, column, ends):
    runs = [Run(user) for user in range(1, 11)]
    for run in runs:
        new_committer().commit([run.next("first")])
    batches = [run.next("a", ends=ends) for run in runs]
    one = runs[4]
    with held(table, column, getattr(one, column, one.lease.user_id)):
        result = new_committer().commit(batches)
        assert result.held == {one.run_id}
        assert set(result.outcomes) == {run.run_id for run in runs} - {one.run_id}
        assert set(result.outcomes.values()) == {Committed(cancel_requested=False)}
        assert one.words() == ["first"]
        started_at = time.monotonic()
        assert new_committer().commit_alone([batches[4]], 0.02).held == {one.run_id}
        assert time.monotonic() - started_at < 5
    assert new_committer().commit_alone([batches[4]], 0.02).outcomes == {one.run_id: Committed(cancel_requested=False)}
    assert one.words() == ["first", "a", "end"][: 3 if ends else 2]


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("execution_userbudget", "user_id"),
        ("chat_thread", "id"),
        ("realtime_runledger", "run_id"),
        ("realtime_stream", "user_id"),
    ],
)
def test_an_end_is_settled_folded_and_stored_together_once_nobody_holds_its_rows(table, column):
    room = Room(user_id=7)
    thread_id = room.thread().pk
    room.ask(thread_id)
    claimed = room.claim()
    lease = claimed.lease
    key = {"user_id": 7, "id": thread_id, "run_id": lease.run_id}[column]
    with held(table, column, key), contextlib.suppress(KeyError):
        room.end(claimed)  # its outcome is not known yet
        pytest.fail("the row must be held")
    assert room.runs.describe(room.user_id, lease.run_id)["status"] == "running"
    room.end(claimed)
    assert room.runs.describe(room.user_id, lease.run_id)["status"] == "succeeded"
    assert [entry["event"]["type"] for entry in room.entries()].count(ending_of(claimed, "succeeded").event.type) == 1


async def test_a_user_whose_stream_is_held_waits_alone_and_goes_on_where_they_were():
    async with open_log_room(LogLimits(flush=FlushLimits(held_wait_ms=5.0))) as room:
        leases = [await room.lease(user) for user in range(1, 9)]
        publishers = [room.publisher(lease) for lease in leases]
        for publisher, lease in zip(publishers, leases, strict=True):
            await publisher.publish(started(lease))
            await publisher.publish(TextMessageStartEvent(message_id="m"))
        async with asyncio.timeout(20):
            while room.log.census()["runs_waiting"]:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.001)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(held("realtime_stream", "user_id", 3))
            ends = [
                asyncio.create_task(publisher.finish(finished(lease)))
                for publisher, lease in zip(publishers, leases, strict=True)
            ]
            others = [end for place, end in enumerate(ends) if leases[place].user_id != 3]
            await asyncio.wait_for(asyncio.gather(*others), 20)
            assert not ends[2].done()
            assert room.log.census()["batches_passed_over_total"] >= 1
        await asyncio.wait_for(ends[2], 20)
        for lease in leases:
            entries = await room.entries(lease.user_id)
            assert text_of(entries) == ""
            kinds = [entry["event"]["type"] for entry in entries]
            assert kinds == ["RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_END", "RUN_FINISHED"]
        assert room.log.census()["users_held"] == 0


async def test_a_log_that_closes_gives_up_on_rows_that_are_held_and_its_run_learns_of_it():
    with contextlib.ExitStack() as stack:
        async with open_log_room(LogLimits(flush=FlushLimits(held_wait_ms=1.0))) as room:
            lease = await room.lease(1)
            publisher = room.publisher(lease)
            await room.database.call(lambda: stack.enter_context(held("realtime_runledger", "run_id", lease.run_id)))
            await publisher.publish(started(lease))
            end = asyncio.create_task(publisher.finish(finished(lease)))
        with pytest.raises(Exception, match="cannot be written"):
            await asyncio.wait_for(end, 20)
