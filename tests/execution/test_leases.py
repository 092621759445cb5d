from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from apps.execution.leases import Gone, LeaseWatch
from apps.execution.limits import LeaseLimits

LIMITS = LeaseLimits(renew_s=0.5, dead_s=2.0, hold_s=10.0, ttl_s=15.0)


def nobody_is_free(_process_id):
    return False


def everybody_is_free(_process_id):
    return True


def looks(watch, *beats_at, is_free=everybody_is_free):
    """The first verdict of these looks, (time, beats), and when it fell."""
    for now, beats in beats_at:
        if gone := watch.look(now, beats, is_free):
            return now, gone
    return None


def every_half_second(seconds, beats):
    return [(number / 2, beats) for number in range(int(seconds * 2) + 1)]


def test_a_dead_process_is_noticed_when_its_lock_is_free_and_its_lease_stood_still():
    watch = LeaseWatch(LIMITS, "me")
    assert looks(watch, *every_half_second(60, {"other": 7})) == (
        2.0,
        [Gone("other", 7, "its lock is free and its lease stands still for 2.0 s")],
    )


def test_a_process_that_hangs_has_the_time_to_live_and_no_more():
    watch = LeaseWatch(LIMITS, "me")
    assert looks(watch, *every_half_second(60, {"other": 7}), is_free=nobody_is_free) == (
        15.0,
        [Gone("other", 7, "its lease stands still for 15.0 s")],
    )


def test_runs_that_name_a_process_without_a_lease_are_noticed_too():
    watch = LeaseWatch(LIMITS, "me")
    verdict = looks(watch, *every_half_second(60, {"": None}), is_free=nobody_is_free)
    assert verdict == (2.0, [Gone("", None, "it holds no lease")])


def test_a_lease_that_moves_is_never_taken_whoever_holds_the_lock():
    watch = LeaseWatch(LIMITS, "me")
    assert not looks(watch, *[(number / 2, {"other": number // 3}) for number in range(1_000)])


def test_the_own_lease_is_not_judged():
    assert not looks(LeaseWatch(LIMITS, "me"), *every_half_second(60, {"me": 7}))


def test_while_the_database_is_away_nobody_is_ended_and_afterwards_everybody_is_counted_anew():
    watch = LeaseWatch(LIMITS, "me")
    assert not looks(watch, (0.0, {"other": 7}), (1.5, {"other": 7}))
    watch.interrupted()  # a look that failed
    assert not looks(watch, (2.0, {"other": 7}), (3.5, {"other": 7}))
    assert looks(watch, (4.0, {"other": 7}))


def test_a_look_long_after_the_last_one_says_nothing_of_what_was_between():
    watch = LeaseWatch(LIMITS, "me")
    assert not looks(watch, (0.0, {"other": 7}), (100.0, {"other": 7}))


def test_who_was_named_is_counted_anew():
    watch = LeaseWatch(LIMITS, "me")
    assert looks(watch, *every_half_second(60, {"other": 7}))
    assert watch.others == 0
    assert not looks(watch, (2.5, {"other": 7}), (4.0, {"other": 7}))
    assert looks(watch, (4.5, {"other": 7}))


@dataclass
class _Process:
    beat: int = 0
    alive: bool = True
    beat_at: float = 0.0
    died_at: float | None = None


@dataclass
class _World:
    now: float = 0.0
    database: bool = True
    healthy_since: float = 0.0
    gone_at: float = 0.0
    processes: dict[str, _Process] = field(default_factory=dict)


class LeaseMachine(RuleBasedStateMachine):
    """Processes that beat, hang and die, beside an observer, while the database comes and goes."""

    @initialize()
    def begin(self):
        self.world = _World()
        self.watch = LeaseWatch(LIMITS, "me")
        self.taken = []

    @rule(name=st.sampled_from("abc"))
    def process_starts(self, name):
        self.world.processes.setdefault(name, _Process(beat_at=self.world.now))

    @rule(name=st.sampled_from("abc"))
    def process_dies(self, name):
        process = self.world.processes.get(name)
        if process is not None and process.alive:
            process.alive, process.died_at = False, self.world.now

    @rule()
    def database_goes(self):
        if self.world.database:
            self.world.database, self.world.gone_at = False, self.world.now

    @rule()
    def database_comes(self):
        if not self.world.database:
            self.world.database = True
            if self.world.now > self.world.gone_at:
                self.world.healthy_since = self.world.now

    @rule(steps=st.integers(1, 12), slow=st.sets(st.sampled_from("abc")))
    def time_passes(self, steps, slow):
        """Half a second a step: whoever lives, is not slow, and finds the database, beats; the observer looks."""
        for _ in range(steps):
            self.world.now += 0.5
            if not self.world.database:
                self.watch.interrupted()
                continue
            for name, process in self.world.processes.items():
                if process.alive and name not in slow:
                    process.beat += 1
                    process.beat_at = self.world.now
            beats = {name: process.beat for name, process in self.world.processes.items()}
            for gone in self.watch.look(self.world.now, beats, lambda name: not self.world.processes[name].alive):
                self.taken.append((self.world.now, gone, self.world.processes.pop(gone.process_id)))

    @invariant()
    def nobody_is_taken_who_was_silent_for_less_than_was_promised(self):
        for now, gone, process in self.taken:
            silent_s = now - max(process.beat_at, self.world.healthy_since)
            assert silent_s >= (LIMITS.ttl_s if process.alive else LIMITS.dead_s), gone
        self.taken.clear()

    @invariant()
    def the_dead_are_taken_in_time(self):
        for process in self.world.processes.values():
            if not process.alive and self.world.database:
                began = max(process.died_at, self.world.healthy_since)
                assert self.world.now - began <= LIMITS.dead_s + 2 * LIMITS.renew_s


LeaseMachine.TestCase.settings = settings(stateful_step_count=40)
TestLeaseMachine = LeaseMachine.TestCase
