"""The gate before old code: who still comes through it once nobody should.

At `off`, `shadow` and `ramp` legacy serves people and nothing is counted here. From `on` on each call is a
finding: it is counted in one row a seam, and at `retired` it is refused besides.
"""

from typing import ClassVar

from django.db import models, router, transaction
from django.db.models import F
from django.utils import timezone
from waffle import get_waffle_flag_model

from apps.rollout.seams import Seam
from apps.rollout.stages import Stage


class LegacyRetired(RuntimeError):  # noqa: N818 - names the state that was met
    """The seam is retired, and its legacy path was reached all the same; who called it must call the factory."""


class LegacyReachQuerySet(models.QuerySet["LegacyReach"]):
    """Counting and reading."""

    def count(self, seam: str, *, refused: int = 0) -> None:  # type: ignore[override] # of calls, not of rows
        """Count one call that reached the legacy path of this seam."""
        with transaction.atomic(using=self.db):
            changed = {"calls": F("calls") + 1, "refused": F("refused") + refused, "last_at": timezone.now()}
            if not self.filter(pk=seam).update(**changed):
                self.bulk_create([LegacyReach(seam=seam)], ignore_conflicts=True)
                self.filter(pk=seam).update(**changed)

    def of(self, seam: str) -> "LegacyReach":
        """What was counted at this seam; zeros while nothing was."""
        return self.filter(pk=seam).first() or LegacyReach(seam=seam)

    def forget(self, seam: str) -> None:
        """Begin to count anew: the seam came to `on`."""
        self.filter(pk=seam).delete()


class LegacyReach(models.Model):
    """How often the legacy path of a seam was reached since it last came to `on`, and how often refused."""

    seam = models.CharField(max_length=100, primary_key=True)
    calls = models.PositiveBigIntegerField(default=0)
    refused = models.PositiveBigIntegerField(default=0)
    last_at = models.DateTimeField(null=True)

    objects: ClassVar[LegacyReachQuerySet] = LegacyReachQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.calls} legacy calls at {self.seam}"


def reach_legacy(seam: Seam) -> None:
    """Called before the old code is. Counts from `on` on; raises LegacyRetired at `retired`.

    Synchronous, one query by name; a second one where it counts.
    """
    stage = _stage_of(seam)
    if stage.height < Stage.ON.height:
        return
    retired = stage is Stage.RETIRED
    LegacyReach.objects.count(seam.name, refused=int(retired))
    if retired:
        raise LegacyRetired(f"{seam.name} is retired, so {seam.legacy} is not called any more: call {seam.factory}")


def is_shadowed(seam: Seam) -> bool:
    """Whether what legacy does at this seam is replayed on the factory now. Synchronous, one query by name."""
    return _stage_of(seam) in {Stage.SHADOW, Stage.RAMP}


def _stage_of(seam: Seam) -> Stage:
    model = get_waffle_flag_model()
    rows = model.objects.using(router.db_for_write(model)).filter(name=seam.name)
    return Stage(rows.values_list("stage", flat=True).first() or seam.default_stage)
