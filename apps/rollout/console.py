"""What people see of a seam, gathered into one frozen object: the pages and their templates compute
nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from django.conf import settings
from django.contrib.auth import get_user_model
from django.utils import timezone
from django.utils.module_loading import import_string
from waffle import get_waffle_flag_model

from apps.rollout.audit import DeniedUser, Move
from apps.rollout.comparison import Result
from apps.rollout.drawing import Panel, panels_of
from apps.rollout.evidence import ObservedEnd
from apps.rollout.guardrails import GuardLimits, Judgement, judge
from apps.rollout.mismatches import ComparisonCount, Mismatch, MismatchShape
from apps.rollout.models import AbstractSeamFlag
from apps.rollout.picture import End, Mark, Picture, picture_of
from apps.rollout.reach import LegacyReach
from apps.rollout.seams import Seam, declared_seam, declared_seams
from apps.rollout.stages import LEGAL_MOVES, Placement, Stage

SHOWN_MOVES = 50  # rows of the audit trail on a seam's page
SHOWN_ENDS = 5_000  # newest ends that the picture is drawn from
SHOWN_SHAPES = 30
SHOWN_USERS = 50


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
        if self.latched_why:
            return f"{self.seam.name} is latched at {self.placement}: {self.latched_why}."
        return ""

    @property
    def targets(self) -> tuple[Stage, ...]:
        """The stages that a move may lead to from here."""
        return tuple(stage for stage in Stage if stage in LEGAL_MOVES[self.placement.stage])


def warnings() -> list[tuple[str, str]]:
    """What every page of the console says first: the seam's name and the text, for each seam that needs it."""
    return [(view.seam.name, view.warning) for view in all_seams() if view.warning]


def all_seams() -> tuple[SeamView, ...]:
    """Every declared seam, by name."""
    return tuple(SeamView.read(name) for name in sorted(declared_seams()))


@dataclass(frozen=True, slots=True)
class ShapeView:
    """One way in which the paths differ, with the newest example of it."""

    row: MismatchShape
    example: Mismatch | None


@dataclass(frozen=True, slots=True)
class Served:
    """A user and the path that served them last."""

    user_id: int
    name: str
    path: str
    outcome: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ConsoleView:
    """All that the page of one seam shows, read once: the answer, the picture, the rows."""

    seam: SeamView
    judgement: Judgement
    missing: str
    picture: Picture
    panels: tuple[Panel, ...]
    shapes: tuple[ShapeView, ...]
    served: tuple[Served, ...]
    denied: tuple[DeniedUser, ...]

    @classmethod
    def read(cls, name: str) -> Self:
        """Read everything of one seam. Raises UnknownSeam."""
        seam = SeamView.read(name)
        judgement = judgement_of(name)
        picture = _picture(seam)
        return cls(
            seam=seam,
            judgement=judgement,
            missing=_missing(seam, judgement),
            picture=picture,
            panels=() if picture.is_empty else panels_of(picture),
            shapes=_shapes(name),
            served=_served(name),
            denied=tuple(DeniedUser.objects.filter(seam=name).order_by("-at")[:SHOWN_USERS]),
        )

    @property
    def verdict(self) -> str:
        """One word or two: what the evidence says of the factory, where there is any to be gathered."""
        gathers = self.seam.placement.stage in {Stage.RAMP, Stage.ON} or self.seam.latched_why
        return self.judgement.verdict.value if gathers else "no verdict"

    @property
    def headline(self) -> str:
        """Stage, share, verdict, and what is missing, in one line."""
        return f"{self.seam.placement} \N{MIDDLE DOT} {self.verdict} \N{MIDDLE DOT} {self.missing}"


def judgement_of(seam: str) -> Judgement:
    """The verdict on a seam, by the callable that TURNOUT_JUDGEMENT names; else by the usual limits."""
    path: str | None = getattr(settings, "TURNOUT_JUDGEMENT", None)
    if path is None:
        row = SeamView.read(seam)
        return judge(ObservedEnd.objects.evidence(seam, ""), GuardLimits(), row.latched_why)
    asked: Callable[[str], Judgement] = import_string(path)
    return asked(seam)


def _missing(seam: SeamView, judgement: Judgement) -> str:
    """What stands between this stage and the next, in words."""
    if seam.latched_why:
        return "a person must acknowledge why it was taken down"
    shapes = MismatchShape.objects.open(seam.seam.name).count()
    differing = f"{shapes} open {'shape' if shapes == 1 else 'shapes'} of mismatch below" if shapes else ""
    match seam.placement.stage:
        case Stage.OFF:
            return "a reason is all that a move up needs" + (", and shadow compares first" * seam.seam.replayable)
        case Stage.SHADOW:
            compared = sum(ComparisonCount.objects.totals(seam.seam.name).values())
            return differing or ("the comparison holds" if compared else "nothing has been compared yet")
        case Stage.RAMP:
            wanted = str(judgement).partition(": ")[2]
            return "; ".join(filter(None, (wanted, differing))) or "a person decides"
        case Stage.ON:
            calls = LegacyReach.objects.of(seam.seam.name).calls
            reached = f", reached {calls} times since" if calls else ", not reached since"
            return f"guarded by legacy's frozen figures alone, which is weaker; legacy{reached}"
        case Stage.RETIRED:
            refused = LegacyReach.objects.of(seam.seam.name).refused
            return f"legacy was reached and refused {refused} times" if refused else "the old code may be deleted"


def _picture(seam: SeamView) -> Picture:
    now, name = timezone.now(), seam.seam.name
    rows = ObservedEnd.objects.at(name).order_by("-pk").values_list("at", "path", "outcome", "own_ms")
    ends = [End(*row) for row in rows[:SHOWN_ENDS]]
    since = now - timedelta(days=30)
    results = ComparisonCount.objects.filter(seam=name, hour__gte=since).values_list("hour", "result", "number")
    marks = [Mark(move.at, f"{move.act}: {move.went_to}, by {move.by_name}") for move in seam.moves]
    return picture_of(ends, results, marks, now)


def _shapes(name: str) -> tuple[ShapeView, ...]:
    rows = MismatchShape.objects.at(name).exclude(result=Result.IGNORED).order_by("-last_at")[:SHOWN_SHAPES]
    return tuple(ShapeView(row, row.examples.order_by("-pk").first()) for row in rows)


def _served(name: str) -> tuple[Served, ...]:
    rows = ObservedEnd.objects.at(name).order_by("-pk").values_list("user_id", "path", "outcome", "at")
    newest: dict[int, tuple[str, str, datetime]] = {}
    for user_id, path, outcome, at in rows[:SHOWN_ENDS]:
        if len(newest) < SHOWN_USERS:
            newest.setdefault(user_id, (path, outcome, at))
    users = get_user_model()._default_manager.filter(pk__in=newest)  # noqa: SLF001 - the public way to any manager
    names = {user.pk: user.get_username() for user in users}
    return tuple(Served(user_id, names.get(user_id, ""), *last) for user_id, last in newest.items())
