"""The log on a real database: once, in order, to the owner, and never after the end."""

import asyncio

import pytest
from ag_ui.core import (
    CustomEvent,
    RunErrorEvent,
    RunFinishedEvent,
    RunStartedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCallStartEvent,
)
from django.db import DataError, IntegrityError, OperationalError, transaction

from apps.realtime.commit import Committer
from apps.realtime.group_commit import FlushLimits
from apps.realtime.log import EventLog, LogLimits, RunClosed
from apps.realtime.models import RunLedger, Segment, Stream
from apps.realtime.publisher import EventBudgetExceeded, EventRefused, PublisherLimits, RunFenced
from apps.realtime.values import Ending, LogEntry
from apps.vocabulary import UserId
from tests.realtime.logging_room import Notes, Tabs, open_log_room, stored_entries

pytestmark = pytest.mark.django_db(transaction=True)


def started(lease):
    return RunStartedEvent(thread_id=lease.thread_id, run_id=lease.run_id, protocol_version="1.0")


def finished(lease, status="succeeded"):
    event = RunFinishedEvent(thread_id=lease.thread_id, run_id=lease.run_id)
    return Ending(event, status, {"output_tokens": 3})


async def say(publisher, text, message_id="m1"):
    await publisher.publish(TextMessageStartEvent(message_id=message_id))
    for word in text.split(" "):
        await publisher.publish(TextMessageContentEvent(message_id=message_id, delta=word))
    await publisher.publish(TextMessageEndEvent(message_id=message_id))


def text_of(entries):
    return "".join(entry["event"].get("delta", "") for entry in entries)


async def test_a_run_is_stored_once_in_order_without_gaps_and_ends_once():
    async with open_log_room() as room:
        lease = await room.lease(1)
        publisher = room.publisher(lease)
        await publisher.publish(started(lease))
        await say(publisher, "a b c d e")
        await publisher.finish(finished(lease))
        entries = await room.entries(1)
        assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
        assert text_of(entries) == "abcde"
        types = [entry["event"]["type"] for entry in entries]
        assert types[0] == "RUN_STARTED"
        assert types[-1] == "RUN_FINISHED"
        assert [run.run_id for run in room.settle.ended] == [lease.run_id]
        assert {entry["run_id"] for entry in entries} == {lease.run_id}


async def test_what_is_shown_is_what_is_stored():
    async with open_log_room() as room:
        lease = await room.lease(1)
        publisher = room.publisher(lease)
        await publisher.publish(started(lease))
        await say(publisher, "one two")
        await publisher.finish(finished(lease))
        stored = await room.database.call(lambda: list(Segment.objects.order_by("first_seq")))
        assert ",".join(page.events for page in room.tabs.pages) == ",".join(row.payload[1:-1] for row in stored)
        assert room.tabs.pages[-1].position.tag == stored[-1].tag


async def test_many_users_share_a_commit_and_get_only_their_own():
    async with open_log_room() as room:
        leases = [await room.lease(user) for user in range(1, 21)]

        async def run(lease):
            publisher = room.publisher(lease)
            await publisher.publish(started(lease))
            await say(publisher, " ".join(f"{lease.user_id}." for _ in range(50)))
            await publisher.finish(finished(lease))

        await asyncio.gather(*(run(lease) for lease in leases))
        for lease in leases:
            entries = await room.entries(lease.user_id)
            assert text_of(entries) == f"{lease.user_id}." * 50
            assert {entry["run_id"] for entry in entries} == {lease.run_id}
        assert room.log.census()["commits_total"] < 20 * 53


async def test_an_open_message_and_tool_call_are_closed_before_the_terminal_event():
    async with open_log_room() as room:
        lease = await room.lease(1)
        publisher = room.publisher(lease)
        await publisher.publish(started(lease))
        await publisher.publish(TextMessageStartEvent(message_id="m"))
        await publisher.publish(ToolCallStartEvent(tool_call_id="t", tool_call_name="clock"))
        await publisher.finish(Ending(RunErrorEvent(message="x", code="timeout"), "timed_out", {}, "timeout"))
        types = [entry["event"]["type"] for entry in await room.entries(1)]
        assert types == [
            "RUN_STARTED",
            "TEXT_MESSAGE_START",
            "TOOL_CALL_START",
            "TOOL_CALL_END",
            "TEXT_MESSAGE_END",
            "TOOL_CALL_RESULT",
            "RUN_ERROR",
        ]


async def go_on_late(zombie, lease):
    await zombie.publish(TextMessageStartEvent(message_id="late"))
    await zombie.finish(finished(lease))


async def test_a_zombie_owner_is_refused_and_nothing_of_it_is_stored():
    async with open_log_room() as room:
        lease = await room.lease(1)
        zombie = room.publisher(lease)
        await zombie.publish(started(lease))
        await room.database.call(_claim_again, room, lease)
        with pytest.raises(RunFenced):
            await go_on_late(zombie, lease)
        assert "late" not in str(await room.entries(1))
        assert room.settle.ended == []


