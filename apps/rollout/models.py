"""The rows of the rollout: the flag that holds a seam's stage, the audit trail of its moves, and the deny list.

The flag model is waffle's, so that `flag_is_active`, `{% flag %}` and the rest of waffle's API answer for a seam too.
"""

from typing import Any, ClassVar, Self

from django.db import models
from django.utils import timezone
from waffle.models import AbstractUserFlag

from apps.rollout.stages import BUCKETS, Stage
from apps.vocabulary import ID_LENGTH, new_id

_STAGES = [(stage.value, stage.value) for stage in Stage]


class AbstractSeamFlag(AbstractUserFlag):
    """A waffle flag that may hold the stage of a seam. With an empty stage it is an ordinary flag."""

    stage = models.CharField(max_length=16, choices=_STAGES, blank=True, default="", editable=False)
    version = models.PositiveBigIntegerField(default=0, editable=False)
    share_buckets = models.PositiveIntegerField(default=0, editable=False)
    salt = models.CharField(max_length=32, blank=True, default="", editable=False)
    latched_at = models.DateTimeField(null=True, blank=True, editable=False)
    latched_why = models.TextField(blank=True, default="", editable=False)

    class Meta(AbstractUserFlag.Meta):
        abstract = True
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                name="%(app_label)s_%(class)s_stage_agrees_with_everyone",
                # `everyone = false` alone is NULL for a NULL, and a CHECK lets NULL pass: hence both halves.
                condition=(
                    models.Q(stage="", share_buckets=0)
                    | models.Q(
                        stage__in=["off", "shadow"], everyone__isnull=False, everyone=False, share_buckets=0
                    )
                    | models.Q(stage="ramp", everyone__isnull=True, share_buckets__lte=BUCKETS)
                    | models.Q(stage__in=["on", "retired"], everyone__isnull=False, everyone=True, share_buckets=0)
                ),
            ),
        ]


class Flag(AbstractSeamFlag):
    """The flag model of this project. The name is kept, so that `user.flag_set` goes on working."""

    class Meta(AbstractSeamFlag.Meta):
        swappable = "WAFFLE_FLAG_MODEL"


class Move(models.Model):
    """One change of one seam's stage: who, when, from where, to where, why. Written once, never changed."""

    id = models.CharField(max_length=ID_LENGTH, primary_key=True, default=new_id, editable=False)
    seam = models.CharField(max_length=100)
    at = models.DateTimeField(default=timezone.now)
    by_user_id = models.BigIntegerField(null=True)
    by_name = models.CharField(max_length=200)
    from_stage = models.CharField(max_length=16, choices=_STAGES)
    from_share_buckets = models.PositiveIntegerField(default=0)
    to_stage = models.CharField(max_length=16, choices=_STAGES)
    to_share_buckets = models.PositiveIntegerField(default=0)
    version = models.PositiveBigIntegerField()
    why = models.TextField()

    class Meta:
        default_permissions = ("view",)
        permissions: ClassVar[list[tuple[str, str]]] = [
            ("move_stage", "May move the stage of a seam"),
            ("retire_seam", "May retire a seam"),
            ("acknowledge_breach", "May acknowledge a breach and unlatch a seam"),
        ]
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["seam", "-at"], name="rollout_move_seam_at")]
        ordering: ClassVar[list[str]] = ["-at", "-id"]


class DeniedUser(models.Model):
    """A user whom a seam serves by legacy, whatever its share, as long as the seam is not retired."""

    id = models.CharField(max_length=ID_LENGTH, primary_key=True, default=new_id, editable=False)
    seam = models.CharField(max_length=100)
    user_id = models.BigIntegerField()
    at = models.DateTimeField(default=timezone.now, editable=False)
    by_name = models.CharField(max_length=200, editable=False)
    why = models.TextField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["seam", "user_id"], name="rollout_one_denial_per_seam_and_user")
        ]
