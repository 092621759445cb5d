import pytest
from django.utils import timezone
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from apps.execution.models import UserBudget
from apps.execution.states import ENDED, LEGAL_MOVES, OPEN, IllegalMove, RunStatus, move

Q, R, W = RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING
MODEL = {(Q, R), (R, W)} | {(R, end) for end in ENDED} | {(Q, RunStatus.CANCELLED), (Q, RunStatus.INTERRUPTED)}
MODEL |= {(W, RunStatus.SUCCEEDED), (W, RunStatus.CANCELLED), (W, RunStatus.TIMED_OUT)}


def test_the_table_names_every_status_once():
    assert set(LEGAL_MOVES) == set(RunStatus) == OPEN | ENDED
    assert {(before, after) for before, moves in LEGAL_MOVES.items() for after in moves} == MODEL


@pytest.mark.parametrize("ended", sorted(ENDED))
def test_a_run_that_ended_never_moves_again(ended):
    for status in RunStatus:
        with pytest.raises(IllegalMove, match="nothing, it has ended"):
            move(ended, status)


def test_an_illegal_move_says_what_was_legal():
    with pytest.raises(IllegalMove, match="queued cannot become succeeded; it can become: cancelled, interrupted, r"):
        move(Q, RunStatus.SUCCEEDED)


class RunLife(RuleBasedStateMachine):
    """Random walks of many runs over the table, beside the counts that their user's budget keeps."""

    def __init__(self):
        super().__init__()
        self.runs = []
        self.ended_once = set()
        self.budget = UserBudget(user_id=1)

    @rule()
    def admit(self):
        assert self.budget.admit(timezone.now(), 0) == len(self.runs) + 1
        self.runs.append(Q)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), to=st.sampled_from(RunStatus))
    def send(self, data, to):
        index = data.draw(st.integers(0, len(self.runs) - 1))
        before = self.runs[index]
        counts = (self.budget.queued, self.budget.running, self.budget.waiting)
        try:
            self.runs[index] = move(before, to)
        except IllegalMove:
            assert (before, to) not in MODEL
            assert counts == (self.budget.queued, self.budget.running, self.budget.waiting)
            return
        assert (before, to) in MODEL
        self.budget.count_move(before, to)
        if not to.is_open:
            assert index not in self.ended_once
            self.ended_once.add(index)

    @invariant()
    def the_counts_are_the_runs(self):
        assert self.budget.queued == self.runs.count(Q)
        assert self.budget.running == self.runs.count(R)
        assert self.budget.waiting == self.runs.count(W)
        assert self.budget.open_runs == sum(status.is_open for status in self.runs)

    @invariant()
    def a_user_waits_for_a_turn_while_something_is_queued(self):
        assert (self.budget.turn_at is None) == (self.budget.queued == 0)


TestRunLife = RunLife.TestCase
