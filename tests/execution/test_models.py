import pytest
from django.db import IntegrityError, transaction
from django.db.transaction import TransactionManagementError

from apps.execution.models import Run, StaleRun, UserBudget
from apps.execution.states import IllegalMove, RunStatus
from tests.execution.running_room import ANN

pytestmark = pytest.mark.django_db


def test_a_move_changes_the_row_and_the_object(desk):
    run = Run.objects.get(pk=desk.admit(ANN).run_id)
    run.move(RunStatus.RUNNING, fence=1)
    assert (run.status, run.fence) == ("running", 1)
    assert Run.objects.get().status == "running"


def test_an_illegal_move_changes_nothing(desk):
    run = Run.objects.get(pk=desk.admit(ANN).run_id)
    with pytest.raises(IllegalMove):
        run.move(RunStatus.SUCCEEDED)
    assert run.status == Run.objects.get().status == "queued"


@pytest.mark.parametrize("meanwhile", [{"status": "cancelled"}, {"fence": 5}])
def test_a_move_of_a_run_that_was_moved_meanwhile_changes_nothing(desk, meanwhile):
    run = Run.objects.get(pk=desk.admit(ANN).run_id)
    Run.objects.update(**meanwhile)
    with pytest.raises(StaleRun):
        run.move(RunStatus.RUNNING)
    assert run.status == "queued"
    assert Run.objects.get().status == meanwhile.get("status", "queued")


def test_a_status_that_is_none_is_refused_by_the_database(desk):
    desk.admit(ANN)
    with pytest.raises(IntegrityError), transaction.atomic():
        Run.objects.update(status="asleep")


def test_counts_below_zero_are_refused_by_the_database(desk):
    desk.admit(ANN)
    with pytest.raises(IntegrityError), transaction.atomic():
        UserBudget.objects.update(running=-1)


@pytest.mark.django_db(transaction=True)
def test_a_budget_is_locked_in_a_transaction_only():
    with pytest.raises(TransactionManagementError, match="open one first"):
        UserBudget.objects.locked(ANN.user_id)
    with transaction.atomic():
        assert UserBudget.objects.locked(ANN.user_id).open_runs == 0
    assert UserBudget.objects.count() == 1
