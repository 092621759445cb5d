"""Which stages there are, which moves between them are legal, and which users a share of a ramp holds. Pure.

All that decides who is served by what stands in this file: no row, clock or random number is read here.
"""

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Self

from apps.vocabulary import UserId

BUCKETS = 10_000  # a share is a number of these, so that 0.01 % is the finest step


class Stage(enum.StrEnum):
    """How far a seam has come. The order of the members is the way up."""

    OFF = "off"
    SHADOW = "shadow"
    RAMP = "ramp"
    ON = "on"
    RETIRED = "retired"

    @property
    def height(self) -> int:
        """0 for `off`, rising to `retired`."""
        return tuple(Stage).index(self)

    @property
    def everyone(self) -> bool | None:
        """What waffle's `everyone` says at this stage, where active means "served by the factory"."""
        return EVERYONE[self]


EVERYONE: Mapping[Stage, bool | None] = {
    Stage.OFF: False,
    Stage.SHADOW: False,
    Stage.RAMP: None,
    Stage.ON: True,
    Stage.RETIRED: True,
}

# The way down is open from everywhere but `retired`: there the legacy code may be gone already, so the way
# back leads through `on`, where reaching it is possible again.
LEGAL_MOVES: Mapping[Stage, frozenset[Stage]] = {
    Stage.OFF: frozenset({Stage.SHADOW, Stage.RAMP, Stage.ON}),
    Stage.SHADOW: frozenset({Stage.OFF, Stage.RAMP, Stage.ON}),
    Stage.RAMP: frozenset({Stage.OFF, Stage.SHADOW, Stage.RAMP, Stage.ON}),
    Stage.ON: frozenset({Stage.OFF, Stage.SHADOW, Stage.RAMP, Stage.RETIRED}),
    Stage.RETIRED: frozenset({Stage.ON}),
}


class MoveRefused(Exception):  # noqa: N818 - a refusal is an answer, not a fault
    """A stage that was not moved; the message says why, and what is accepted. Nothing was changed."""


class IllegalMove(MoveRefused):
    """The table knows no such move, or the stage asked for cannot be served here."""


class ReasonMissing(MoveRefused):
    """A move without a reason: the audit row would not say why."""


class IllegalShare(MoveRefused):
    """A share that is not from 0 to 100 percent in steps of 0.01, or a share where no ramp is."""


class StaleStage(MoveRefused):
    """Someone else moved the seam since the mover looked; the message says who, to what and why."""


class SeamLatched(MoveRefused):
    """An automatic move took the seam down, and no person has acknowledged it yet: it cannot go up."""


class MoverKind(enum.Enum):
    """What kind of mover it is. Automation moves down only, and latches what it moved."""

    PERSON = enum.auto()
    OPERATOR = enum.auto()  # someone with a shell on this installation
    WAFFLE = enum.auto()  # code that wrote `everyone` or `percent`
    AUTOMATION = enum.auto()


@dataclass(frozen=True, slots=True)
class Mover:
    """Who moves a stage, as the audit row keeps it, and what they may do.

    `rights` holds permission names; `user_id` is None for what is no user.
    """

    kind: MoverKind
    name: str
    user_id: UserId | None = None
    rights: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Placement:
    """A stage with its share: the share belongs to `ramp`, and is 0 at every other stage. Raises
    IllegalShare.
    """

    stage: Stage
    share_buckets: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share_buckets <= BUCKETS:
            raise IllegalShare(f"a share is 0 to {BUCKETS} buckets, not {self.share_buckets}")
        if self.share_buckets and self.stage is not Stage.RAMP:
            raise IllegalShare(f"a share belongs to the stage ramp; {self.stage} serves all users alike")

    @classmethod
    def of(cls, stage: Stage, percent: Decimal | None = None) -> Self:
        """The placement a person asks for, in percent. `ramp` needs one (0 serves the chosen users only)."""
        if percent is None:
            if stage is Stage.RAMP:
                raise IllegalShare("the stage ramp needs a share: give a percentage from 0 to 100")
            return cls(stage)
        buckets = percent * BUCKETS / 100
        if not percent.is_finite() or not 0 <= percent <= 100 or buckets != int(buckets):  # noqa: PLR2004 - percent
            raise IllegalShare(f"a share is 0 to 100 percent in steps of 0.01, not {percent}")
        return cls(stage, int(buckets))

    @property
    def percent(self) -> Decimal:
        """The share in percent, exact."""
        return Decimal(self.share_buckets) * 100 / BUCKETS

    def is_above(self, other: "Placement") -> bool:
        """Whether going from `other` to this one is a move up: more users served by the factory, or less
        legacy.
        """
        return (self.stage.height, self.share_buckets) > (other.stage.height, other.share_buckets)

    def __str__(self) -> str:
        return f"{self.stage} at {self.percent.normalize():f} %" if self.stage is Stage.RAMP else str(self.stage)


def check_reason(why: str) -> str:
    """The reason without the space around it. Raises ReasonMissing when nothing is left."""
    if not why.strip():
        raise ReasonMissing("a move needs a reason: it is what the next person reads at three in the morning")
    return why.strip()


def check_move(now: Placement, to: Placement, by: MoverKind) -> None:
    """Let a legal move pass. Raises IllegalMove with the moves that are legal."""
    if now == to:
        raise IllegalMove(f"the stage is {now} already")
    if to.stage not in LEGAL_MOVES[now.stage]:
        legal = ", ".join(stage for stage in Stage if stage in LEGAL_MOVES[now.stage])
        raise IllegalMove(f"no move leads from {now.stage} to {to.stage}; from {now.stage} go to: {legal}")
    if by is MoverKind.AUTOMATION and to.is_above(now):
        raise IllegalMove(f"automation only moves down; from {now} to {to} a person decides")


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one user at one seam. `chosen`: named by the flag's users, groups or staff."""

    bucket: int | None  # None for a visitor without an id, who is in no share
    denied: bool = False
    chosen: bool = False


def bucket_of(seam: str, salt: str, user_id: UserId) -> int:
    """The bucket, 0 to 9,999, in which this user always is at this seam.

    Each part is preceded by its length: with a mere separator the seam `a:b` with the salt `c` and the seam
    `a` with the salt `b:c` would draw the same users.
    """
    parts = (part.encode() for part in (seam, salt, str(user_id)))
    digest = hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def path_for(placement: Placement, standing: Standing) -> Literal["legacy", "factory"]:
    """Who serves this user. The deny list beats all but `retired`, where there is no legacy to go to."""
    if placement.stage is Stage.RETIRED:
        return "factory"
    if standing.denied:
        return "legacy"
    if placement.stage is Stage.RAMP:
        in_share = standing.bucket is not None and standing.bucket < placement.share_buckets
        return "factory" if in_share or standing.chosen else "legacy"
    return "factory" if placement.stage is Stage.ON else "legacy"
