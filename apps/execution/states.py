"""The life of a run, as a table. All of a run's moves are legal by this file or do not happen. Pure.

`queued -> interrupted` stands for a run whose ledger was found closed when it was claimed: it can never log
an event. A `waiting` run has its terminal event already (an `interrupt` outcome); what becomes of it is told
by the new run that an approval starts, or by `turnout.interrupt.closed`.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType


class RunStatus(enum.StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"

    @property
    def is_open(self) -> bool:
        """True while the run counts against its user's budget."""
        return self in OPEN


LEGAL_MOVES: Mapping[RunStatus, frozenset[RunStatus]] = MappingProxyType(
    {
        RunStatus.QUEUED: frozenset({RunStatus.RUNNING, RunStatus.CANCELLED, RunStatus.INTERRUPTED}),
        RunStatus.RUNNING: frozenset(
            {
                RunStatus.WAITING,
                RunStatus.SUCCEEDED,
                RunStatus.FAILED,
                RunStatus.CANCELLED,
                RunStatus.TIMED_OUT,
                RunStatus.INTERRUPTED,
            }
        ),
        RunStatus.WAITING: frozenset({RunStatus.SUCCEEDED, RunStatus.CANCELLED, RunStatus.TIMED_OUT}),
        RunStatus.SUCCEEDED: frozenset(),
        RunStatus.FAILED: frozenset(),
        RunStatus.CANCELLED: frozenset(),
        RunStatus.TIMED_OUT: frozenset(),
        RunStatus.INTERRUPTED: frozenset(),
    }
)
OPEN = frozenset({RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING})
ENDED = frozenset(RunStatus) - OPEN


class IllegalMove(ValueError):  # noqa: N818 - names what was tried
    """A run cannot go from where it stands to where it was sent; the message says where it can go."""


def move(current: RunStatus, to: RunStatus) -> RunStatus:
    """The status after a legal move. Raises IllegalMove, which says what was legal; nothing has changed then."""
    if to not in LEGAL_MOVES[current]:
        legal = ", ".join(sorted(LEGAL_MOVES[current])) or "nothing, it has ended"
        raise IllegalMove(f"a run that is {current} cannot become {to}; it can become: {legal}")
    return to
