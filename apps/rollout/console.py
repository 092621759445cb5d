"""What people see of a seam, gathered into one frozen object: the pages and their templates compute
nothing.
"""

from dataclasses import dataclass
from typing import Self

from waffle import get_waffle_flag_model

from apps.rollout.audit import Move
from apps.rollout.models import AbstractSeamFlag
from apps.rollout.seams import Seam, declared_seam, declared_seams
from apps.rollout.stages import LEGAL_MOVES, Placement, Stage

SHOWN_MOVES = 50  # rows of the audit trail on a seam's page


@dataclass(frozen=True, slots=True)
class SeamView:
    """One seam as it stands: the answer first, then what is wrong with it, then how it came there."""

    seam: Seam
    flag_id: int | None
    placement: Placement
    version: int
    latched_why: str
    moves: tuple[Move, ...]

    @classmethod
    def read(cls, name: str) -> Self:
        """Read the rows of one seam. Raises UnknownSeam."""
        seam = declared_seam(name)
        model: type[AbstractSeamFlag] = get_waffle_flag_model()
        row = model.objects.filter(name=name).first()
        return cls(
            seam=seam,
            flag_id=row.pk if row else None,
            placement=(row and row.placement) or seam.default,
            version=row.version if row else 0,
            latched_why=row.latched_why if row else "",
            moves=tuple(Move.objects.filter(seam=name)[:SHOWN_MOVES]),
        )

    @property
    def answer(self) -> str:
        """Who is served by what, in one sentence."""
        share = f"the chosen users and {self.placement.percent.normalize():f} % of all others"
        return {
            Stage.OFF: "Everyone is served by the legacy path.",
            Stage.SHADOW: "Everyone is served by the legacy path; the factory replays it.",
            Stage.RAMP: f"The factory serves {share}; everyone else is served by the legacy path.",
            Stage.ON: "Everyone is served by the factory.",
            Stage.RETIRED: "Everyone is served by the factory; reaching the legacy path is an error.",
        }[self.placement.stage]

    @property
    def warning(self) -> str:
        """Empty, or why this stage is dangerous."""
        if self.seam.legacy_leaks and self.placement.stage.height < Stage.ON.height:
            return (
                f"{self.seam.name} is {self.placement}: its legacy path is known to show one user's data to others. "
                "Every user it serves is at risk until the stage is on."
            )
        return ""

    @property
    def targets(self) -> tuple[Stage, ...]:
        """The stages that a move may lead to from here."""
        return tuple(stage for stage in Stage if stage in LEGAL_MOVES[self.placement.stage])


def all_seams() -> tuple[SeamView, ...]:
    """Every declared seam, by name."""
    return tuple(SeamView.read(name) for name in sorted(declared_seams()))
