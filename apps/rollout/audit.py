"""Who moved which seam when and why, and who is denied the factory: rows that people are held to."""

import enum
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Never

from django.db import models
from django.utils import timezone

from apps.rollout.stages import Mover, Placement, Stage
from apps.vocabulary import ID_LENGTH, UserId, new_id

STAGE_CHOICES = [(stage.value, stage.value) for stage in Stage]


class Act(enum.StrEnum):
    """What was done. Each has its row and its version; `move` alone changes the stage."""

    MOVE = "move"
    LATCH = "latch"
    ACKNOWLEDGE = "acknowledge"
    RESHUFFLE = "reshuffle"


class AppendOnly(TypeError):  # noqa: N818 - the name is the rule
    """The audit trail is written once; it is never changed or deleted from here."""


class MoveQuerySet(models.QuerySet["Move"]):
    """Reads and appends."""

    def append(
        self,
        seam: str,
        version: int,
        came_from: Placement,
        went_to: Placement,
        by: Mover,
        why: str,
        act: Act = Act.MOVE,
        numbers: Mapping[str, Any] = MappingProxyType({}),
    ) -> "Move":
        """Add the row of one act, in the transaction that carries it out."""
        return self.create(
            act=act,
            numbers=dict(numbers),
            seam=seam,
            version=version,
            by_user_id=by.user_id,
            by_name=by.name,
            from_stage=came_from.stage,
            from_share_buckets=came_from.share_buckets,
            to_stage=went_to.stage,
            to_share_buckets=went_to.share_buckets,
            why=why,
        )

    def update(self, **_: Any) -> Never:
        """Refused."""
        raise AppendOnly("an audit row is never changed")

    def delete(self) -> Never:
        """Refused."""
        raise AppendOnly("an audit row is never deleted")


class Move(models.Model):
    """One act on one seam's stage: who, when, from where, to where, why. Written once, never changed."""

    id = models.CharField(max_length=ID_LENGTH, primary_key=True, default=new_id, editable=False)
    seam = models.CharField(max_length=100)
    at = models.DateTimeField(default=timezone.now)
    by_user_id = models.BigIntegerField(null=True)
    by_name = models.CharField(max_length=200)
    from_stage = models.CharField(max_length=16, choices=STAGE_CHOICES)
    from_share_buckets = models.PositiveIntegerField(default=0)
    to_stage = models.CharField(max_length=16, choices=STAGE_CHOICES)
    to_share_buckets = models.PositiveIntegerField(default=0)
    version = models.PositiveBigIntegerField()
    act = models.CharField(max_length=11, choices=[(act.value, act.value) for act in Act], default=Act.MOVE.value)
    numbers = models.JSONField(default=dict, help_text="what the mover saw, as far as it is a number")
    why = models.TextField()

    objects = MoveQuerySet.as_manager()

    class Meta:
        default_permissions = ("view",)
        permissions = (
            ("move_stage", "May move the stage of a seam"),
            ("retire_seam", "May retire a seam"),
            ("acknowledge_breach", "May acknowledge a breach and unlatch a seam"),
        )
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["seam", "-at"], name="rollout_move_seam_at")]
        ordering: ClassVar[list[str]] = ["-at", "-id"]

    def __str__(self) -> str:
        return f"{self.seam}: {self.came_from} to {self.went_to} by {self.by_name}, {self.at:%Y-%m-%d %H:%M:%S %Z}"

    def save(self, **options: Any) -> None:
        """Append the row. Raises AppendOnly when it exists already."""
        if not self._state.adding:
            raise AppendOnly("an audit row is never changed")
        super().save(**{**options, "force_insert": True})

    def delete(self, *_: Any, **__: Any) -> Never:
        """Refused."""
        raise AppendOnly("an audit row is never deleted")

    @property
    def came_from(self) -> Placement:
        """Where the seam stood before."""
        return Placement(Stage(self.from_stage), self.from_share_buckets)

    @property
    def went_to(self) -> Placement:
        """Where the seam stood after."""
        return Placement(Stage(self.to_stage), self.to_share_buckets)

    @property
    def went_up(self) -> bool:
        """Whether more is served by the factory after it than before."""
        return self.went_to.is_above(self.came_from)


class DeniedUserQuerySet(models.QuerySet["DeniedUser"]):
    """Reads of the deny list."""

    def seams_of(self, user_id: UserId, among: Iterable[str] | None = None) -> set[str]:
        """The names of the seams that serve this user by legacy."""
        rows = self.filter(user_id=user_id) if among is None else self.filter(user_id=user_id, seam__in=among)
        return set(rows.values_list("seam", flat=True))


class DeniedUser(models.Model):
    """A user whom a seam serves by legacy, whatever its share, as long as the seam is not retired."""

    id = models.CharField(max_length=ID_LENGTH, primary_key=True, default=new_id, editable=False)
    seam = models.CharField(max_length=100)
    user_id = models.BigIntegerField()
    at = models.DateTimeField(default=timezone.now, editable=False)
    by_name = models.CharField(max_length=200, editable=False)
    why = models.TextField()

    objects = DeniedUserQuerySet.as_manager()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["seam", "user_id"], name="rollout_one_denial_per_seam_and_user")
        ]

    def __str__(self) -> str:
        return f"user {self.user_id} at {self.seam}"
