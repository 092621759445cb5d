"""The one call that moves a stage. Admin page, command line and guardrail all make it, with who and why."""

import getpass
import os
from collections.abc import Mapping

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin
from waffle import get_waffle_flag_model

from apps.rollout.audit import Move
from apps.rollout.models import AbstractSeamFlag, SeamFlagQuerySet
from apps.rollout.seams import declared_seam
from apps.rollout.stages import IllegalMove, Mover, MoveRefused, MoverKind, Placement, Stage
from apps.vocabulary import UserId

MOVE_STAGE = "rollout.move_stage"
RETIRE_SEAM = "rollout.retire_seam"
ACKNOWLEDGE_BREACH = "rollout.acknowledge_breach"
RIGHTS = frozenset({MOVE_STAGE, RETIRE_SEAM, ACKNOWLEDGE_BREACH})

# Stages that the table knows and this installation cannot serve yet, with what each of them waits for.
NOT_SERVED: Mapping[Stage, str] = {
    Stage.SHADOW: "no shadow runner is installed that would replay legacy runs on the factory",
    Stage.RETIRED: "nothing is installed that could tell whether runs pinned on legacy are still open",
}


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


def move(seam: str, expected_version: int, to: Placement, by: Mover, why: str) -> Move:
    """Move the seam of that name to `to`, if it still is at `expected_version` (0: never moved).

    It holds from the next claim on, in every process; runs that were claimed before keep their path.
    Returns the audit row. Raises UnknownSeam, MoveNotAllowed, ReasonMissing, IllegalMove, SeamLatched or
    StaleStage, and then nothing was changed.
    """
    declared = declared_seam(seam)
    _require(by, RETIRE_SEAM if to.stage is Stage.RETIRED else MOVE_STAGE)
    if to.stage in NOT_SERVED:
        raise IllegalMove(f"{seam} cannot go to {to.stage}: {NOT_SERVED[to.stage]}; off, ramp and on are served")
    return _flags().compare_and_move(declared, expected_version, to, by, why)


def alarm(seam: str, expected_version: int, by: Mover, why: str) -> Move:
    """Latch a seam where it stands, so that people see that something is wrong and decide. Raises as `move`."""
    return _flags().compare_and_latch(declared_seam(seam), expected_version, by, why)


def acknowledge(seam: str, expected_version: int, by: Mover, why: str) -> Move:
    """Unlatch a seam that automation took down, so that people can move it up again. Raises as `move`."""
    declared = declared_seam(seam)
    _require(by, ACKNOWLEDGE_BREACH)
    return _flags().compare_and_unlatch(declared, expected_version, by, why)


def _require(by: Mover, right: str) -> None:
    if by.kind is not MoverKind.AUTOMATION and right not in by.rights:
        raise MoveNotAllowed(f"{by.name} lacks the permission {right}")


def _flags() -> SeamFlagQuerySet:
    model: type[AbstractSeamFlag] = get_waffle_flag_model()
    return SeamFlagQuerySet(model)
