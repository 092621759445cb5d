"""What Django's system checks say of the rollout: settings that make a switch lie, and seams that lead
nowhere.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from waffle import get_waffle_flag_model

from apps.rollout.adapter import resolve
from apps.rollout.models import AbstractSeamFlag
from apps.rollout.seams import Seam, declared_seams


def check_seams(**_: Any) -> list[CheckMessage]:
    """The declared seams can be read, and the old code that each of them names exists."""
    try:
        seams = declared_seams()
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="TURNOUT_SEAMS is the dotted path of a tuple of Seam", id="turnout.E101")]
    found: list[CheckMessage] = []
    for seam in seams.values():
        found += _check_legacy(seam)
        for unknown in set(seam.requires) - seams.keys():
            message = f"seam {seam.name!r} requires {unknown!r}, which is not declared"
            found.append(Error(message, hint="declare it, or take it out of `requires`", id="turnout.E103"))
    return found


def _check_legacy(seam: Seam) -> list[CheckMessage]:
    try:
        resolve(seam.legacy)
    except ImproperlyConfigured as error:
        hint = "correct the path, or delete the seam's declaration together with the old code"
        return [Error(f"seam {seam.name!r} has no legacy path: {error}", hint=hint, id="turnout.E102")]
    return []


def check_waffle_settings(**_: Any) -> list[CheckMessage]:
    """Waffle's settings do not let a visitor choose flags, and the flag model can hold a stage."""
    found: list[CheckMessage] = []
    if not issubclass(get_waffle_flag_model(), AbstractSeamFlag):
        message = f"WAFFLE_FLAG_MODEL is {settings.WAFFLE_FLAG_MODEL!r}, which cannot hold the stage of a seam"
        hint = "use rollout.Flag or a subclass of AbstractSeamFlag, before the first migration"
        found.append(Error(message, hint=hint, id="turnout.E104"))
    if getattr(settings, "WAFFLE_OVERRIDE", False):
        message = "WAFFLE_OVERRIDE lets any visitor switch ordinary flags by a query string (never a seam)"
        found.append(CheckWarning(message, hint="set it to False", id="turnout.W101"))
    if getattr(settings, "WAFFLE_CREATE_MISSING_FLAGS", False):
        message = "WAFFLE_CREATE_MISSING_FLAGS writes a row for each misspelt flag that anyone asks for"
        found.append(CheckWarning(message, hint="set it to False", id="turnout.W102"))
    return found


def check_rows(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """The rows agree with the declarations. Runs with `migrate` and `check --database`."""
    model = get_waffle_flag_model()
    if not issubclass(model, AbstractSeamFlag):
        return []
    found: list[CheckMessage] = []
    table = model._meta.db_table  # noqa: SLF001 - documented
    for alias in databases or ():
        if table in connections[alias].introspection.table_names():  # not before the first migration
            found += _check_rows_of(model.objects.using(alias).only("name", "stage", "testing"))
    return found


def _check_rows_of(flags: Iterable[AbstractSeamFlag]) -> Iterable[CheckMessage]:
    declared = declared_seams()
    for flag in flags:
        if flag.stage and flag.name not in declared:
            message = f"the flag {flag.name!r} holds the stage of a seam that is not declared"
            hint = "declare the seam in TURNOUT_SEAMS, or delete the flag"
            yield CheckWarning(message, hint=hint, id="turnout.W103")
        if flag.testing and flag.name not in declared and not settings.DEBUG:
            message = f"the flag {flag.name!r} is in testing mode: ?dwft_{flag.name}=1 switches it for any visitor"
            yield CheckWarning(message, hint="switch testing mode off in production", id="turnout.W104")