def _claim_again(room, lease):
    with transaction.atomic():
        room.log.claim_run(lease.user_id, lease.run_id, lease.fence + 1)


async def test_a_closed_run_takes_no_second_terminal_event():
    async with open_log_room() as room:
        lease = await room.lease(1)
        first, second = room.publisher(lease), room.publisher(lease)
        await first.publish(started(lease))
        await first.finish(finished(lease))
        with pytest.raises(RunFenced):
            await second.finish(finished(lease))
        with pytest.raises(RunClosed):
            await room.database.call(_claim_again, room, lease)
        types = [entry["event"]["type"] for entry in await room.entries(1)]
        assert types.count("RUN_FINISHED") == 1


class LosesTheAnswer(Committer):
    """Commits, and then fails as a connection does that breaks after COMMIT was sent."""

    lost = 0

    def commit(self, batches):
        result = super().commit(batches)
        if self.lost < 3:
            self.lost += 1
            raise OperationalError("server closed the connection unexpectedly")
        return result


async def test_a_lost_commit_answer_is_resolved_by_looking_and_doubles_nothing():
    async with open_log_room() as room:
        committer = room.log._writer._committer
        committer.__class__ = LosesTheAnswer
        lease = await room.lease(1)
        publisher = room.publisher(lease)
        await publisher.publish(started(lease))
        await say(publisher, "x y z")
        await publisher.finish(finished(lease))
        assert committer.lost == 3, "the fault must bite"
        entries = await room.entries(1)
        assert text_of(entries) == "xyz"
        types = [entry["event"]["type"] for entry in entries]
        assert types.count("RUN_STARTED") == types.count("RUN_FINISHED") == 1


class FailsFor(Notes):
    failure: Exception

    def write(self, ended):
        if any(run.run_id == self.poison for run in ended):
            raise self.failure
        return super().write(ended)


@pytest.mark.parametrize("failure", [IntegrityError("refused"), DataError("value"), KeyError("a defect")])
async def test_a_batch_that_cannot_be_committed_fails_its_own_run_only(failure):
    async with open_log_room() as room:
        leases = [await room.lease(user) for user in range(1, 9)]
        poisoned = leases[3]
        settle = FailsFor()
        settle.poison, settle.failure = poisoned.run_id, failure
        room.log._writer._committer._settle = settle

        async def run(lease):
            publisher = room.publisher(lease)
            await publisher.publish(started(lease))
            await publisher.finish(finished(lease))

        results = await asyncio.gather(*(run(lease) for lease in leases), return_exceptions=True)
        assert [type(result) for result in results if result is not None] == [EventRefused]
        assert isinstance(results[3], EventRefused)
        assert {run.run_id for run in settle.ended} == {lease.run_id for lease in leases} - {poisoned.run_id}


async def test_cancelling_reaches_the_owner_with_its_next_commit():
    async with open_log_room() as room:
        lease = await room.lease(1)
        publisher = room.publisher(lease)
        await room.database.call(_request_cancel, room, lease)
        await publisher.publish(started(lease))
        await asyncio.wait_for(publisher.cancel_requested.wait(), 5)


def _request_cancel(room, lease):
    with transaction.atomic():
        assert room.log.request_cancel(lease.user_id, lease.run_id)
        assert not room.log.request_cancel(UserId(999), lease.run_id)


async def flood(publisher, most_waiting):
    for n in range(100):
        await publisher.publish(CustomEvent(name="flood", value=n))
        assert len(publisher._waiting) <= most_waiting


async def test_a_flooding_agent_waits_for_the_log_and_is_stopped_by_its_budget():
    limits = LogLimits(publisher=PublisherLimits(waiting_events=4, run_events=40))
    async with open_log_room(limits) as room:
        lease = await room.lease(1)
        publisher = room.publisher(lease)
        with pytest.raises(EventBudgetExceeded):
            await flood(publisher, most_waiting=4)
        await publisher.finish(finished(lease, "failed"))
        entries = await room.entries(1)
        assert len(entries) == 41
        assert entries[-1]["event"]["type"] == "RUN_FINISHED"


@pytest.mark.parametrize(
    "event",
    [
        TextMessageContentEvent(message_id="never", delta="x"),
        TextMessageEndEvent(message_id="never"),
        RunErrorEvent(message="mine"),
    ],
)
async def test_an_event_out_of_grammar_is_refused_with_a_reason(event):
    async with open_log_room() as room:
        lease = await room.lease(1)
        publisher = room.publisher(lease)
        await publisher.publish(started(lease))
        with pytest.raises(EventRefused, match=r"not open|ends a run"):
            await publisher.publish(event)


