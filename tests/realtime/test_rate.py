"""The pace of one connection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from apps.realtime.rate import Pace, TokenBucket


def test_a_whole_burst_is_within_then_a_whole_burst_is_over_then_it_is_far_over():
    bucket = TokenBucket(rate_per_s=10, burst=3, now=0)
    assert [bucket.take(1, 0) for _ in range(7)] == [Pace.WITHIN] * 3 + [Pace.OVER] * 3 + [Pace.FAR_OVER]


def test_who_waits_as_told_is_within_again():
    bucket = TokenBucket(rate_per_s=10, burst=3, now=0)
    for _ in range(5):
        bucket.take(1, 0)
    wait = bucket.wait_s(1)
    assert wait == pytest.approx(0.3)
    assert bucket.take(1, wait + 1e-9) is Pace.WITHIN


def test_silence_earns_one_burst_and_no_more():
    bucket = TokenBucket(rate_per_s=10, burst=3, now=0)
    assert [bucket.take(1, 1_000_000) for _ in range(4)] == [Pace.WITHIN] * 3 + [Pace.OVER]


def test_who_does_not_owe_anything_need_not_wait():
    assert TokenBucket(rate_per_s=10, burst=3, now=0).wait_s(1) == 0


@given(st.lists(st.floats(0, 0.5), max_size=50))
def test_who_keeps_to_the_rate_is_never_over(gaps):
    bucket, now = TokenBucket(rate_per_s=10, burst=1, now=0), 0.0
    for gap in gaps:
        now += 0.1001 + gap
        assert bucket.take(1, now) is Pace.WITHIN


class BucketMachine(RuleBasedStateMachine):
    """Whatever the client does, it gets no more than its burst and what time brings."""

    def __init__(self):
        super().__init__()
        self.now, self.within, self.let_through = 0.0, 0.0, 0.0
        self.bucket = TokenBucket(rate_per_s=4, burst=5, now=0)

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds):
        self.now += seconds

    @rule(cost=st.sampled_from([1, 0.25]))
    def take(self, cost):
        pace = self.bucket.take(cost, self.now)
        self.within += cost * (pace is Pace.WITHIN)
        self.let_through += cost * (pace is not Pace.FAR_OVER)

    @invariant()
    def is_bounded(self):
        earned = self.now * 4 + 1e-6
        assert self.within <= 5 + earned
        assert self.let_through <= 10 + earned


TestBucket = BucketMachine.TestCase
