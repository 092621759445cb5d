from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections, transaction

from apps.execution.models import Run, UserBudget
from apps.realtime.models import RunLedger
from apps.realtime.protocol import IfBusy
from apps.vocabulary import ErrorCode, Refusal
from tests.execution.admitting_desk import Desk, assert_books_balance, events_of, places_of
from tests.execution.running_room import ANN, BOB, a_request

pytestmark = pytest.mark.django_db


def refused(code, admit, *args, **changes):
    with pytest.raises(Refusal) as refusal:
        admit(*args, **changes)
    assert refusal.value.code == code
    return refusal.value


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("same_thread", [True, False])
def test_of_16_admissions_at_once_at_a_limit_of_3_three_are_admitted(same_thread):
    desk = Desk(open_runs_per_user=3)
    changes = {"thread_id": "thread-1", "if_busy": IfBusy.ENQUEUE} if same_thread else {}

    def try_to_admit(_):
        try:
            return desk.admit(ANN, **changes).place
        except Refusal as refusal:
            return refusal.code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(try_to_admit, range(16)))
    assert sorted(answers, key=str) == [1, 2, 3, *[ErrorCode.TOO_MANY_RUNS] * 13]
    assert UserBudget.objects.get(pk=ANN.user_id).open_runs == Run.objects.count() == 3
    assert_books_balance()


def test_an_admission_writes_the_run_its_ledger_and_an_event_with_the_message(desk):
    admission = desk.admit(ANN, text="count=2")
    run = Run.objects.get()
    assert (run.id, run.user_id, run.user_name, run.status, run.text) == (
        admission.run_id,
        1,
        "ann",
        "queued",
        "count=2",
    )
    ledger = RunLedger.objects.get()
    assert (ledger.run_id, ledger.user_id, ledger.thread_id, ledger.is_open) == (run.id, 1, run.thread_id, True)
    [event] = events_of(ANN)
    assert event["name"] == "turnout.run.queued"
    assert event["value"] == {"place": 1, "message": {"id": run.message_id, "role": "user", "content": "count=2"}}
    assert (admission.place, admission.cancelled) == (1, ())


def test_an_agent_that_is_not_there_is_refused_with_those_that_are(desk):
    refusal = refused(ErrorCode.AGENT_UNKNOWN, desk.admit, ANN, agent="../../x")
    assert "metronome" in refusal.message
    assert not Run.objects.exists()


def test_another_users_runs_take_no_room(desk):
    desk = Desk(open_runs_per_user=1)
    desk.admit(ANN)
    refusal = refused(ErrorCode.TOO_MANY_RUNS, desk.admit, ANN)
    assert refusal.details == {"limit": 1}
    assert desk.admit(BOB).place == 1


def test_a_full_queue_of_all_users_is_refused_for_now():
    desk = Desk(queued_runs=2)
    desk.admit(ANN)
    desk.admit(ANN)
    refusal = refused(ErrorCode.QUEUE_FULL, desk.admit, BOB)
    assert refusal.retry_after_s
    assert not refusal.code.remembered
    desk.claim()
    desk.admit(BOB)


def test_a_busy_thread_refuses_and_another_thread_does_not(desk):
    first = desk.admit(ANN, thread_id="thread-1")
    refusal = refused(ErrorCode.THREAD_BUSY, desk.admit, ANN, thread_id="thread-1")
    assert refusal.details == {"run_id": first.run_id}
    desk.admit(ANN, thread_id="thread-2")
    desk.admit(BOB, thread_id="thread-1")


def test_places_are_counted_in_the_users_own_queue(desk):
    desk.admit(BOB)
    assert [desk.admit(ANN, thread_id="t", if_busy=IfBusy.ENQUEUE).place for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("if_busy", [IfBusy.INTERRUPT, IfBusy.ROLLBACK])
def test_an_interrupting_run_sends_away_all_that_is_open_in_its_thread(desk, if_busy):
    running = desk.admit(ANN, thread_id="t").run_id
    desk.claim()
    queued = desk.admit(ANN, thread_id="t", if_busy=IfBusy.ENQUEUE).run_id
    elsewhere = desk.admit(ANN, thread_id="u").run_id
    admission = desk.admit(ANN, thread_id="t", if_busy=if_busy)
    assert admission.cancelled == (running, queued)
    assert admission.place == 2
    asked, ended = Run.objects.get(pk=running), Run.objects.get(pk=queued)
    assert (asked.status, asked.cancel_requested) == ("running", True)
    assert RunLedger.objects.get(run_id=running).cancel_requested
    assert ended.status == "cancelled"
    assert [event["type"] for event in events_of(ANN, queued)] == ["CUSTOM", "RUN_STARTED", "RUN_FINISHED"]
    assert [ended.run_id for ended in desk.fold.ended] == [queued]
    assert places_of(ANN)[-2:] == [(elsewhere, 1, False), (admission.run_id, 2, True)]
    assert desk.claim() == elsewhere
    assert desk.claim() is None  # the interrupted run has not ended yet
    assert_books_balance()


def test_a_refused_interrupt_sends_nobody_away(desk):
    desk = Desk(queued_runs=1, open_runs_per_user=2)
    running = desk.admit(ANN, thread_id="t").run_id
    desk.claim()
    other = desk.admit(BOB)
    before = events_of(ANN)
    refused(ErrorCode.QUEUE_FULL, desk.admit, ANN, thread_id="t", if_busy=IfBusy.INTERRUPT)
    assert not Run.objects.get(pk=running).cancel_requested
    assert events_of(ANN) == before
    assert Run.objects.get(pk=other.run_id).status == "queued"
    assert_books_balance()


def test_a_refusal_in_a_transaction_that_goes_on_leaves_nothing_of_the_run(desk):
    desk = Desk(open_runs_per_user=1)
    first = desk.admit(ANN, thread_id="t").run_id
    desk.claim()
    with transaction.atomic(), pytest.raises(Refusal):
        desk.runs.admit(ANN, a_request(thread_id="t", if_busy=IfBusy.INTERRUPT))
    assert Run.objects.count() == 1
    assert not Run.objects.get(pk=first).cancel_requested
    assert not RunLedger.objects.get().cancel_requested


def test_a_retry_is_of_a_run_of_ones_own_in_that_thread(desk):
    first = desk.admit(ANN, thread_id="t").run_id
    desk.cancel(ANN, first)
    refused(ErrorCode.NOT_FOUND, desk.admit, BOB, thread_id="t", retry_of=first)
    refused(ErrorCode.NOT_FOUND, desk.admit, ANN, thread_id="u", retry_of=first)
    again = desk.admit(ANN, thread_id="t", retry_of=first)
    run = Run.objects.get(pk=again.run_id)
    assert (run.retry_of, run.parent) == (first, first)
