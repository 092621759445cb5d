import json
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.rollout.guardrails import (
    RATIOS,
    Detector,
    Evidence,
    GuardLimits,
    Verdict,
    detectors_from,
    estimated_share,
    judge,
    log_factor,
    missing_clean_runs,
    percentile_95,
    upper_rate,
)

LIMITS = GuardLimits()
shares = st.floats(min_value=0.001, max_value=0.999)


def alarm_within(random, runs, *, legacy_rate, factory_rate, share=0.1, threshold=1_000.0):
    """(runs, runs of the factory) at the alarm; None when there was none. The share is estimated as the guard does."""
    detector, of_factory = Detector(), 0
    for run in range(1, runs + 1):
        on_factory = random.random() < share
        estimated = estimated_share(run - 1 - of_factory, of_factory, share)
        of_factory += on_factory
        if random.random() < (factory_rate if on_factory else legacy_rate):
            detector = detector.bad_outcome(on_factory=on_factory, share=estimated)
            if detector.alarms(threshold):
                return run, of_factory
    return None


@given(ratio=st.sampled_from(RATIOS), share=shares)
def test_while_both_paths_are_equally_bad_a_bad_outcome_multiplies_the_evidence_by_one_on_average(ratio, share):
    on_factory = math.exp(log_factor(ratio, on_factory=True, share=share))
    on_legacy = math.exp(log_factor(ratio, on_factory=False, share=share))
    assert share * on_factory + (1 - share) * on_legacy == pytest.approx(1)


@given(expected=st.floats(min_value=0.001, max_value=0.9), ratio=st.sampled_from(RATIOS))
def test_without_legacy_beside_it_a_run_multiplies_the_evidence_by_one_on_average_at_legacys_rate(expected, ratio):
    index = RATIOS.index(ratio)
    bad = math.exp(Detector().bad_after_clean(clean_runs=0, expected=expected).evidence[index])
    worse = bad * expected
    assert expected * bad + (1 - expected) * (1 - worse) / (1 - expected) == pytest.approx(1)
    assert bad >= 1


def test_a_clean_run_lowers_what_a_bad_one_raised_and_never_below_nothing():
    bad = Detector().bad_after_clean(clean_runs=0, expected=0.02)
    soon, late = (bad.bad_after_clean(clean_runs=clean, expected=0.02) for clean in (1, 100_000))
    assert soon.log_strength > late.log_strength
    assert late.evidence == pytest.approx(bad.evidence)


