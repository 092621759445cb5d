import pytest

from apps.execution.models import Run, UserBudget
from apps.execution.settlement import Settlement
from apps.execution.states import IllegalMove
from apps.realtime.values import EndedRun
from tests.execution.admitting_desk import assert_books_balance
from tests.execution.running_room import ANN, BOB, in_transaction

pytestmark = pytest.mark.django_db


def an_end(run, status="succeeded", fence=None, **usage):
    return EndedRun(run.run_id, run.thread, run.owner, run.fence if fence is None else fence, status, usage, None)


def settle(*ended):
    settlement = Settlement()
    in_transaction(lambda: (settlement.lock(ended), settlement.write(ended)))


def claimed(desk, identity):
    desk.admit(identity)
    return desk.runs.claim().run


def test_the_ends_of_many_runs_of_many_users_are_settled_together(desk):
    runs = [claimed(desk, identity) for identity in (ANN, BOB, ANN)]
    settle(
        an_end(runs[0], input_tokens=5, output_tokens=7),
        an_end(runs[1], "failed", input_tokens=1),
        an_end(runs[2], "timed_out"),
    )
    assert [Run.objects.get(pk=run.pk).status for run in runs] == ["succeeded", "failed", "timed_out"]
    first = Run.objects.get(pk=runs[0].pk)
    assert (first.input_tokens, first.output_tokens) == (5, 7)
    assert all(run.ended_at for run in Run.objects.all())
    assert [budget.open_runs for budget in UserBudget.objects.order_by("pk")] == [0, 0]


def test_a_run_that_was_taken_over_is_passed_over(desk):
    run = claimed(desk, ANN)
    settle(an_end(run, fence=run.fence - 1))
    assert Run.objects.get().status == "running"
    assert UserBudget.objects.get().running == 1
    assert_books_balance()


def test_an_end_is_settled_once(desk):
    run = claimed(desk, ANN)
    claimed(desk, ANN)
    settle(an_end(run, output_tokens=3))
    settle(an_end(run, "failed", output_tokens=3))
    assert (Run.objects.get(pk=run.pk).status, Run.objects.get(pk=run.pk).output_tokens) == ("succeeded", 3)
    assert UserBudget.objects.get().running == 1


def test_a_run_that_waits_for_an_answer_gives_its_slot_back_and_stays_open(desk):
    settle(an_end(claimed(desk, ANN), "waiting"))
    budget = UserBudget.objects.get()
    assert (budget.running, budget.waiting, budget.open_runs) == (0, 1, 1)


@pytest.mark.parametrize("status", ["running", "queued"])
def test_a_status_in_which_no_run_ends_is_refused(desk, status):
    with pytest.raises(IllegalMove):
        settle(an_end(claimed(desk, ANN), status))
    assert Run.objects.get().status == "running"
