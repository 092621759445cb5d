import pytest

from apps.execution.models import Run, UserBudget
from apps.realtime.models import RunLedger
from apps.realtime.protocol import IfBusy
from apps.vocabulary import ErrorCode, Refusal
from tests.execution.admitting_desk import Desk, assert_books_balance, events_of
from tests.execution.running_room import ANN, BOB, in_transaction
from tests.execution.test_fairness import end

pytestmark = pytest.mark.django_db


def refusal_of(call, *args):
    with pytest.raises(Refusal) as refusal:
        call(*args)
    return refusal.value


def test_a_queued_run_that_is_cancelled_has_ended_at_once(desk):
    run_id = desk.admit(ANN).run_id
    assert desk.cancel(ANN, run_id) == "cancelled"
    events = events_of(ANN, run_id)
    assert [event["type"] for event in events] == ["CUSTOM", "RUN_STARTED", "RUN_FINISHED"]
    assert events[-1]["outcome"]["type"] == "cancelled"
    run = Run.objects.get()
    assert (run.status, run.ended_at is None) == ("cancelled", False)
    assert [ended.status for ended in desk.fold.ended] == ["cancelled"]
    assert desk.claim() is None
    assert_books_balance()


def test_a_running_run_that_is_cancelled_is_asked_to_stop_as_often_as_one_likes(desk):
    run_id = desk.admit(ANN).run_id
    desk.claim()
    assert [desk.cancel(ANN, run_id) for _ in range(2)] == ["cancelling"] * 2
    assert Run.objects.get().status == "running"
    assert RunLedger.objects.get().cancel_requested
    assert desk.runs.describe(ANN.user_id, run_id)["cancel_requested"]
    assert len(events_of(ANN)) == 1


def test_a_run_that_has_ended_cannot_be_cancelled(desk):
    run_id = desk.admit(ANN).run_id
    desk.claim()
    end(desk, run_id)
    refusal = refusal_of(desk.cancel, ANN, run_id)
    assert refusal.code == ErrorCode.RUN_FINISHED
    assert "succeeded" in refusal.message


@pytest.mark.parametrize("run_id", ["no-such-run", "", "\0", "x" * 10_000, "\ud800", "ünknown"])
def test_a_run_that_is_not_there_is_not_found_whatever_its_id(desk, run_id):
    assert refusal_of(desk.cancel, ANN, run_id).code == ErrorCode.NOT_FOUND
    assert refusal_of(desk.runs.describe, ANN.user_id, run_id).code == ErrorCode.NOT_FOUND


def test_another_users_run_is_not_found_in_the_same_words_as_none(desk):
    run_id = desk.admit(ANN).run_id
    for call in (desk.runs.describe, desk.runs.stored_request):
        assert vars(refusal_of(call, BOB.user_id, run_id)) == vars(refusal_of(call, BOB.user_id, "no-such-run"))
    assert vars(refusal_of(desk.cancel, BOB, run_id)) == vars(refusal_of(desk.cancel, BOB, "no-such-run"))
    assert Run.objects.get().status == "queued"


def test_all_open_runs_of_a_thread_can_be_cancelled_together(desk):
    ids = [desk.admit(ANN, thread_id="t", if_busy=IfBusy.ENQUEUE).run_id for _ in range(3)]
    other = desk.admit(ANN, thread_id="u").run_id
    desk.claim()
    assert in_transaction(desk.runs.cancel_in_thread, ANN.user_id, "t") == tuple(ids)
    assert [Run.objects.get(pk=run_id).status for run_id in (*ids, other)] == [
        "running",
        "cancelled",
        "cancelled",
        "queued",
    ]
    assert in_transaction(desk.runs.cancel_in_thread, BOB.user_id, "t") == ()
    assert_books_balance()


def test_a_run_is_described_to_its_user(desk):
    first, second = desk.admit(ANN).run_id, desk.admit(ANN, retry_of=None).run_id
    assert desk.runs.describe(ANN.user_id, second)["place"] == 2
    desk.claim()
    end(desk, first)
    description = desk.runs.describe(ANN.user_id, first)
    assert (description["id"], description["status"], description["place"]) == (first, "succeeded", None)
    assert description["ended_at"] >= description["started_at"] >= description["admitted_at"]


def test_what_was_asked_can_be_asked_again(desk):
    run_id = desk.admit(ANN, text="count=7", thread_id="t", attachments=("a",)).run_id
    request = desk.runs.stored_request(ANN.user_id, run_id)
    assert (request.text, request.thread_id, request.attachments) == ("count=7", "t", ("a",))
    assert request.message["content"] == "count=7"


def test_a_queued_run_whose_ledger_is_closed_ends_and_does_not_stop_the_queue(desk, caplog):
    broken, sound = desk.admit(ANN).run_id, desk.admit(ANN).run_id
    RunLedger.objects.filter(run_id=broken).update(is_open=False)
    assert desk.claim() == sound
    assert Run.objects.get(pk=broken).status == "interrupted"
    assert broken in caplog.text
    assert UserBudget.objects.get().open_runs == 1


def test_a_waiting_run_that_is_cancelled_says_nothing_more(desk):
    run_id = desk.admit(ANN).run_id
    desk.claim()
    Run.objects.update(status="waiting")
    RunLedger.objects.update(is_open=False)
    UserBudget.objects.update(running=0, waiting=1)
    before = events_of(ANN)
    assert desk.cancel(ANN, run_id) == "cancelled"
    assert events_of(ANN) == before
    assert_books_balance()


@pytest.mark.django_db(transaction=True)
def test_a_wake_up_that_fails_does_not_undo_what_was_admitted(caplog):
    desk = Desk()
    desk.admit(ANN)  # nothing is open in this process, so the task fails
    assert Run.objects.get().status == "queued"
    assert "manage.py serve" in caplog.text
