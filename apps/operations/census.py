"""Counts what a live process holds, by asking the parts that hold it: nothing is kept only to be counted."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

Census = Callable[[], Mapping[str, int]]


@runtime_checkable
class Counted(Protocol):
    """A part that says what it holds: a name ending in `_total` only rises, any other is held now."""

    def census(self) -> Mapping[str, int]:
        """Counts by name, read at once and without waiting."""
        ...


def census_of(**parts: Counted) -> Census:
    """One census of all parts, its names prefixed by the part's: `executor.running`.

    The order of the parts is kept, so that two reports can be read beside each other.
    """

    def count() -> Mapping[str, int]:
        return {
            f"{part}.{name}": number for part, counted in parts.items() for name, number in counted.census().items()
        }

    return count


def held(counts: Mapping[str, int]) -> dict[str, int]:
    """Those counts that stand for something open now: not the totals, and not what is at 0."""
    return {name: number for name, number in counts.items() if number and not name.endswith("_total")}
