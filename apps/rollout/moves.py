"""The one call that moves a stage. Admin page, command line and guardrail all make it, with who and why."""

import getpass
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin
from django.utils.module_loading import import_string
from waffle import get_waffle_flag_model

from apps.rollout.audit import Move
from apps.rollout.models import AbstractSeamFlag, SeamFlagQuerySet
from apps.rollout.seams import Seam, declared_seam
from apps.rollout.stages import IllegalMove, Mover, MoveRefused, MoverKind, Placement, Stage
from apps.vocabulary import UserId

MOVE_STAGE = "rollout.move_stage"
RETIRE_SEAM = "rollout.retire_seam"
ACKNOWLEDGE_BREACH = "rollout.acknowledge_breach"
RIGHTS = frozenset({MOVE_STAGE, RETIRE_SEAM, ACKNOWLEDGE_BREACH})


class MoveNotAllowed(MoveRefused):
    """The mover does not have the right that this move needs."""


def person(user: AbstractBaseUser | AnonymousUser) -> Mover:
    """A user of this site, with the rights that Django's permissions give them."""
    rights = frozenset(right for right in RIGHTS if isinstance(user, PermissionsMixin) and user.has_perm(right))
    user_id = UserId(user.pk) if user.pk is not None else None
    return Mover(MoverKind.PERSON, user.get_username(), user_id, rights)


def operator() -> Mover:
    """Whoever runs this process from a shell; who can do that can write the database anyway."""
    try:
        login = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        login = f"uid {os.getuid()}"
    return Mover(MoverKind.OPERATOR, f"{login} (command line)", None, RIGHTS)


def move(
    seam: str,
    expected_version: int,
    to: Placement,
    by: Mover,
    why: str,
    numbers: Mapping[str, Any] = MappingProxyType({}),
) -> Move:
    """Move the seam of that name to `to`, if it still is at `expected_version` (0: never moved).

    Down beats up: a move down that was overtaken by moves up alone is carried out all the same. It holds from
    the next claim on, in every process; runs that were claimed before keep their path. `numbers` go into the
    audit row, which is returned. Raises UnknownSeam, MoveNotAllowed, ReasonMissing, IllegalMove, SeamLatched
    or StaleStage, and then nothing was changed.
    """
    declared = declared_seam(seam)
    _require(by, RETIRE_SEAM if to.stage is Stage.RETIRED else MOVE_STAGE)
    if refusal := why_not_served(declared, to.stage):
        raise IllegalMove(f"{seam} cannot go to {to.stage}: {refusal}")
    return _flags().compare_and_move(declared, expected_version, to, by, why, numbers)


def alarm(seam: str, expected_version: int, by: Mover, why: str) -> Move:
    """Latch a seam where it stands, so that people see that something is wrong and decide. Raises as `move`."""
    return _flags().compare_and_latch(declared_seam(seam), expected_version, by, why)


def acknowledge(seam: str, expected_version: int, by: Mover, why: str) -> Move:
    """Unlatch a seam that automation took down, so that people can move it up again. Raises as `move`."""
    declared = declared_seam(seam)
    _require(by, ACKNOWLEDGE_BREACH)
    return _flags().compare_and_unlatch(declared, expected_version, by, why)


def reshuffle(seam: str, expected_version: int, by: Mover, why: str) -> Move:
    """Draw anew which users the share of a ramp holds: who was in it may be out from the next claim on.

    The stage and the share stay. Raises as `move`.
    """
    declared = declared_seam(seam)
    _require(by, MOVE_STAGE)
    return _flags().compare_and_reshuffle(declared, expected_version, by, why)


def why_not_served(seam: Seam, stage: Stage) -> str:
    """Empty, or why this seam cannot stand at this stage now, and what would help."""
    if stage is Stage.SHADOW and not seam.replayable:
        return (
            "it is not declared `replayable`, so running the factory beside legacy could act twice; "
            "declare that a finished piece of work can be run again without effects, or go to ramp"
        )
    if stage is Stage.RETIRED:
        if not seam.open_work:
            return "its declaration names no `open_work`, so nobody can tell whether work pinned on legacy is under way"
        count: Callable[[], int] = import_string(seam.open_work)
        if under_way := count():
            return f"{under_way} pieces of work that are pinned on legacy are under way; wait until they have ended"
    return ""


def _require(by: Mover, right: str) -> None:
    if by.kind is not MoverKind.AUTOMATION and right not in by.rights:
        raise MoveNotAllowed(f"{by.name} lacks the permission {right}")


def _flags() -> SeamFlagQuerySet:
    model: type[AbstractSeamFlag] = get_waffle_flag_model()
    return SeamFlagQuerySet(model)
