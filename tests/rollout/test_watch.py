import logging
import threading
from decimal import Decimal
from random import Random

import pytest
from django.db import connections, transaction

from apps.rollout.audit import Move
from apps.rollout.console import SeamView
from apps.rollout.evidence import Baseline, GuardState, ObservedEnd
from apps.rollout.guardrails import GuardLimits
from apps.rollout.moves import acknowledge, move
from apps.rollout.observations import Observation, Outcome, Violation
from apps.rollout.stages import Placement, SeamLatched, Stage, StaleStage
from apps.rollout.testing import override_stage
from apps.rollout.watch import Watch
from apps.vocabulary import PinnedPath, UserId
from tests.rollout.paths import BILLING, SEARCH

pytestmark = pytest.mark.django_db

RAMP = Placement.of(Stage.RAMP, Decimal(10))


@pytest.fixture
def watch():
    return Watch(GuardLimits(), "1.0")


def standing(seam=BILLING):
    return SeamView.read(seam.name)


def go_to(anna, stage, seam=BILLING, percent=None):
    return move(seam.name, standing(seam).version, Placement.of(stage, percent), anna, "next step")


def ended(user, path, outcome=Outcome.CLEAN, seam=BILLING, own_s=None, version=None):
    pinned = PinnedPath(path, standing(seam).version if version is None else version)
    return Observation(UserId(user), seam.name, pinned, "assistant", outcome, own_s)


def fail_until_moved(watch, path="factory", seam=BILLING, at_most=50, share=10, **fields):
    """Runs of `share` users on legacy between two of the factory; how many of the factory's it took."""
    before = standing(seam).version
    for number in range(1, at_most + 1):
        watch.observe([ended(1_000 * number + user, "legacy", seam=seam) for user in range(share)])
        watch.observe([ended(number, path, Outcome.FAILED, seam=seam, **fields)])
        if standing(seam).version != before:
            return number
    return None


def test_a_factory_that_always_fails_is_moved_down_and_latched(watch, anna):
    go_to(anna, Stage.RAMP, percent=Decimal(10))
    assert 2 <= fail_until_moved(watch) <= 8
    view = standing()
    assert (view.placement.stage, view.moves[0].by_name) == (Stage.OFF, "guard")
    assert view.latched_why.startswith("failures: ")
    with pytest.raises(SeamLatched):
        go_to(anna, Stage.RAMP, percent=Decimal(10))
    acknowledge(BILLING.name, view.version, anna, "the cause is found")
    go_to(anna, Stage.RAMP, percent=Decimal(10))


def test_a_factory_worse_than_a_legacy_path_that_leaks_is_moved_down_from_a_ramp(watch):
    with override_stage(SEARCH.name, Stage.RAMP, Decimal(10)):
        fail_until_moved(watch, seam=SEARCH)
        assert standing(SEARCH).placement.stage is Stage.OFF


def test_one_user_whose_every_run_fails_moves_nobody(watch, anna):
    go_to(anna, Stage.RAMP, percent=Decimal(10))
    for _ in range(40):
        watch.observe([ended(user, "legacy") for user in range(100, 110)])
        watch.observe([ended(7, "factory", Outcome.FAILED)])
    assert standing().placement == RAMP
    assert GuardState.objects.get().bad_outcomes == 1


def test_an_outage_on_both_paths_moves_nobody(watch, anna):
    go_to(anna, Stage.RAMP, percent=Decimal(10))
    random = Random(20_260)
    watch.observe([ended(user, "factory" if random.random() < 0.1 else "legacy") for user in range(500)])
    outage = [ended(user, "factory" if random.random() < 0.1 else "legacy", Outcome.FAILED) for user in range(30)]
    watch.observe(outage)
    assert standing().placement == RAMP
    assert GuardState.objects.get().bad_outcomes == 30


def test_failing_legacy_runs_move_nobody_to_legacy(watch, anna):
    go_to(anna, Stage.RAMP, percent=Decimal(50))
    watch.observe([ended(user, "factory") for user in range(100, 120)])
    watch.observe([ended(user, "legacy", Outcome.FAILED) for user in range(60)])
    assert standing().placement.stage is Stage.RAMP


def test_runs_that_were_pinned_before_the_stage_moved_count_for_nothing(watch, anna):
    go_to(anna, Stage.RAMP, percent=Decimal(10))
    pinned_before = standing().version
    go_to(anna, Stage.RAMP, percent=Decimal(20))
    assert fail_until_moved(watch, version=pinned_before) is None
    assert not GuardState.objects.exists()


def test_evidence_starts_anew_when_the_stage_was_moved(watch, anna):
    go_to(anna, Stage.RAMP, percent=Decimal(10))
    watch.observe([ended(user, "legacy") for user in range(100, 130)])
    watch.observe([ended(1, "factory", Outcome.FAILED), ended(2, "factory", Outcome.FAILED)])
    go_to(anna, Stage.RAMP, percent=Decimal(11))
    watch.observe([ended(3, "factory", Outcome.FAILED)])
    assert GuardState.objects.get().bad_outcomes == 1


