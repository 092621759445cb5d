"""What one run, connection or call on one path came to: the unit of all evidence. Pure and frozen."""

import enum
from dataclasses import dataclass

from apps.vocabulary import PinnedPath, UserId

LABEL_CHARACTERS = 100


class Outcome(enum.StrEnum):
    """How it ended, as far as a guard is concerned."""

    CLEAN = "clean"
    FAILED = "failed"
    SLOW = "slow"
    LEFT = "left"  # stopped by its user, or waiting for one: neither good nor bad


@dataclass(frozen=True, slots=True)
class Observation:
    """One end on one path of one seam.

    `pinned` is what was chosen when it began, `label` what it is compared with (runs of one agent are like
    each other), `own_s` the seconds that its own code took, without the model and the tools that it waited
    for; None where nobody measured. Whether it was slow is decided here, against the legacy path's frozen
    figures, so who observes says clean, failed or left.
    """

    user_id: UserId
    seam: str
    pinned: PinnedPath
    label: str
    outcome: Outcome
    own_s: float | None = None

    def __post_init__(self) -> None:
        if self.outcome is Outcome.SLOW:
            raise ValueError("slow is a judgement against the legacy path's figures; observe clean, with own_s")


@dataclass(frozen=True, slots=True)
class Violation:
    """One user's data that reached another user on this path. `what` names no content."""

    user_id: UserId
    seam: str
    pinned: PinnedPath
    what: str
