"""What a seam is, and which ones this project declares. No row is read here: a seam exists before its first
row does.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from apps.rollout.stages import Placement, Stage


class Scope(enum.StrEnum):
    """For how long one user stays on the path that was chosen."""

    RUN = "run"
    CONNECTION = "connection"
    CALL = "call"


class UnknownSeam(LookupError):  # noqa: N818 - it names what happened
    """No seam of that name is declared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seam:
    """A place where old code and its replacement can be exchanged. `legacy` and `factory` are dotted paths.

    `default_stage` holds while there is no row: `off` or `on`. `replayable` says that a finished run can be
    run again without effects, which is what `shadow` needs. `legacy_leaks` says that the old path is known
    to mix users: the console warns as long as it serves anyone. A seam serves a user by its factory only
    where all seams in `requires` do.

    `private` is the dotted path of legacy in an instance of one's own, called as `legacy` is: with it the shadow
    can tell what the factory does otherwise from what legacy keeps for everyone.

    `compare` says of two results whether they mean the same; without it, they are compared as streams of
    events. `open_work` is the dotted path of a callable that counts the work under way that is pinned on
    legacy; a seam without it cannot be retired, since nobody could tell when nothing is left.
    """

    name: str
    legacy: str
    factory: str
    scope: Scope
    default_stage: Stage = Stage.OFF
    replayable: bool = False
    legacy_leaks: bool = False
    requires: tuple[str, ...] = ()
    private: str = ""
    compare: Callable[[Any, Any], bool] | None = None
    open_work: str = ""

    def __post_init__(self) -> None:
        if self.default_stage not in {Stage.OFF, Stage.ON}:
            raise ImproperlyConfigured(
                f"seam {self.name!r}: the default stage is off or on, not {self.default_stage}; the others need a row"
            )

    @property
    def default(self) -> Placement:
        """Where the seam stands while it has no row."""
        return Placement(self.default_stage)


def declared_seams() -> Mapping[str, Seam]:
    """The seams of `TURNOUT_SEAMS`, the dotted path of a tuple of Seam, by name. Raises
    ImproperlyConfigured.
    """
    path: str | None = getattr(settings, "TURNOUT_SEAMS", None)
    if path is None:
        return {}
    try:
        seams = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"TURNOUT_SEAMS names {path!r}, which cannot be imported: {error}") from error
    if not isinstance(seams, tuple) or not all(isinstance(seam, Seam) for seam in seams):
        raise ImproperlyConfigured(f"TURNOUT_SEAMS names {path!r}; it must be a tuple of apps.rollout.seams.Seam")
    by_name = {seam.name: seam for seam in seams}
    if len(by_name) != len(seams):
        raise ImproperlyConfigured(f"TURNOUT_SEAMS: two seams of {path!r} have the same name")
    return by_name


def declared_seam(name: str) -> Seam:
    """The declared seam of that name. Raises UnknownSeam with the names that exist."""
    seams = declared_seams()
    if name not in seams:
        raise UnknownSeam(f"no seam is named {name!r}; declared are: {', '.join(sorted(seams)) or 'none'}")
    return seams[name]
