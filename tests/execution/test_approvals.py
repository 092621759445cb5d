"""A run that asks for its user's word waits without holding anything, and exactly one answer starts the next run."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.utils import timezone

from apps.agents.base import ApprovalRequest, TokenCount
from apps.execution import approvals, lifecycle
from apps.execution.approvals import Answer, Closing
from apps.execution.models import Interrupt, Run, UserBudget
from apps.realtime.commit import Committed, Refused
from apps.realtime.models import RunLedger
from apps.realtime.protocol import IfBusy
from apps.vocabulary import ErrorCode, Refusal, RunId, new_id
from tests.execution.admitting_desk import Desk, assert_books_balance, events_of
from tests.execution.running_room import ANN, BOB, eventually, open_running_room

pytestmark = pytest.mark.django_db(transaction=True)

REQUEST = ApprovalRequest("call-1", "write", '{"what":"x"}', "Write x?")


def wait_for_approval(desk, identity=ANN, minutes=60, **changes):
    """A run that has asked; its call."""
    run_id = desk.admit(identity, **changes).run_id
    claimed = desk.runs.claim()
    assert claimed.lease.run_id == run_id
    until = timezone.now() + timedelta(minutes=minutes)
    ending = lifecycle.waiting(claimed.lease.thread_id, run_id, TokenCount(3, 4), REQUEST, until)
    assert isinstance(desk.finish(claimed, ending), Committed)
    return Interrupt.objects.get(run_id=run_id)


def answer(desk, call, how=Closing.APPROVED, identity=ANN):
    run_id = RunId(new_id())
    asked = desk.runs.stored_request(identity.user_id, call.run_id)
    changes = {"run_id": run_id, "parent_run_id": call.run_id, "if_busy": IfBusy.ENQUEUE}
    request = dataclasses.replace(asked, **changes)
    with transaction.atomic():
        found = desk.runs.open_call(identity.user_id, call.pk)
        return desk.runs.resume(identity, found, Answer(how, "because", run_id), request).run_id


def refused(code, act, *args, **changes):
    with pytest.raises(Refusal) as refusal:
        act(*args, **changes)
    assert refusal.value.code == code
    return refusal.value


def closings_of(identity=ANN):
    return [event["value"] for event in events_of(identity) if event.get("name") == approvals.CLOSED]


def test_a_waiting_run_has_its_terminal_event_and_holds_no_slot_lease_or_reservation():
    desk = Desk()
    call = wait_for_approval(desk)
    run, budget = Run.objects.get(), UserBudget.objects.get()
    assert (run.status, run.reserved_tokens, budget.waiting, budget.running) == ("waiting", 0, 1, 0)
    assert (budget.used_tokens, budget.reserved_tokens) == (7, 0)
    assert not RunLedger.objects.get().is_open
    terminal = [event for event in events_of(ANN) if event["type"] == "RUN_FINISHED"]
    assert [event["outcome"]["type"] for event in terminal] == ["interrupt"]
    (interrupt,) = terminal[0]["outcome"]["interrupts"]
    assert (interrupt["id"], interrupt["toolCallId"], interrupt["message"]) == (call.pk, "call-1", "Write x?")
    assert interrupt["expiresAt"].endswith("Z")
    assert_books_balance()


@pytest.mark.parametrize("how", [Closing.APPROVED, Closing.DENIED])
def test_an_answer_starts_a_new_run_that_is_told_the_stored_call(how):
    desk = Desk()
    call = wait_for_approval(desk)
    resumed = answer(desk, call, how)
    assert Run.objects.get(pk=call.run_id).status == "succeeded"
    claimed = desk.runs.claim()
    assert claimed.lease.run_id == resumed
    assert claimed.run.parent == call.run_id
    (decision,) = claimed.resume
    assert (decision.approved, decision.tool, decision.arguments) == (how is Closing.APPROVED, "write", '{"what":"x"}')
    assert (decision.run_id, decision.tool_call_id, decision.comment) == (call.run_id, "call-1", "because")
    assert closings_of() == [{"interrupt_id": call.pk, "how": str(how)}]
    assert_books_balance()


def test_a_stored_call_that_was_changed_since_is_never_approved():
    desk = Desk()
    call = wait_for_approval(desk)
    resumed = answer(desk, call)
    Interrupt.objects.update(arguments='{"what":"everything"}')
    (decision,) = approvals.decision_for(ANN.user_id, resumed)
    assert not decision.approved


def test_of_many_answers_at_once_the_first_wins_and_starts_the_only_run():
    desk = Desk()
    call = wait_for_approval(desk)

    def try_to_answer(number):
        try:
            return answer(desk, call, Closing.APPROVED if number % 2 else Closing.DENIED) and "answered"
        except Refusal as refusal:
            return refusal.code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(try_to_answer, range(8)))
    assert sorted(answers, key=str) == [*[ErrorCode.ALREADY_DECIDED] * 7, "answered"]
    assert Run.objects.count() == 2
    assert len(closings_of()) == 1
    assert_books_balance()


def test_a_call_is_closed_once_whoever_holds_an_old_copy_of_its_row():
    call = wait_for_approval(Desk())
    assert approvals.close(call, Closing.DENIED)
    assert not approvals.close(call, Closing.EXPIRED)
    assert Interrupt.objects.get().decision == "denied"


def test_nobody_decides_anothers_call_and_an_unknown_one_reads_the_same():
    desk = Desk()
    call = wait_for_approval(desk)
    foreign = refused(ErrorCode.NOT_FOUND, desk.runs.open_call, BOB.user_id, call.pk)
    for unknown in (new_id(), "", "\0", "é", "x" * 10_000):
        assert refused(ErrorCode.NOT_FOUND, desk.runs.open_call, ANN.user_id, unknown).message == foreign.message


def test_a_refused_admission_leaves_the_call_waiting():
    desk = Desk(tokens_per_day=1_005)
    call = wait_for_approval(desk)
    refused(ErrorCode.QUOTA_EXCEEDED, answer, desk, call)
    assert Interrupt.objects.get().decision == ""
    assert Run.objects.get().status == "waiting"
    assert closings_of() == []
    assert_books_balance()


def test_a_call_that_nobody_answers_expires_and_is_decided_no_more():
    desk = Desk()
    late = wait_for_approval(desk, minutes=-1)
    wait_for_approval(desk, BOB)
    refused(ErrorCode.ALREADY_DECIDED, desk.runs.open_call, ANN.user_id, late.pk)
    desk.runs.expire_approvals()
    desk.runs.expire_approvals()
    assert Run.objects.get(user_id=ANN.user_id).status == "timed_out"
    assert Run.objects.get(user_id=BOB.user_id).status == "waiting"
    assert closings_of() == [{"interrupt_id": late.pk, "how": "expired"}]
    refused(ErrorCode.ALREADY_DECIDED, answer, desk, late)
    assert_books_balance()


def test_cancelling_a_waiting_run_closes_its_call_at_once():
    desk = Desk()
    call = wait_for_approval(desk)
    assert desk.cancel(ANN, call.run_id) == "cancelled"
    assert closings_of() == [{"interrupt_id": call.pk, "how": "cancelled"}]
    refused(ErrorCode.ALREADY_DECIDED, answer, desk, call)
    assert len([event for event in events_of(ANN) if event["type"] == "RUN_FINISHED"]) == 1
    assert_books_balance()


def test_a_waiting_run_keeps_nobody_from_going_on_in_its_thread_and_is_sent_away_by_an_interrupt():
    desk = Desk()
    call = wait_for_approval(desk, thread_id="t")
    desk.admit(ANN, thread_id="t")
    assert desk.claim() is not None
    assert Run.objects.get(pk=call.run_id).status == "waiting"
    desk.admit(ANN, thread_id="t", if_busy=IfBusy.INTERRUPT)
    assert Run.objects.get(pk=call.run_id).status == "cancelled"
    assert_books_balance()


def test_as_many_runs_wait_as_may_and_no_more():
    desk = Desk(waiting_runs_per_user=1)
    desk.admit(ANN)
    second = desk.runs.claim()
    wait_for_approval(desk)
    assert not desk.runs.may_wait(ANN.user_id)
    assert desk.runs.may_wait(BOB.user_id)
    assert "approval" in refused(ErrorCode.TOO_MANY_RUNS, desk.admit, ANN).message
    # Whoever did not ask before is stopped under the lock.
    ending = lifecycle.waiting(second.lease.thread_id, second.lease.run_id, TokenCount(), REQUEST, timezone.now())
    assert isinstance(desk.finish(second, ending), Refused)
    assert UserBudget.objects.get().waiting == Interrupt.objects.count() == 1
    assert_books_balance()


async def test_an_agent_that_asks_ends_its_run_as_waiting_and_goes_on_from_the_answer():
    async with open_running_room() as room, room.executing() as executor:
        run_id = await room.start(ANN, "asking", "x")
        ended = await room.ended(ANN, run_id)
        assert ended["outcome"]["type"] == "interrupt"
        assert room.kinds(ANN, run_id)[-2:] == ["TOOL_CALL_END", "RUN_FINISHED"]
        call = await room.database.call(Interrupt.objects.get, run_id=run_id)
        assert (call.tool, call.arguments, call.question) == ("write", '{"what":"x"}', "Write x?")
        await eventually(lambda: executor.census()["running"] == 0)
        assert room.engines.live == 0

        def approve():
            return answer(room, call)

        resumed = await room.database.call(approve)
        assert (await room.ended(ANN, resumed))["outcome"]["type"] == "success"
        texts = [event["delta"] for event in room.events(ANN, resumed) if event["type"] == "TEXT_MESSAGE_CONTENT"]
        assert texts == ['done: write {"what":"x"} because after []']
        started = next(event for event in room.events(ANN, resumed) if event["type"] == "RUN_STARTED")
        assert started["parentRunId"] == run_id


async def test_a_run_that_would_wait_beside_too_many_ends_with_a_limit_that_says_so():
    async with open_running_room(waiting_runs_per_user=1) as room, room.executing():
        first, second = [await room.start(ANN, "asking", text) for text in ("x", "y")]
        ends = [await room.ended(ANN, run_id) for run_id in (first, second)]
        kinds = sorted(end["type"] for end in ends)
        if kinds == ["RUN_ERROR", "RUN_FINISHED"]:
            (error,) = [end for end in ends if end["type"] == "RUN_ERROR"]
            assert error["code"] in {"limit_exceeded", "agent_error"}
        assert (await room.budget(ANN)).waiting == 1