def test_equal_paths_alarm_within_the_stated_bound():
    random, repeats, runs, rate = Random(20_260), 300, 20_000, 0.02
    alarms = 0
    for _ in range(repeats):
        detector = Detector()
        for _ in range(sum(random.random() < rate for _ in range(runs // 10)) * 10):
            detector = detector.bad_outcome(on_factory=random.random() < 0.1, share=0.1)
            if detector.alarms(1_000):
                alarms += 1
                break
    stated = runs * rate / 1_000
    print(f"{alarms} false alarms in {repeats} repeats, at most {stated:.0%} of them stated")
    assert 0 < alarms / repeats < stated / 2


@pytest.mark.parametrize(("rate", "most"), [(1.0, 4), (0.3, 20), (0.1, 110)])
def test_a_broken_factory_is_found_after_a_median_of(rate, most):
    random = Random(20_260)
    found = [alarm_within(random, 20_000, legacy_rate=0.02, factory_rate=rate) for _ in range(101)]
    needed = sorted(of_factory for _, of_factory in filter(None, found))
    assert needed[50] <= most


def test_what_befalls_both_paths_at_once_moves_nothing():
    random, alarms = Random(20_260), 0
    for _ in range(300):
        detector = Detector()
        for _ in range(30):
            detector = detector.bad_outcome(on_factory=random.random() < 0.1, share=0.1)
        alarms += detector.alarms(1_000)
    assert alarms <= 9  # 30 bad outcomes: at most 3 % are stated


@given(st.lists(st.tuples(st.booleans(), shares), max_size=300))
def test_evidence_stays_finite_and_survives_being_stored(outcomes):
    detector = Detector()
    for on_factory, share in outcomes * 5:
        detector = detector.bad_outcome(on_factory=on_factory, share=share)
    stored = json.loads(json.dumps({"failures": detector.as_list()}, allow_nan=False))
    assert detectors_from(stored, ["failures", "slow runs"]) == {"failures": detector, "slow runs": Detector()}
    assert math.isfinite(detector.log_strength)


@given(st.lists(st.booleans(), max_size=60), st.floats(min_value=0.01, max_value=0.99))
def test_the_evidence_is_that_of_the_definition_written_down_plainly(outcomes, share):
    evidence = dict.fromkeys(RATIOS, 0.0)
    detector = Detector()
    for new in outcomes:
        detector = detector.bad_outcome(on_factory=new, share=share)
        for r in RATIOS:
            evidence[r] = max(0, evidence[r]) + (math.log(r) if new else 0) - math.log(1 - share + share * r)
    assert detector.evidence == pytest.approx(tuple(evidence.values()))
    mean = sum(math.exp(value) for value in evidence.values()) / len(RATIOS) if max(evidence.values()) < 700 else None
    assert mean is None or math.exp(detector.log_strength) == pytest.approx(mean)


def test_ten_thousand_bad_outcomes_of_the_factory_overflow_nothing():
    detector = Detector()
    for _ in range(10_000):
        detector = detector.bad_outcome(on_factory=True, share=0.001)
    assert detector.alarms(1e300)


@pytest.mark.parametrize(("on_factory", "share"), [(True, 0), (False, 1), (True, -0.1), (True, 1.1), (True, math.nan)])
def test_a_share_that_cannot_be_is_refused(on_factory, share):
    with pytest.raises(ValueError, match="cannot be"):
        Detector().bad_outcome(on_factory=on_factory, share=share)


def test_evidence_of_another_set_of_ratios_or_a_damaged_one_starts_anew():
    assert Detector.from_list([1.0, 2.0]) == Detector.from_list([math.inf] * 6) == Detector()


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.none() | st.floats(0, 1))
def test_an_estimated_share_is_never_none_or_all(legacy, factory, expected):
    assert 0 < estimated_share(legacy, factory, expected) < 1


def test_the_share_of_the_stage_helps_while_little_was_seen_and_is_overruled_by_what_was():
    assert estimated_share(8, 2, 0.1) == pytest.approx(0.15)
    assert estimated_share(500, 500, 0.1) == pytest.approx(0.5, abs=0.01)


def test_as_many_clean_runs_are_asked_for_as_the_limit_needs():
    assert missing_clean_runs(Evidence(), LIMITS) == 65
    assert missing_clean_runs(Evidence(), GuardLimits(failure_limit=0.02)) == 165


@given(st.integers(0, 2_000), st.integers(0, 40))
def test_the_missing_runs_are_exactly_enough(clean, failed):
    missing = missing_clean_runs(Evidence(clean, failed, 9), LIMITS)
    after = Evidence(clean + missing, failed, 9)
    assert judge(after, LIMITS).verdict is Verdict.HOLDS
    if missing:
        assert judge(Evidence(clean + missing - 1, failed, 9), LIMITS).missing_runs == 1


def test_the_verdict_says_what_is_missing():
    assert str(judge(Evidence(24, 0, 9), LIMITS)) == "not yet: 41 more clean runs"
    assert str(judge(Evidence(65, 0, 4), LIMITS)) == "not yet: 1 more user"
    assert str(judge(Evidence(64, 0, 3), LIMITS)) == "not yet: 1 more clean run and 2 more users"
    assert str(judge(Evidence(65, 0, 5), LIMITS)) == "holds"


def test_a_breach_or_missing_evidence_never_passes():
    plenty = Evidence(10_000, 0, 50)
    assert str(judge(plenty, LIMITS, "failures: too many")) == "breach: failures: too many"
    assert judge(None, LIMITS).verdict is judge(Evidence(), LIMITS).verdict is Verdict.NOT_YET


@given(st.integers(0, 500), st.integers(0, 500))
def test_a_baseline_is_never_taken_for_better_than_it_was(bad, clean):
    runs = bad + clean
    assert upper_rate(bad, runs) >= (bad / runs if runs else 0)
    assert upper_rate(bad, runs) <= 1


def test_a_95th_percentile_needs_twenty_values():
    assert percentile_95(range(1, 20)) is None
    assert percentile_95(range(100, 0, -1)) == 95


@pytest.mark.parametrize("wrong", [{"failure_limit": 0}, {"failure_limit": 1}, {"alarm_at": 1}, {"evidence_needed": 1}])
def test_limits_that_would_pass_everything_are_refused(wrong):
    with pytest.raises(ValueError, match="lies between"):
        GuardLimits(**wrong)
