import asyncio
import logging
from contextlib import asynccontextmanager

import pytest

from apps.execution.lifecycle import RunErrorCode
from apps.realtime.publisher import PublisherLimits
from tests.execution.odd_agents import LET_GO, TIDIED
from tests.execution.running_room import ANN, BOB, TERMINAL, eventually, open_running_room

pytestmark = pytest.mark.django_db(transaction=True)


async def the_end(room, run_id, identity=ANN):
    """The terminal event, of which there is one, last, with everything closed before it."""
    event = await room.ended(identity, run_id)
    run = await room.run(run_id)
    logged = await room.database.call(room.log.read_run, identity.user_id, run_id)
    kinds = [event["type"] for event in logged]
    assert [kind for kind in kinds if kind in TERMINAL] == [event["type"]]
    assert kinds[-1] == event["type"]
    assert kinds[:2] == ["CUSTOM", "RUN_STARTED"]
    for construct in ("TEXT_MESSAGE", "TOOL_CALL"):
        assert kinds.count(f"{construct}_START") == kinds.count(f"{construct}_END")
    assert kinds.count("TOOL_CALL_END") == kinds.count("TOOL_CALL_RESULT")
    assert [ended.run_id for ended in room.notes.ended] == [run_id]
    budget = await room.budget(identity)
    assert (budget.queued, budget.running, budget.open_runs) == (0, 0, 0)
    return event, run


async def test_a_run_that_succeeds_has_one_terminal_event_with_its_usage():
    async with open_running_room() as room, room.executing():
        run_id = await room.start(ANN, "metronome", "count=3 interval_ms=1 tag=hey")
        event, run = await the_end(room, run_id)
        assert event["type"] == "RUN_FINISHED"
        assert event["outcome"]["type"] == "success"
        assert event["usage"][0]["outputTokens"] == run.output_tokens > 0
        assert run.status == "succeeded"
        text = "".join(event.get("delta", "") for event in room.events(ANN, run_id))
        assert text == "0:hey 1:hey 2:hey "


async def test_a_run_begins_with_the_message_of_its_user_and_the_version_of_the_protocol():
    async with open_running_room() as room, room.executing():
        run_id = await room.start(ANN, "metronome", "count=1", parent_run_id="an-earlier-run")
        await room.ended(ANN, run_id)
        started = await room.seen(ANN, run_id, "RUN_STARTED")
        assert started["protocolVersion"] == "1.0"
        assert started["parentRunId"] == "an-earlier-run"
        assert started["input"]["messages"][0]["content"] == "count=1"


async def test_an_agent_that_raises_ends_its_run_with_a_reference_and_none_of_its_secrets(caplog):
    async with open_running_room() as room, room.executing():
        run_id = await room.start(ANN, "faulty", "mode=raise after=2")
        event, run = await the_end(room, run_id)
        assert (event["code"], run.status, run.error_code) == ("agent_error", "failed", "agent_error")
        assert "hunter2" not in str(room.events(ANN, run_id))
        reference = event["message"].removesuffix(".").rpartition(" ")[2]
        [record] = [record for record in caplog.records if reference in record.getMessage()]
        assert "hunter2" in str(record.exc_info)


async def test_an_error_that_is_meant_for_the_user_is_shown_to_the_user():
    async with open_running_room() as room, room.executing():
        event, run = await the_end(room, await room.start(ANN, "choosy"))
        assert (event["code"], event["message"], run.status) == ("agent_error", "I take numbers only", "failed")


async def test_an_agent_that_hangs_ends_at_the_time_limit():
    async with open_running_room(run_timeout_s=0.3) as room, room.executing():
        event, run = await the_end(room, await room.start(ANN, "faulty", "mode=hang after=1"))
        assert (event["code"], run.status, run.error_code) == ("timeout", "timed_out", "timeout")


async def test_an_agent_that_is_cancelled_may_tidy_up_and_its_run_ends_cancelled():
    async with open_running_room() as room, room.executing():
        run_id = await room.start(ANN, "tidy")
        await room.seen(ANN, run_id, "TEXT_MESSAGE_CONTENT")
        assert await room.cancel(ANN, run_id) == "cancelling"
        event, run = await the_end(room, run_id)
        assert (event["type"], event["outcome"]["type"], run.status) == ("RUN_FINISHED", "cancelled", "cancelled")
        assert run.output_tokens == 1
        assert run_id in TIDIED


async def test_events_out_of_grammar_end_the_run_that_sent_them():
    async with open_running_room() as room, room.executing():
        event, run = await the_end(room, await room.start(ANN, "faulty", "mode=garbage after=1"))
        assert (event["type"], event["code"], run.status) == ("RUN_ERROR", "agent_error", "failed")


async def test_what_an_agent_leaves_open_is_closed_before_the_end():
    async with open_running_room() as room, room.executing():
        run_id = await room.start(ANN, "faulty", "mode=leak after=1")
        await the_end(room, run_id)
        assert "TOOL_CALL_RESULT" in room.kinds(ANN, run_id)


