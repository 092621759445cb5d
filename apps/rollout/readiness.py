"""May the legacy code of a seam be deleted? Each line is KEPT or BROKEN, and a broken one says what to do next.

What nobody can tell is BROKEN too: missing evidence holds, it never passes.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.db import Error
from django.utils import timezone
from django.utils.module_loading import import_string

from apps.findings import CouldNotLook, Line, Report, examples
from apps.rollout.audit import Move
from apps.rollout.console import SeamView
from apps.rollout.mismatches import MismatchShape
from apps.rollout.models import LegacyReach
from apps.rollout.references import find_references
from apps.rollout.seams import Seam
from apps.rollout.stages import Stage

DAYS_AT_ON = 14.0  # two weeks: what runs once a week has run twice


@dataclass(frozen=True, slots=True)
class CodeBase:
    """The code in which references are looked for. `left_out`: files that may name the legacy path."""

    base: Path
    folders: tuple[Path, ...]
    left_out: frozenset[Path]


def readiness(name: str, days_needed: float = DAYS_AT_ON, code: CodeBase | None = None) -> Report:
    """Judge one seam. Raises UnknownSeam, and CouldNotLook when the database cannot be asked."""
    try:
        view = SeamView.read(name)
        seam = view.seam
        return Report(
            f"Rollout of {name}",
            (
                _stage(view, days_needed),
                _legacy_calls(seam, view),
                _open_work(seam),
                _references(seam, code or code_base(seam)),
                _mismatches(seam),
                _latch(view),
                _mutes(seam),
            ),
        )
    except Error as error:
        raise CouldNotLook(f"the database could not be asked: {str(error).strip() or type(error).__name__}") from error


def _stage(view: SeamView, days_needed: float) -> Line:
    name = "Served by the factory"
    if view.placement.stage.height < Stage.ON.height:
        detail = f"the stage is {view.placement}: legacy serves people"
        return Line(name, kept=False, detail=detail, next_step=f"move {view.seam.name} up to on")
    arrived = _came_to_on(view.seam.name)
    if arrived is None:
        return Line(name, kept=True, detail=f"{view.placement.stage} since it was installed")
    days = (timezone.now() - arrived.at) / timedelta(days=1)
    detail = f"{days:.1f} days at on since {arrived.at:%Y-%m-%d %H:%M} UTC, {days_needed:g} needed"
    return Line(
        name, kept=days >= days_needed, detail=detail, next_step=f"wait {max(0.0, days_needed - days):.1f} more days"
    )


def _came_to_on(name: str) -> Move | None:
    """The newest move with which the seam came to `on` from below."""
    moves = Move.objects.filter(seam=name).order_by("-version")
    return next((row for row in moves if row.went_to.stage is Stage.ON and row.came_from.stage.height < 3), None)  # noqa: PLR2004 - below on


def _legacy_calls(seam: Seam, view: SeamView) -> Line:
    reach = LegacyReach.objects.of(seam.name)
    name = "Legacy unreachable"
    if view.placement.stage.height < Stage.ON.height:
        detail = "calls are counted from on up"
        return Line(name, kept=False, detail=detail, next_step=f"move {seam.name} up to on")
    if not reach.calls:
        return Line(name, kept=True, detail="0 calls since on")
    last = f", last {reach.last_at:%Y-%m-%d %H:%M} UTC" if reach.last_at else ""
    detail = f"{reach.calls} calls since on ({reach.refused} refused){last}"
    return Line(name, kept=False, detail=detail, next_step=f"find who calls {seam.legacy}, and call the factory there")


def _open_work(seam: Seam) -> Line:
    name = "No work under way on legacy"
    if not seam.open_work:
        step = f"name a callable that counts it as `open_work` of {seam.name}"
        return Line(name, kept=False, detail="nobody can tell: the seam names no `open_work`", next_step=step)
    count: Callable[[], int] = import_string(seam.open_work)
    under_way = count()
    detail = f"{under_way} pieces of work are pinned on legacy"
    return Line(name, kept=not under_way, detail=detail, next_step="wait until they have ended")


def _references(seam: Seam, code: CodeBase) -> Line:
    name = "No references to legacy"
    unread: list[str] = []
    found = find_references(seam.legacy, code.base, code.folders, left_out=code.left_out, on_unread=unread.append)
    if found:
        detail = f"{len(found)} outside of the seam: {examples([str(reference) for reference in found])}"
        return Line(name, kept=False, detail=detail, next_step=f"take {seam.legacy} out of these files")
    if unread:
        detail = f"{len(unread)} files could not be read: {examples(unread)}"
        return Line(name, kept=False, detail=detail, next_step="make these files readable")
    return Line(name, kept=True, detail=f"{seam.legacy} is named by its seam alone")


def _mismatches(seam: Seam) -> Line:
    shapes = list(MismatchShape.objects.open(seam.name).values_list("shape", flat=True))
    detail = f"{len(shapes)} open" + (f": {examples(shapes)}" if shapes else "")
    step = "open the seam's page, and decide about each"
    return Line("No open mismatch shapes", kept=not shapes, detail=detail, next_step=step)


def _latch(view: SeamView) -> Line:
    detail = view.latched_why or "nothing is latched"
    step = "find the cause, then acknowledge the breach with a reason"
    return Line("No latched breach", kept=not view.latched_why, detail=detail, next_step=step)


def _mutes(seam: Seam) -> Line:
    shapes = list(MismatchShape.objects.expired_mutes(seam.name).values_list("shape", flat=True))
    detail = f"{len(shapes)} past their end" + (f": {examples(shapes)}" if shapes else "")
    return Line("Mutes are in force", kept=not shapes, detail=detail, next_step="renew each mute, or end it")


def code_base(seam: Seam) -> CodeBase:
    """The project's own code: its installed apps and the package of its settings, below BASE_DIR."""
    base = Path(getattr(settings, "BASE_DIR", Path.cwd())).resolve()
    folders = {Path(app.path).resolve() for app in apps.get_app_configs()}
    declared = [settings.SETTINGS_MODULE, getattr(settings, "TURNOUT_SEAMS", "").rpartition(".")[0]]
    declaring = set(_files_of(declared))
    folders |= {path.parent for path in declaring}
    own = [
        folder
        for folder in folders
        if folder.is_relative_to(base) and not {".venv", "site-packages"} & set(folder.parts)
    ]
    outermost = tuple(
        sorted(one for one in own if not any(one != other and one.is_relative_to(other) for other in own))
    )
    return CodeBase(base, outermost, frozenset(declaring | set(_files_of(_modules_of(seam.legacy)))))


def _files_of(modules: Iterable[str]) -> Iterable[Path]:
    for name in modules:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file:
            yield Path(file).resolve()


def _modules_of(path: str) -> list[str]:
    """The module that defines a dotted path, which may lead into a class: the longest part that is a module."""
    parts = path.split(".")
    candidates = [".".join(parts[:cut]) for cut in range(len(parts) - 1, 0, -1)]
    return next(([name] for name in candidates if name in sys.modules), [])