async def test_nul_and_lone_surrogates_are_stored_as_replacement_characters():
    async with open_log_room() as room:
        lease = await room.lease(1)
        publisher = room.publisher(lease)
        await publisher.publish(TextMessageStartEvent(message_id="m"))
        await publisher.publish(TextMessageContentEvent(message_id="m", delta="a\0b\ud800c"))
        await publisher.publish(CustomEvent(name="n", value={"k\0": ["\udfff"]}))
        await publisher.finish(finished(lease))
        entries = await room.entries(1)
        assert text_of(entries) == "a\ufffdb\ufffdc"
        assert any(entry["event"].get("value") == {"k\ufffd": ["\ufffd"]} for entry in entries)


async def test_the_old_bridges_leak_lands_marked_in_the_stream_it_named_and_only_where_allowed():
    class LeakingBridge:
        def recipients(self, event_type):
            return frozenset({UserId(2), UserId(3)})

    def only_two(users):
        return users & {UserId(2)}

    async with open_log_room(may_receive_leaks=only_two) as room:
        lease = await room.lease(1)
        publisher = room.publisher(lease, LeakingBridge())
        await publisher.publish(TextMessageStartEvent(message_id="m"))
        await publisher.finish(finished(lease))
        assert [entry["event"]["type"] for entry in await room.entries(2)] == ["TEXT_MESSAGE_START", "TEXT_MESSAGE_END"]
        assert await room.entries(3) == []
        assert [entry["event"]["type"] for entry in await room.entries(1)] == ["RUN_FINISHED"]
        leaked = await room.database.call(lambda: set(Segment.objects.values_list("user_id", "leaked_from")))
        assert leaked == {(1, None), (2, 1)}


def test_an_append_outside_a_run_rolls_back_with_its_transaction_and_is_shown_only_after_its_commit():
    tabs = Tabs()
    log = EventLog(LogLimits(), tabs)
    with transaction.atomic():
        log.append(UserId(1), [LogEntry(CustomEvent(name="n", value=1))])
        transaction.set_rollback(True)
    assert stored_entries(1) == []
    assert tabs.pages == []
    with transaction.atomic():
        position = log.append(UserId(1), [LogEntry(CustomEvent(name="n", value=1))])
        assert tabs.pages == []
    assert position.seq == 1
    assert [page.position for page in tabs.pages] == [position]


def test_an_audience_that_fails_takes_nothing_back_from_whoever_committed():
    class Broken(Tabs):
        def show(self, pages):
            raise RuntimeError("nobody can be shown anything")

    with transaction.atomic():
        EventLog(LogLimits(), Broken()).append(UserId(1), [LogEntry(CustomEvent(name="n", value=1))])
    assert len(stored_entries(1)) == 1


async def test_an_audience_that_fails_does_not_end_the_writer():
    async with open_log_room() as room:
        room.tabs.pages = None  # type: ignore[assignment]
        publisher = room.publisher(lease := await room.lease(1))
        await publisher.finish(finished(lease))
        assert room.log.is_open


class MarksTheEnd(Notes):
    """Writes a row for each ended run, as settling does."""

    def write(self, ended):
        Stream.objects.bulk_create([Stream(user_id=1_000 + run.user_id) for run in ended])
        return super().write(ended)


async def test_what_was_settled_for_a_terminal_event_that_lost_its_place_is_taken_back_and_nothing_else_is():
    async with open_log_room() as room:
        room.log._writer._committer._settle = MarksTheEnd()
        good, lost = await room.lease(1), await room.lease(2)
        publishers = room.publisher(good), room.publisher(lost)
        await room.database.call(_claim_again, room, lost)
        results = await asyncio.gather(
            publishers[0].finish(finished(good)), publishers[1].finish(finished(lost)), return_exceptions=True
        )
        assert results[0] is None
        assert isinstance(results[1], RunFenced)
        settled = await room.database.call(
            lambda: set(Stream.objects.filter(user_id__gt=1_000).values_list("user_id", flat=True))
        )
        assert settled == {1_001}


async def test_a_run_that_needs_several_commits_for_its_end_is_settled_with_the_last_of_them():
    limits = LogLimits(flush=FlushLimits(events_per_user=2))
    async with open_log_room(limits) as room:
        lease = await room.lease(1)
        publisher = room.publisher(lease)
        for number in range(4):
            await publisher.publish(ToolCallStartEvent(tool_call_id=f"t{number}", tool_call_name="clock"))
        await publisher.finish(finished(lease, "failed"))
        types = [entry["event"]["type"] for entry in await room.entries(1)]
        assert types[-1] == "RUN_FINISHED"
        assert len(types) == 4 + 4 + 4 + 1
        assert len(room.settle.ended) == 1


def test_a_ledger_belongs_to_one_user():
    log = EventLog(LogLimits())
    with transaction.atomic():
        log.open_run(UserId(1), "r", "t")
        assert not log.close_run(UserId(2), "r")
        with pytest.raises(RunClosed):
            log.claim_run(UserId(2), "r", 1)
        assert log.close_run(UserId(1), "r")
        assert not log.close_run(UserId(1), "r")
    assert RunLedger.objects.get().owner == 1
