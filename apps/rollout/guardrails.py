"""Whether the new path is worse than the old one, and whether enough was seen to go on. Pure.

A threshold on a ratio is wrong at the traffic of a chat: looked at after every run, it calls a healthy path
broken sooner or later. Here each rate (failures, slow runs) has a detector that only bad outcomes move. As
long as both paths are equally bad, a bad outcome is the new path's with the probability `share`, its share of
the starts; then the factor by which a bad outcome multiplies the evidence has mean 1 for every ratio r that
is tried, whatever the error rate is, and whatever befalls both paths at once. This is the e-detector of Shin,
Ramdas and Rinaldo (2024), in its form of a CUSUM, mixed over six ratios; compare Lindon, Sanden and
Shirikian, arXiv 2205.14762. Cost: O(1) a bad outcome, nothing for a clean one.

The bound. The sum of all evidence ever begun, less the number of bad outcomes, is a martingale that the
detector never exceeds: equal paths alarm within n bad outcomes with a probability of at most n / threshold.
"""

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

RATIOS = (1.5, 2.0, 4.0, 8.0, 16.0, 50.0)  # how much worse the new path may be; each is tried
LEAST_EXPECTED = 0.001  # a baseline below it counts as this: nothing rarer was ever measured


class Verdict(enum.StrEnum):
    """What the evidence says. What is missing holds a seam where it is; it never lets it pass."""

    BREACH = "breach"
    HOLDS = "holds"
    NOT_YET = "not yet"


@dataclass(frozen=True, slots=True)
class Detector:
    """The evidence of one rate of one seam, as logarithms, one for each of RATIOS.

    They start at 0 and stay finite: a factor is between 1/50 and 50 times what its share makes of it, and
    nothing here is ever exponentiated beyond what a float holds.
    """

    evidence: tuple[float, ...] = (0.0,) * len(RATIOS)

    def bad_outcome(self, *, on_factory: bool, share: float) -> Self:
        """The evidence after one more bad outcome, while the factory had this share of the recent starts.

        Raises ValueError for a share that is none, or is 0 where the factory served the run.
        """
        if not 0 <= share <= 1 or (on_factory and share == 0) or (not on_factory and share == 1):
            raise ValueError(f"a share of {share} cannot be: it is 0 to 1, and both paths have what they served")
        return type(self)(
            tuple(
                max(0.0, old) + log_factor(ratio, on_factory=on_factory, share=share)
                for ratio, old in zip(RATIOS, self.evidence, strict=True)
            )
        )

    def bad_after_clean(self, *, clean_runs: int, expected: float) -> Self:
        """The evidence after one more bad outcome of the factory, where no legacy run is left beside it.

        `expected` is legacy's own rate, frozen while it served; `clean_runs` ended well since the last bad
        outcome. Weaker than a comparison: what befalls everyone at once looks like the factory's doing.
        """
        rate = min(max(expected, LEAST_EXPECTED), 1.0)
        after: list[float] = []
        for ratio, old in zip(RATIOS, self.evidence, strict=True):
            worse = min(ratio * rate, (1.0 + rate) / 2)  # a rate is below 1 however large the ratio
            if worse <= rate:
                after.append(0.0)  # everything fails already: nothing can be told apart
                continue
            before = max(0.0, old) + clean_runs * math.log((1 - worse) / (1 - rate))
            after.append(max(0.0, before) + math.log(worse / rate))
        return type(self)(tuple(after))

    @property
    def log_strength(self) -> float:
        """The logarithm of the evidence, averaged over the ratios."""
        largest = max(self.evidence)
        return largest + math.log(sum(math.exp(each - largest) for each in self.evidence) / len(self.evidence))

    def alarms(self, threshold: float) -> bool:
        """Whether the evidence has reached the threshold."""
        return self.log_strength >= math.log(threshold)

    def as_list(self) -> list[float]:
        """The state as JSON values; `from_list` reads it."""
        return list(self.evidence)

    @classmethod
    def from_list(cls, values: Sequence[float]) -> Self:
        """Read what `as_list` wrote. A list of another length is of another set of ratios: evidence starts
        anew.
        """
        usable = len(values) == len(RATIOS) and all(math.isfinite(value) for value in values)
        return cls(tuple(float(value) for value in values)) if usable else cls()


def log_factor(ratio: float, *, on_factory: bool, share: float) -> float:
    """The logarithm of what one bad outcome multiplies the evidence for `ratio` by. The factor has mean 1
    while both paths are equally bad.
    """
    return (math.log(ratio) if on_factory else 0.0) - math.log(1 - share + share * ratio)


