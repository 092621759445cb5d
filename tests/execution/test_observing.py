from datetime import timedelta

import pytest
from django.utils import timezone

from apps.execution.models import Run
from apps.execution.observing import EndsObserved
from apps.execution.states import RunStatus
from apps.realtime.values import EndedRun
from tests.execution.running_room import ANN, BOB, PATHS, Notes


def an_end(run, status="succeeded", **usage):
    return EndedRun(run.run_id, run.thread, run.owner, run.fence, status, usage, None)


@pytest.fixture
def ends():
    return []


@pytest.fixture
def observed(ends):
    return EndsObserved(Notes(), ends.extend)


@pytest.mark.django_db
def test_whoever_is_told_learns_whose_run_it_was_on_which_paths_and_how_it_ended(desk, observed, ends):
    runs = []
    for identity in (ANN, BOB):
        desk.admit(identity)
        runs.append(desk.runs.claim().run)
    observed.write([an_end(runs[0], "failed"), an_end(runs[1], "cancelled")])
    assert [(end.user_id, end.run_id, end.status, end.failed) for end in ends] == [
        (ANN.user_id, runs[0].run_id, RunStatus.FAILED, True),
        (BOB.user_id, runs[1].run_id, RunStatus.CANCELLED, False),
    ]
    assert ends[0].paths == PATHS


@pytest.mark.django_db
def test_the_own_time_of_a_run_is_without_what_it_waited_for(desk, observed, ends):
    desk.admit(ANN)
    run = desk.runs.claim().run
    started = timezone.now()
    Run.objects.update(started_at=started, ended_at=started + timedelta(seconds=5))
    observed.write([an_end(run, waited_ms=1_500)])
    assert ends[0].own_s == pytest.approx(3.5)


@pytest.mark.django_db
def test_a_run_that_was_never_claimed_or_is_gone_is_not_told_of(desk, observed, ends):
    desk.admit(ANN)
    observed.write([an_end(Run.objects.get())])
    assert ends == []


@pytest.mark.django_db
def test_the_other_participant_writes_first_and_in_any_case(desk):
    notes = Notes()
    desk.admit(ANN)
    run = desk.runs.claim().run
    observed = EndsObserved(notes, lambda _: 1 / 0)
    assert observed.lock_free([an_end(run)]) == frozenset()
    observed.lock([an_end(run)])
    with pytest.raises(ZeroDivisionError):
        observed.write([an_end(run)])
    assert [end.run_id for end in notes.ended] == [run.run_id]