def baseline(watch, failures=0, runs=200, own_s=1.0):
    watch.observe(
        [
            ended(user, "legacy", Outcome.FAILED if user < failures else Outcome.CLEAN, own_s=own_s)
            for user in range(runs)
        ]
    )


def test_at_on_the_factory_is_held_to_what_legacy_did_before(watch, anna):
    baseline(watch, failures=4)
    go_to(anna, Stage.ON)
    watch.observe([ended(user, "factory") for user in range(300)])
    needed = fail_until_moved(watch, share=0)
    assert 2 <= needed <= 6
    assert standing().placement.stage is Stage.OFF


def test_at_on_a_factory_that_fails_as_often_as_legacy_did_stays(watch, anna):
    baseline(watch, failures=4)
    go_to(anna, Stage.ON)
    random = Random(20_260)
    for user in range(2_000):
        outcome = Outcome.FAILED if random.random() < 0.02 else Outcome.CLEAN
        watch.observe([ended(user, "factory", outcome)])
    assert standing().placement.stage is Stage.ON


def test_without_any_legacy_run_there_is_nothing_to_be_held_to(watch):
    with override_stage(BILLING.name, Stage.ON):
        assert fail_until_moved(watch, share=0) is None
        assert Baseline.objects.get().failure_rate is None


def test_a_run_is_slow_when_its_own_time_exceeds_what_legacy_took(watch, anna):
    baseline(watch, own_s=1.0)
    go_to(anna, Stage.RAMP, percent=Decimal(10))
    watch.observe([ended(1, "factory", own_s=1.0), ended(2, "factory", own_s=1.1), ended(3, "legacy", own_s=9)])
    watch.observe([ended(4, "factory")])
    stored = dict(ObservedEnd.objects.filter(version=1).values_list("user_id", "outcome"))
    assert stored == {1: "clean", 2: "slow", 3: "slow", 4: "clean"}


def test_a_slow_factory_is_moved_down_and_the_reason_says_so(watch, anna):
    baseline(watch, own_s=1.0)
    go_to(anna, Stage.RAMP, percent=Decimal(10))
    before = standing().version
    for number in range(20):
        watch.observe([ended(1_000 + 10 * number + user, "legacy", own_s=0.9) for user in range(10)])
        watch.observe([ended(number, "factory", own_s=2)])
    assert standing().version > before
    assert standing().latched_why.startswith("slow runs: ")


def test_legacys_figures_are_frozen_while_the_factory_serves_and_made_anew_afterwards(watch, anna):
    baseline(watch, own_s=1.0)
    go_to(anna, Stage.RAMP, percent=Decimal(10))
    watch.observe([ended(user, "legacy", own_s=5.0) for user in range(300)])
    assert Baseline.objects.get().p95_ms == {"assistant": 1_000.0}
    go_to(anna, Stage.OFF)
    watch.observe([ended(1, "legacy", own_s=5.0)])
    assert not Baseline.objects.exists()


def test_a_violation_of_the_factory_path_moves_the_seam_off_at_once(watch, anna):
    go_to(anna, Stage.RAMP, percent=Decimal(10))
    watch.violation(Violation(UserId(1), BILLING.name, PinnedPath("factory", 1), "an event in another's stream"))
    assert standing().placement.stage is Stage.OFF
    assert "isolation" in standing().latched_why


def test_a_violation_of_the_legacy_path_is_counted_and_moves_and_latches_nothing(watch, anna):
    go_to(anna, Stage.RAMP, percent=Decimal(10))
    watch.violation(Violation(UserId(1), BILLING.name, PinnedPath("legacy", 1), "an event in another's stream"))
    assert (standing().placement, standing().latched_why) == (RAMP, "")
    assert GuardState.objects.get().legacy_violations == 1


def test_a_seam_whose_legacy_leaks_stays_on_and_rings_the_alarm(watch, anna):
    with override_stage(SEARCH.name, Stage.OFF):
        watch.observe([ended(user, "legacy", seam=SEARCH) for user in range(200)])
        with override_stage(SEARCH.name, Stage.ON):
            assert fail_until_moved(watch, seam=SEARCH, share=0)
            view = standing(SEARCH)
            assert view.placement.stage is Stage.ON
            assert view.latched_why.startswith("failures: ")
            assert watch.refusals([SEARCH.name]) == {}
            assert fail_until_moved(watch, seam=SEARCH, share=0) is None  # one alarm, not one a run


