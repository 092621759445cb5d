"""Which processes are gone, judged by their leases. Pure: what was seen and when are arguments.

A lease is a counter that its process counts up. No clocks are compared: whoever looks notes, by a clock of their own,
since when they see one value. That alone ends a process which hangs, or is cut off from the database, after `ttl_s`. A
process that died is noticed sooner, since the system has then given its lock back: the lock is free, and the counter
stands still for `dead_s`. The lock alone would not do, for a connection that breaks gives it back too, and its process
takes it again; the counter alone would not do, for every process is slow at times.

Only looks that follow each other closely, at a database that takes the looker's own beat, count: while the database is
away nobody can renew anything, and nobody must be ended for that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from apps.execution.limits import LeaseLimits

LOOKS_MISSED = 3  # so many intervals between two looks, and nothing is known of what was between them


@dataclass(frozen=True, slots=True)
class Gone:
    """A process that will not come back to its runs. `beat` is None where runs name a process without a lease."""

    process_id: str
    beat: int | None
    why: str


@dataclass(slots=True)
class _Seen:
    beat: int | None
    since: float


class LeaseWatch:
    """What one process has seen of the leases of all others. `own` is never judged."""

    def __init__(self, limits: LeaseLimits, own: str) -> None:
        self._limits = limits
        self._own = own
        self._seen: dict[str, _Seen] = {}
        self._last_look: float | None = None

    def __repr__(self) -> str:
        return f"<LeaseWatch of {len(self._seen)} others>"

    @property
    def others(self) -> int:
        """Other processes whose leases, or whose runs without one, were there at the last look."""
        return len(self._seen)

    def interrupted(self) -> None:
        """A look failed, or was not taken: whatever stood still before it is counted anew."""
        self._last_look = None

    def look(self, now: float, beats: Mapping[str, int | None], is_free: Callable[[str], bool]) -> Sequence[Gone]:
        """Take what the database shows at `now` (seconds of any clock that only rises), and say who is gone.

        `beats` holds every lease, and None for each process that has running runs and no lease. `is_free` tells
        whether the lock of a process is held by nobody; it is asked only of those that stood still for `dead_s`.
        Whoever was named is forgotten: if it is still there, it is counted anew.
        """
        continued = self._last_look is not None and now - self._last_look <= LOOKS_MISSED * self._limits.renew_s
        self._last_look = now
        seen: dict[str, _Seen] = {}
        for process_id, beat in beats.items():
            before = self._seen.get(process_id) if continued else None
            if process_id != self._own:
                seen[process_id] = before if before is not None and before.beat == beat else _Seen(beat, now)
        self._seen = seen
        gone = [
            Gone(process_id, what.beat, why)
            for process_id, what in seen.items()
            if (why := self._verdict(process_id, what.beat, now - what.since, is_free))
        ]
        for one in gone:
            del self._seen[one.process_id]
        return gone

    def _verdict(self, process_id: str, beat: int | None, still_s: float, is_free: Callable[[str], bool]) -> str:
        if still_s < self._limits.dead_s:
            return ""
        if beat is None:
            return "it holds no lease"
        if still_s >= self._limits.ttl_s:
            return f"its lease stands still for {still_s:.1f} s"
        if is_free(process_id):
            return f"its lock is free and its lease stands still for {still_s:.1f} s"
        return ""
