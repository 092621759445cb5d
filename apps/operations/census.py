"""Counts what a live process holds, by asking the parts that hold it: nothing is kept only to be counted."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

# Connections, runs and engines, and clean-ups that were given up and may still be at work. Threads and pools stay open
# for the process, and totals only rise: neither is a leak.
OPENED_FOR_A_USER = frozenset({"connections", "connected_users", "running", "live", "left_behind"})

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
    """Those counts that stand for things opened for a user and not closed, by the last part of their names."""
    return {name: number for name, number in counts.items() if number and name.rpartition(".")[2] in OPENED_FOR_A_USER}