def estimated_share(legacy_starts: int, factory_starts: int, expected: float | None = None) -> float:
    """The factory's share, from the recent starts. Never 0 or 1: a share that is estimated too low makes alarms
    out of nothing.

    `expected` is the share that the stage gives, where it alone decides: it counts as much as ten starts,
    since the first few of a ramp say little. Without it, half a start is added for each path.
    """
    weight, share = (1.0, 0.5) if expected is None else (10.0, min(max(expected, 0.01), 0.99))
    return (factory_starts + weight * share) / (legacy_starts + factory_starts + weight)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of the factory on the release that is judged."""

    clean_runs: int = 0
    failed_runs: int = 0
    users: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLimits:
    """When a guard alarms, and what a seam must show before it goes up.

    `alarm_at` is for one guard; with two guards each alarms at twice that. `failure_limit` is the rate that
    must be ruled out, `evidence_needed` the betting odds against it.
    """

    alarm_at: float = 1_000.0
    failure_limit: float = 0.05
    evidence_needed: float = 20.0
    users_needed: int = 5
    recent_starts: int = 1_000  # runs that say which share of the traffic the factory has
    baseline_runs: int = 5_000  # newest legacy runs that its frozen figures are made of

    def __post_init__(self) -> None:
        if not 0 < self.failure_limit < 1 or self.alarm_at <= 1 or self.evidence_needed <= 1:
            raise ValueError("failure_limit lies between 0 and 1; alarm_at and evidence_needed above 1")

    def threshold(self, guards: int) -> float:
        """What the evidence of each of `guards` detectors must reach, so that the bound holds for all."""
        return self.alarm_at * guards


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with what it rests on, in words; `missing_runs` and `missing_users` belong to "not yet"."""

    verdict: Verdict
    missing_runs: int = 0
    missing_users: int = 0
    reason: str = ""

    def __str__(self) -> str:
        match self.verdict:
            case Verdict.BREACH:
                return f"breach: {self.reason}"
            case Verdict.HOLDS:
                return "holds"
        wanted = [_counted(self.missing_runs, "more clean run"), _counted(self.missing_users, "more user")]
        return f"not yet: {' and '.join(text for text in wanted if text) or self.reason}"


def judge(seen: Evidence | None, limits: GuardLimits, breach: str = "") -> Judgement:
    """What the evidence says of going up. `seen` is None where it could not be read: that holds the seam."""
    if breach:
        return Judgement(Verdict.BREACH, reason=breach)
    if seen is None:
        return Judgement(Verdict.NOT_YET, reason="what was seen so far could not be read")
    missing = missing_clean_runs(seen, limits)
    users = max(0, limits.users_needed - seen.users)
    return Judgement(Verdict.NOT_YET if missing or users else Verdict.HOLDS, missing, users)


def log_evidence_against(seen: Evidence, failure_limit: float) -> float:
    """The logarithm of the odds against "fails at least as often as the limit", bet on a tenth of it."""
    hoped = failure_limit / 10
    clean = math.log((1 - hoped) / (1 - failure_limit))
    return seen.clean_runs * clean + seen.failed_runs * math.log(hoped / failure_limit)


def missing_clean_runs(seen: Evidence, limits: GuardLimits) -> int:
    """How many more clean runs in a row would be enough. 0 when it is enough."""
    clean = log_evidence_against(Evidence(clean_runs=1), limits.failure_limit)
    wanted = math.log(limits.evidence_needed) - log_evidence_against(seen, limits.failure_limit)
    return max(0, math.ceil(wanted / clean - 1e-9))


def percentile_95(values: Iterable[float]) -> float | None:
    """The value that 95 % do not exceed; None below 20 values, where it would be the largest of a few."""
    ordered = sorted(values)
    return ordered[math.ceil(0.95 * len(ordered)) - 1] if len(ordered) >= 20 else None  # noqa: PLR2004 - a twentieth


def upper_rate(bad: int, runs: int) -> float:
    """A rate that the true one exceeds in one of forty cases (Agresti and Coull): a baseline that is too low
    would make alarms out of nothing.
    """
    trials = runs + 4
    middle = (bad + 2) / trials
    return min(1.0, middle + 2 * math.sqrt(middle * (1 - middle) / trials))


def detectors_from(stored: Mapping[str, Sequence[float]], names: Iterable[str]) -> dict[str, Detector]:
    """The detectors of these names, out of what was stored of them."""
    return {name: Detector.from_list(stored.get(name, ())) for name in names}


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}" if number else ""
