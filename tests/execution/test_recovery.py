import pytest
from ag_ui.core import TextMessageContentEvent, TextMessageStartEvent, ToolCallEndEvent, ToolCallStartEvent
from django.db import transaction

from apps.agents.base import TokenCount
from apps.execution import lifecycle
from apps.execution.models import Run, UserBudget
from apps.execution.recovery import Recovery
from apps.realtime.constructs import OpenConstructs
from apps.realtime.log import RunClosed
from apps.realtime.models import RunLedger
from apps.realtime.values import LogEntry
from tests.execution.admitting_desk import assert_books_balance, events_of
from tests.execution.running_room import ANN, BOB, eventually, open_running_room

pytestmark = pytest.mark.django_db


@pytest.fixture
def recovery(desk):
    return Recovery(desk.log, desk.fold)


def died_after(desk, *events):
    """A run whose process logged these events and died."""
    desk.admit(ANN)
    run = desk.runs.claim().run
    if events:
        with transaction.atomic():
            desk.log.append(ANN.user_id, [LogEntry(event, run.thread, run.run_id) for event in events])
    return run


def begun(run_thread="t", run_id="r"):
    return lifecycle.started(run_thread, run_id, {"id": "m", "role": "user", "content": "hi"}, None)


MESSAGE = TextMessageStartEvent(message_id="a", role="assistant")
DELTA = TextMessageContentEvent(message_id="a", delta="half a ")
CALL = ToolCallStartEvent(tool_call_id="c", tool_call_name="add", parent_message_id="a")
CALLED = ToolCallEndEvent(tool_call_id="c")


@pytest.mark.parametrize("logged", range(6))
def test_a_run_of_a_dead_process_ends_interrupted_once_with_everything_closed(desk, recovery, logged):
    events = [begun(), MESSAGE, DELTA, CALL, CALLED][:logged]
    run = died_after(desk, *events)
    assert desk.end_orphans() == 1
    assert desk.end_orphans() == 0
    constructs = OpenConstructs()
    seen = events_of(ANN, run.run_id)
    for event in seen:
        constructs.see(event)
    assert (constructs.started, constructs.ended, len(constructs)) == (True, True, 0)
    assert [event["type"] for event in seen].count("RUN_STARTED") == 1
    assert (seen[-1]["type"], seen[-1]["code"]) == ("RUN_ERROR", "interrupted")
    assert seen[-1]["message"].startswith("The server stopped")
    run.refresh_from_db()
    assert (run.status, run.error_code, run.fence) == ("interrupted", "interrupted", 2)
    assert [ended.fence for ended in desk.fold.ended] == [2]
    assert UserBudget.objects.get().open_runs == 0
    assert_books_balance()


def test_the_old_owner_is_fenced(desk, recovery):
    run = died_after(desk, begun())
    desk.end_orphans()
    with pytest.raises(RunClosed):
        desk.log.claim_run(ANN.user_id, run.run_id, 99)
    assert RunLedger.objects.get().fence > run.fence


def test_queued_runs_and_runs_that_ended_are_left_alone(desk, recovery):
    queued, cancelled = desk.admit(ANN).run_id, desk.admit(BOB).run_id
    desk.cancel(BOB, cancelled)
    assert desk.end_orphans() == 0
    assert Run.objects.get(pk=queued).status == "queued"


def test_only_the_owner_of_the_fence_ends_a_run_through_it(desk, recovery):
    run = died_after(desk)
    ending = lifecycle.interrupted(TokenCount(1, 2))
    assert not recovery.end(run.run_id, ending, run.fence - 1)
    assert not recovery.end("no-such-run", ending)
    assert recovery.end(run.run_id, ending, run.fence)
    assert not recovery.end(run.run_id, ending, run.fence)
    run.refresh_from_db()
    assert (run.input_tokens, run.output_tokens) == (1, 2)


def test_books_that_the_ledger_contradicts_are_put_right(desk, recovery, caplog):
    run = died_after(desk, begun())
    RunLedger.objects.update(is_open=False)
    before = events_of(ANN)
    assert desk.end_orphans() == 1
    assert events_of(ANN) == before
    assert Run.objects.get().status == "interrupted"
    assert run.run_id in caplog.text


@pytest.mark.django_db(transaction=True)
async def test_after_a_restart_orphans_are_ended_and_queued_runs_are_run():
    async with open_running_room(run_slots_per_user=1) as room:
        orphan = await room.start(ANN, "metronome", "count=2")
        queued = await room.start(ANN, "metronome", "count=2")
        await room.database.call(room.runs.claim)
        await room.dies()
        async with room.executing():
            assert (await room.ended(ANN, orphan))["code"] == "interrupted"
            assert (await room.ended(ANN, queued))["outcome"]["type"] == "success"
            await eventually(lambda: room.reaper.census()["recovered_total"] == 1)
