import pytest
from django.db import transaction

from apps.execution.models import Run, UserBudget
from apps.execution.recovery import Recovery
from apps.execution.succession import Succession
from apps.realtime.protocol import IfBusy
from tests.execution.admitting_desk import OWNER, assert_books_balance, events_of, places_of
from tests.execution.running_room import ANN, BOB, Notes, open_running_room

pytestmark = pytest.mark.django_db


@pytest.fixture
def desk(desk):
    desk.restartable = {"metronome"}
    return desk


def left_behind(desk, **changes):
    """A run that a process claimed, and then died."""
    run_id = desk.admit(ANN, **changes).run_id
    assert desk.claim() == run_id
    return Run.objects.get(pk=run_id)


def test_a_restartable_run_is_asked_again_in_the_transaction_that_ends_it(desk):
    old = left_behind(desk, text="count=9")
    assert desk.end_orphans() == 1
    new = Run.objects.queued().get()
    assert (new.retry_of, new.restarts, new.text, new.message, new.thread_id) == (
        old.pk,
        1,
        "count=9",
        old.message,
        old.thread_id,
    )
    assert events_of(ANN, old.run_id)[-1]["code"] == "interrupted"
    assert places_of(ANN)[-1] == (new.pk, 1, True)
    assert_books_balance()


def test_a_question_that_kills_processes_does_not_go_round_for_ever(desk):
    left_behind(desk)
    desk.end_orphans()
    assert desk.claim()
    desk.end_orphans()
    assert not Run.objects.open().exists()
    assert_books_balance()


def test_a_run_of_an_agent_that_does_not_say_so_is_not_asked_again(desk):
    left_behind(desk, agent="faulty")
    assert desk.end_orphans() == 1
    assert not Run.objects.open().exists()


def test_what_its_user_wanted_stopped_is_not_asked_again(desk):
    run = left_behind(desk)
    desk.cancel(ANN, run.run_id)
    assert desk.end_orphans() == 1
    assert not Run.objects.open().exists()


def test_who_has_asked_something_else_meanwhile_is_not_answered_out_of_order(desk):
    run = left_behind(desk)
    following = desk.admit(ANN, thread_id=run.thread_id, if_busy=IfBusy.ENQUEUE).run_id
    assert desk.end_orphans() == 1
    assert Run.objects.open().get().pk == following


def test_where_the_question_is_gone_or_admission_fails_the_run_ends_all_the_same(desk, caplog):
    class Gone(Notes):
        def ask_again(self, user_id, thread_id, message_id):
            return False

    def defect(*_):
        raise ZeroDivisionError

    for fold, admit in ((Gone(), desk.runs.admit), (desk.fold, defect)):
        run = left_behind(desk)
        succession = Succession(
            Recovery(desk.log, fold), admit=admit, put_back=fold.ask_again, restartable=["metronome"], restarts=1
        )
        assert succession.end_orphan(OWNER, run.run_id)
        run.refresh_from_db()
        assert run.status == "interrupted"
    assert not Run.objects.open().exists()
    assert "cannot be asked again" in caplog.text
    assert_books_balance()


def test_runs_of_other_processes_are_left_alone(desk):
    run = left_behind(desk)
    assert desk.end_orphans("0198c2d4-0000-7000-8000-000000000002") == 0
    succession = Succession(
        Recovery(desk.log, desk.fold), admit=desk.runs.admit, put_back=desk.fold.ask_again, restartable=(), restarts=1
    )
    assert not succession.end_orphan("0198c2d4-0000-7000-8000-000000000002", run.run_id)
    assert Run.objects.get(pk=run.pk).status == "running"


def test_the_reservation_of_the_dead_run_is_free_again(desk):
    left_behind(desk, agent="faulty")
    with transaction.atomic():
        assert UserBudget.objects.locked(ANN.user_id).running == 1
    desk.end_orphans()
    budget = UserBudget.objects.get(pk=ANN.user_id)
    assert (budget.running, budget.reserved_tokens) == (0, 0)


@pytest.mark.django_db(transaction=True)
async def test_a_drained_process_hands_the_runs_of_restartable_agents_over():
    async with open_running_room() as room:
        async with room.executing() as executor:
            handed_over = await room.start(ANN, "patient")
            ended = await room.start(BOB, "tidy")
            await room.seen(ANN, handed_over, "TEXT_MESSAGE_CONTENT")
            await room.seen(BOB, ended, "TEXT_MESSAGE_CONTENT")
            await executor.drain(10.0)
            for identity, run_id in ((ANN, handed_over), (BOB, ended)):
                assert (await room.ended(identity, run_id))["code"] == "interrupted"
        queued = await room.database.call(lambda: list(Run.objects.queued().values_list("retry_of", flat=True)))
        assert queued == [handed_over]