def test_a_seam_whose_legacy_leaks_refuses_work_after_a_violation_until_a_person_decides(watch, anna):
    violation = Violation(UserId(1), SEARCH.name, PinnedPath("factory", 0), "an event in another's stream")
    watch.violation(violation)
    assert standing(SEARCH).placement.stage is Stage.ON
    assert "isolation" in watch.refusals([SEARCH.name, BILLING.name])[SEARCH.name]
    acknowledge(SEARCH.name, standing(SEARCH).version, anna, "looked into it")
    assert watch.refusals([SEARCH.name]) == {}


def test_a_violation_refuses_work_even_where_the_alarm_rings_already(watch, anna):
    violation = Violation(UserId(1), SEARCH.name, PinnedPath("factory", 0), "an event in another's stream")
    watch.violation(violation)
    GuardState.objects.update(refusing="")
    watch.violation(violation)
    assert watch.refusals([SEARCH.name])


def test_whoever_moves_the_seam_first_wins_and_the_other_is_told(watch, anna, ben):
    go_to(anna, Stage.RAMP, percent=Decimal(10))
    seen = standing().version
    fail_until_moved(watch)
    with pytest.raises(StaleStage, match="moved by guard: failures"):
        move(BILLING.name, seen, Placement(Stage.ON), ben, "looks good")
    assert Move.objects.filter(seam=BILLING.name).count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_two_people_and_the_guard_at_once_the_guard_has_the_last_word_and_who_lost_is_told(watch, anna, ben):
    go_to(anna, Stage.RAMP, percent=Decimal(10))
    seen = standing().version
    violation = Violation(UserId(1), BILLING.name, PinnedPath("factory", seen), "an event in another's stream")
    start = threading.Barrier(3)
    told: list[str] = []
    won: list[str] = []
    failed: list[Exception] = []

    def go_up(person, placement):
        try:
            move(BILLING.name, seen, placement, person, f"{person.name} goes up")
            won.append(person.name)
        except StaleStage as faster:
            told.append(str(faster))

    def take_down():
        with transaction.atomic():
            watch.violation(violation)

    def at_once(act, *arguments):
        try:
            start.wait()
            act(*arguments)
        except Exception as error:  # noqa: BLE001 - nobody is above a thread: looked at below
            failed.append(error)
        finally:
            connections.close_all()

    acts = [(go_up, anna, Placement(Stage.ON)), (go_up, ben, Placement.of(Stage.RAMP, Decimal(50))), (take_down,)]
    threads = [threading.Thread(target=at_once, args=act) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    view = standing()
    assert (view.placement.stage, view.moves[0].by_name) == (Stage.OFF, "guard")
    assert view.latched_why
    assert len(won) <= 1
    assert len(told) == 2 - len(won)
    assert all("was moved since you looked" in text for text in told)
    movers = [each.by_name for each in Move.objects.filter(seam=BILLING.name).order_by("version")]
    assert movers == ["anna", *won, "guard"], "a row for each who won, none for who was told"


def test_a_guard_that_fails_is_reported_and_takes_nothing_of_the_runs_end_with_it(anna, caplog):
    def no_starts(*_):
        raise ZeroDivisionError

    watch = Watch(GuardLimits(), "1.0", count_starts=no_starts)
    go_to(anna, Stage.RAMP, percent=Decimal(10))
    with caplog.at_level(logging.ERROR):
        watch.observe([ended(1, "factory", Outcome.FAILED)])
    assert "could not judge" in caplog.text
    assert standing().placement == RAMP
    assert [model.objects.count() for model in (GuardState, ObservedEnd)] == [0, 0]  # nothing half done is left


def test_ends_of_seams_that_are_not_declared_are_passed_over(watch):
    watch.observe([Observation(UserId(1), "gone", PinnedPath("factory", 1), "x", Outcome.FAILED)])
    assert not ObservedEnd.objects.exists()


def test_the_verdict_counts_clean_runs_of_this_release_from_enough_users(watch, anna):
    go_to(anna, Stage.RAMP, percent=Decimal(10))
    Watch(GuardLimits(), "0.9").observe([ended(user, "factory") for user in range(100)])
    watch.observe([ended(user % 6, "factory") for user in range(24)])
    watch.observe([ended(9, "factory", Outcome.LEFT)])
    assert str(watch.judgement(BILLING.name)) == "not yet: 41 more clean runs"
    watch.observe([ended(user % 6, "factory") for user in range(41)])
    assert str(watch.judgement(BILLING.name)) == "holds"


def test_the_newest_ends_of_each_seam_are_kept(watch):
    for seam in (BILLING, SEARCH):
        watch.observe([ended(user, "factory", seam=seam) for user in range(10)])
    assert ObservedEnd.objects.all().keep_newest(4) == 12
    assert list(ObservedEnd.objects.at(SEARCH.name).order_by("pk").values_list("user_id", flat=True)) == [6, 7, 8, 9]
    assert ObservedEnd.objects.all().keep_newest(4) == 0
