"""What happened at a seam, as numbers over time that can be drawn. Pure: rows in, one frozen picture out."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from apps.rollout.comparison import Result
from apps.rollout.observations import Outcome

BUCKETS = 24
WINDOWS = (timedelta(hours=1), timedelta(hours=6), timedelta(hours=24), timedelta(days=7), timedelta(days=30))

Path = Literal["legacy", "factory"]


@dataclass(frozen=True, slots=True)
class End:
    """One end on one path; `own_ms` without the model and the tools that it waited for."""

    at: datetime
    path: str
    outcome: str
    own_ms: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """One path in one stretch of time; None where nothing was measured."""

    runs: int = 0
    failed: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None

    @property
    def failed_percent(self) -> float | None:
        """Failures among its runs; None where it had none."""
        return 100 * self.failed / self.runs if self.runs else None


@dataclass(frozen=True, slots=True)
class Stretch:
    """One stretch of time: both paths, and what comparisons came to."""

    begin: datetime
    legacy: Figures = field(default_factory=Figures)
    factory: Figures = field(default_factory=Figures)
    results: tuple[tuple[str, int], ...] = ()

    @property
    def factory_percent(self) -> float | None:
        """The factory's share of the runs; None where nobody ran."""
        runs = self.legacy.runs + self.factory.runs
        return 100 * self.factory.runs / runs if runs else None

    def compared(self, result: Result) -> int:
        """How often comparisons came to this result."""
        return dict(self.results).get(result.value, 0)


@dataclass(frozen=True, slots=True)
class Mark:
    """A move of the stage, to be marked where it was."""

    at: datetime
    label: str


@dataclass(frozen=True, slots=True)
class Picture:
    """From `begin` to `end` in stretches of one length, oldest first, and both paths over all of it."""

    begin: datetime
    end: datetime
    stretches: tuple[Stretch, ...]
    marks: tuple[Mark, ...]
    legacy: Figures
    factory: Figures

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not (self.legacy.runs or self.factory.runs or any(stretch.results for stretch in self.stretches))

    def place(self, at: datetime) -> float:
        """Where a moment lies, 0 at the beginning and 1 at the end."""
        return (at - self.begin) / (self.end - self.begin)


def picture_of(
    ends: Sequence[End], results: Iterable[tuple[datetime, str, int]], moves: Iterable[Mark], now: datetime
) -> Picture:
    """The picture of the shortest window that holds all of `ends`. Results are counted by the hour."""
    oldest = min((end.at for end in ends), default=now - WINDOWS[2])
    window = next((each for each in WINDOWS if now - oldest <= each), WINDOWS[-1])
    begin, length = now - window, window / BUCKETS
    sorted_ends: list[list[End]] = [[] for _ in range(BUCKETS)]
    for end in ends:
        if begin <= end.at <= now:
            sorted_ends[_bucket(end.at - begin, length)].append(end)
    counted = [Counter[str]() for _ in range(BUCKETS)]
    for hour, result, number in results:
        if hour + timedelta(hours=1) > begin and hour <= now:
            counted[_bucket(max(hour - begin, timedelta()), length)][result] += number
    stretches = tuple(
        Stretch(
            begin + number * length,
            figures_of(mine, "legacy"),
            figures_of(mine, "factory"),
            tuple(sorted(counted[number].items())),
        )
        for number, mine in enumerate(sorted_ends)
    )
    shown = tuple(mark for mark in moves if begin <= mark.at <= now)
    return Picture(begin, now, stretches, shown, figures_of(ends, "legacy"), figures_of(ends, "factory"))


def figures_of(ends: Iterable[End], path: Path) -> Figures:
    """The figures of one path; runs that were left by their users are neither good nor bad, and not counted."""
    mine = [end for end in ends if end.path == path and end.outcome != Outcome.LEFT]
    times = sorted(end.own_ms for end in mine if end.own_ms is not None and end.outcome != Outcome.FAILED)
    failed = sum(end.outcome == Outcome.FAILED for end in mine)
    return Figures(len(mine), failed, percentile(times, 0.5), percentile(times, 0.95))


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of the ordered values do not exceed; None of nothing."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else None


def _bucket(since: timedelta, length: timedelta) -> int:
    return min(int(since / length), BUCKETS - 1)