async def test_a_run_that_logs_more_than_a_run_may_ends_as_over_the_limit():
    async with open_running_room(PublisherLimits(run_bytes=20_000)) as room, room.executing():
        event, run = await the_end(room, await room.start(ANN, "faulty", "mode=flood after=1"))
        assert (event["code"], run.status) == ("limit_exceeded", "failed")


async def test_an_agent_that_exits_ends_its_run_and_not_the_process_of_others():
    async with open_running_room() as room, room.executing() as executor:
        other = await room.start(BOB, "tidy")
        await room.seen(BOB, other, "TEXT_MESSAGE_CONTENT")
        run_id = await room.start(ANN, "exiting")
        event = await room.ended(ANN, run_id)
        assert event["code"] == "agent_error"
        assert executor.is_alive
        assert (await room.run(other)).status == "running"


async def test_an_agent_that_raises_a_cancellation_nobody_asked_for_has_failed():
    async with open_running_room() as room, room.executing():
        event, run = await the_end(room, await room.start(ANN, "self-cancelling"))
        assert (event["code"], run.status) == ("agent_error", "failed")


async def test_an_agent_that_ignores_its_cancellation_is_left_behind_visibly_and_its_run_ends(caplog):
    async with open_running_room(cancel_timeout_s=0.05, cleanup_timeout_s=0.05) as room:
        async with room.executing() as executor:
            run_id = await room.start(ANN, "stubborn")
            await room.seen(ANN, run_id, "TEXT_MESSAGE_CONTENT")
            await room.cancel(ANN, run_id)
            event, run = await the_end(room, run_id)
            assert (event["outcome"]["type"], run.status) == ("cancelled", "cancelled")
            assert executor.census()["left_behind"] == room.engines.live == 1
            assert "did not stop" in caplog.text
            LET_GO.pop(run_id).set()
            await eventually(lambda: room.engines.live == 0)
        logged = await room.database.call(room.log.read_run, ANN.user_id, run_id)
        assert "after the end" not in str(logged)


async def test_nothing_that_an_agent_says_after_its_cancellation_is_shown():
    async with open_running_room() as room, room.executing():
        run_id = await room.start(ANN, "deaf")
        await room.seen(ANN, run_id, "TEXT_MESSAGE_CONTENT")
        await room.cancel(ANN, run_id)
        event, _ = await the_end(room, run_id)
        assert event["outcome"]["type"] == "cancelled"
        assert "still here" not in str(room.events(ANN, run_id))


async def test_a_run_whose_owner_was_replaced_stops_and_writes_nothing(caplog):
    caplog.set_level(logging.WARNING)
    async with open_running_room() as room, room.executing() as executor:
        run_id = await room.start(ANN, "metronome", "count=10000 interval_ms=1")
        await room.seen(ANN, run_id, "TEXT_MESSAGE_CONTENT")
        assert await room.database.call(room.succession(room.runs).end_orphan, room.process_id, run_id)
        event, run = await the_end(room, run_id)
        assert (event["code"], run.status) == ("interrupted", "interrupted")
        await eventually(lambda: not executor.census()["running"])
        assert "was taken over" in caplog.text


async def test_where_no_engine_is_free_the_run_ends_as_unavailable():
    async with open_running_room() as room:
        full = type(room.engines)(room.limits)
        full._live = room.limits.run_slots
        async with room.executing(open_engine=lambda context, _: full.open_engine(context)):
            event, _ = await the_end(room, await room.start(ANN, "metronome"))
            assert event["code"] == RunErrorCode.UNAVAILABLE


async def test_a_run_that_cannot_even_begin_still_has_its_beginning_and_its_end():
    def no_history(*_):
        raise LookupError("no such thread")

    async with open_running_room() as room, room.executing(history=no_history):
        event, run = await the_end(room, await room.start(ANN, "metronome"))
        assert (event["code"], run.status) == ("agent_error", "failed")
        assert "thread" not in event["message"]


@asynccontextmanager
async def hanging_tools(*_):
    await asyncio.get_running_loop().create_future()
    yield None


async def test_opening_what_a_run_needs_obeys_a_cancellation():
    async with open_running_room() as room, room.executing(open_tools=hanging_tools) as executor:
        run_id = await room.start(ANN, "metronome")
        await eventually(lambda: executor.census()["running"] == 1)
        assert await room.cancel(ANN, run_id) == "cancelling"
        assert (await room.ended(ANN, run_id))["outcome"]["type"] == "cancelled"
        await eventually(lambda: executor.census()["running"] == 0)


async def test_opening_what_a_run_needs_takes_no_longer_than_the_run_may():
    async with open_running_room(run_timeout_s=0.2) as room, room.executing(open_tools=hanging_tools) as executor:
        ended = await room.ended(ANN, await room.start(ANN, "metronome"))
        assert (ended["type"], ended["code"]) == ("RUN_ERROR", "timeout")
        await eventually(lambda: executor.census()["running"] == 0)
