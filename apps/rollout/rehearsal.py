"""The guard before anybody trusts it: old against old, then a seeded fault, on runs that are drawn and thrown away.
Pure.

The detector, the share's estimate and the threshold are those of the guard on duty. A user who meets two bad
outcomes counts once there; here every run is another user's, so bad outcomes of few users are found later.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from apps.rollout.guardrails import Detector, estimated_share

AT_MOST_RUNS = 4_000  # of both paths, until a fault counts as not found


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is rehearsed: the factory's share, how often runs end badly, and runs in which both paths are out."""

    share: float = 0.1
    legacy_rate: float = 0.02
    factory_rate: float = 0.02
    outage: range = range(0)


@dataclass(frozen=True, slots=True)
class Alarm:
    """When a rehearsal's guard alarmed: after how many runs, and how many of them the factory's."""

    runs: int
    factory_runs: int


@dataclass(frozen=True, slots=True)
class Detection:
    """What rehearsals of one fault came to."""

    factory_rate: float
    found: int
    repeats: int
    median_factory_runs: float | None

    @property
    def missed(self) -> float:
        """The share of rehearsals in which it was not found in time."""
        return 1 - self.found / self.repeats


def outcomes(random: Random, traffic: Traffic, runs: int) -> Iterator[tuple[bool, bool]]:
    """(on the factory, ended badly) for each of `runs` runs."""
    for run in range(runs):
        on_factory = random.random() < traffic.share
        rate = traffic.factory_rate if on_factory else traffic.legacy_rate
        yield on_factory, run in traffic.outage or random.random() < rate


def first_alarm(ends: Iterator[tuple[bool, bool]], share: float, threshold: float) -> Alarm | None:
    """When the guard alarms; None when it does not."""
    detector, of_legacy, of_factory = Detector(), 0, 0
    for on_factory, bad in ends:
        if bad:
            expected = estimated_share(of_legacy, of_factory, share)
            detector = detector.bad_outcome(on_factory=on_factory, share=expected)
        of_factory += on_factory
        of_legacy += not on_factory
        if bad and detector.alarms(threshold):
            return Alarm(of_legacy + of_factory, of_factory)
    return None


def false_alarms(random: Random, traffic: Traffic, *, runs: int, repeats: int, threshold: float) -> float:
    """The share of rehearsals with equal paths in which the guard alarms within `runs` runs."""
    alarms = [first_alarm(outcomes(random, traffic, runs), traffic.share, threshold) for _ in range(repeats)]
    return sum(alarm is not None for alarm in alarms) / repeats


def detection(
    random: Random, traffic: Traffic, *, repeats: int, threshold: float, at_most: int = AT_MOST_RUNS
) -> Detection:
    """How soon a factory that ends badly at `traffic.factory_rate` is found."""
    found = [
        alarm
        for _ in range(repeats)
        if (alarm := first_alarm(outcomes(random, traffic, at_most), traffic.share, threshold)) is not None
    ]
    # What was not found in time lies above everything that was.
    needed = sorted(alarm.factory_runs for alarm in found)
    median = statistics.median_low(needed + [at_most] * (repeats - len(needed))) if 2 * len(needed) > repeats else None
    return Detection(traffic.factory_rate, len(found), repeats, median)


def evidence_course(random: Random, traffic: Traffic, runs: int) -> Sequence[tuple[int, float]]:
    """(run, logarithm of the evidence) after each bad outcome, for a picture."""
    detector, of_legacy, of_factory = Detector(), 0, 0
    course = [(0, 0.0)]
    for run, (on_factory, bad) in enumerate(outcomes(random, traffic, runs), start=1):
        if bad:
            expected = estimated_share(of_legacy, of_factory, traffic.share)
            detector = detector.bad_outcome(on_factory=on_factory, share=expected)
            course.append((run, detector.log_strength))
        of_factory += on_factory
        of_legacy += not on_factory
    return course


def rolled_back_by_rule(
    random: Random, traffic: Traffic, *, runs: int, repeats: int, rule: Callable[[list[int], list[int]], bool]
) -> float:
    """The share of rehearsals in which a rule on counts rolls back: it is asked after each run, with [runs, bad]
    of legacy and of the factory.
    """
    rolled_back = 0
    for _ in range(repeats):
        legacy, factory = [0, 0], [0, 0]
        for on_factory, bad in outcomes(random, traffic, runs):
            counts = factory if on_factory else legacy
            counts[0] += 1
            counts[1] += bad
            if rule(legacy, factory):
                rolled_back += 1
                break
    return rolled_back / repeats
