"""What comparisons came to: counts by the hour, the shapes in which paths differ, the newest examples of each.

Examples are redacted, belong to the user whose work they are taken from, and go when the user goes. A shape holds no
content: it says where two streams begin to differ, and what people decided about that.
"""

import enum
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, ClassVar

from django.db import IntegrityError, models, transaction
from django.db.models import F, Q
from django.utils import timezone

from apps.rollout.comparison import SHAPE_CHARACTERS, Comparison, Result
from apps.vocabulary import ID_LENGTH, UserId

EXAMPLES_PER_SEAM = 200
SHAPES_PER_SEAM = 500  # above it a new shape is counted, and not kept
KEPT_DAYS = 90  # of counts


class Opinion(enum.StrEnum):
    """What people decided about a shape."""

    OPEN = "open"
    MUTED = "muted"  # known, until a day
    NEW_IS_RIGHT = "new_is_right"  # the factory does better than legacy


class UnexplainedMute(ValueError):  # noqa: N818 - names what was met
    """A mute without an owner, a reason or an end in the future; the message says which is missing."""


class MismatchShapeQuerySet(models.QuerySet["MismatchShape"]):
    """Reads, and what people may decide."""

    def at(self, seam: str) -> "MismatchShapeQuerySet":
        """The shapes of one seam."""
        return self.filter(seam=seam)

    def open(self, seam: str, today: date | None = None) -> "MismatchShapeQuerySet":
        """Shapes that stand in the way up: undecided, or muted until a day that has passed. Found leaks do not."""
        expired = Q(opinion=Opinion.MUTED, until__lt=today or timezone.now().date())
        undecided = Q(opinion=Opinion.OPEN) | expired
        return self.at(seam).filter(undecided, result__in=[Result.MISMATCHED, Result.DIVERGED])

    def expired_mutes(self, seam: str, today: date | None = None) -> "MismatchShapeQuerySet":
        """Mutes past their end."""
        return self.at(seam).filter(opinion=Opinion.MUTED, until__lt=today or timezone.now().date())

    def decide(
        self, row: "MismatchShape", opinion: Opinion, owner: str, reason: str, until: date | None = None
    ) -> None:
        """Write what people decided about a shape. Raises UnexplainedMute."""
        if opinion is not Opinion.OPEN and not (owner.strip() and reason.strip()):
            raise UnexplainedMute("a known difference needs an owner and a reason")
        if opinion is Opinion.MUTED and (until is None or until <= timezone.now().date()):
            raise UnexplainedMute("a mute ends on a day in the future: say which")
        row.opinion, row.owner, row.reason = opinion.value, owner.strip(), reason.strip()
        row.until = until if opinion is Opinion.MUTED else None
        row.save(update_fields=["opinion", "owner", "reason", "until"])


class MismatchShape(models.Model):
    """One way in which the paths of a seam differ, how often it was met, and what people decided about it."""

    seam = models.CharField(max_length=100)
    shape = models.CharField(max_length=SHAPE_CHARACTERS)
    result = models.CharField(max_length=12, choices=[(each.value, each.value) for each in Result])
    count = models.PositiveBigIntegerField(default=0)
    ignored = models.PositiveBigIntegerField(default=0, help_text="times that it was met while it was known")
    first_at = models.DateTimeField(default=timezone.now)
    last_at = models.DateTimeField(default=timezone.now)
    opinion = models.CharField(
        max_length=12, choices=[(each.value, each.value) for each in Opinion], default=Opinion.OPEN.value
    )
    owner = models.CharField(max_length=150, blank=True, default="")
    reason = models.TextField(blank=True, default="")
    until = models.DateField(null=True, blank=True)

    objects = MismatchShapeQuerySet.as_manager()

    class Meta:
        default_permissions = ("view", "change")
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["seam", "shape", "result"], name="rollout_shape_once")
        ]

    def __str__(self) -> str:
        return f"{self.seam}: {self.shape} ({self.result})"

    def is_known(self, today: date) -> bool:
        """Whether meeting it again is ignored: the new path is right, or the mute has not ended."""
        muted = self.opinion == Opinion.MUTED and self.until is not None and self.until >= today
        return muted or self.opinion == Opinion.NEW_IS_RIGHT


class MismatchQuerySet(models.QuerySet["Mismatch"]):
    """Reads; the ones that ask about a user name the user first."""

    def owned(self, user_id: UserId) -> "MismatchQuerySet":
        """The one door to a user's examples."""
        return self.filter(user_id=user_id)


class Mismatch(models.Model):
    """One example of a shape, redacted."""

    shape = models.ForeignKey(MismatchShape, on_delete=models.CASCADE, related_name="examples")
    user_id = models.BigIntegerField(db_index=True)
    work_id = models.CharField(max_length=ID_LENGTH)
    diff = models.TextField()
    at = models.DateTimeField(default=timezone.now)

    objects = MismatchQuerySet.as_manager()

    class Meta:
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"example {self.pk} of {self.shape}"


class ComparisonCountQuerySet(models.QuerySet["ComparisonCount"]):
    """Counting and reading."""

    def add(self, seam: str, result: Result, number: int = 1) -> None:
        """Count results of this hour."""
        hour = timezone.now().replace(minute=0, second=0, microsecond=0)
        row = {"seam": seam, "hour": hour, "result": result.value}
        if not self.filter(**row).update(number=F("number") + number):
            try:
                with transaction.atomic():
                    self.create(**row, number=number)
            except IntegrityError:  # another process was first
                self.filter(**row).update(number=F("number") + number)

    def totals(self, seam: str, since: datetime | None = None) -> Mapping[str, int]:
        """Results of one seam by name, all five of them."""
        rows = self.filter(seam=seam) if since is None else self.filter(seam=seam, hour__gte=since)
        found = dict(rows.order_by("result").values_list("result").annotate(models.Sum("number")))
        return {result.value: found.get(result.value, 0) for result in Result}

    def drop_old(self) -> int:
        """Delete counts of more than KEPT_DAYS ago."""
        return self.filter(hour__lt=timezone.now() - timedelta(days=KEPT_DAYS)).delete()[0]


class ComparisonCount(models.Model):
    """How often comparisons at one seam came to one result in one hour."""

    seam = models.CharField(max_length=100)
    hour = models.DateTimeField()
    result = models.CharField(max_length=12)
    number = models.PositiveBigIntegerField(default=0)

    objects = ComparisonCountQuerySet.as_manager()

    class Meta:
        default_permissions = ()
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["seam", "hour", "result"], name="rollout_count_once_an_hour")
        ]

    def __str__(self) -> str:
        return f"{self.number} {self.result} at {self.seam}, {self.hour:%Y-%m-%d %H}:00"


def record(user_id: UserId, seam: str, work_id: str, found: Comparison, number: int = 1) -> Result:
    """Store what one comparison came to, in the caller's transaction; a shape that is known becomes `ignored`.

    Returns the result as it was counted.
    """
    if not found.shape:
        ComparisonCount.objects.add(seam, found.result, number)
        return found.result
    shape = _met(seam, found, number)
    if shape is None:
        ComparisonCount.objects.add(seam, found.result, number)
        return found.result
    known = found.result is Result.IGNORED or shape.is_known(timezone.now().date())
    counted = Result.IGNORED if known else found.result
    ComparisonCount.objects.add(seam, counted, number)
    if known:
        MismatchShape.objects.filter(pk=shape.pk).update(ignored=F("ignored") + number)
    if found.diff:
        Mismatch.objects.create(shape=shape, user_id=user_id, work_id=work_id, diff=found.diff)
        _keep_newest_examples(seam)
    return counted


def _met(seam: str, found: Comparison, number: int) -> MismatchShape | None:
    """The row of the shape, counted; None where the seam has as many shapes as it may."""
    key: dict[str, Any] = {"seam": seam, "shape": found.shape, "result": found.result.value}
    rows = MismatchShape.objects.filter(**key)
    if not rows.exists():
        if MismatchShape.objects.at(seam).count() >= SHAPES_PER_SEAM:
            return None
        MismatchShape.objects.bulk_create([MismatchShape(**key)], ignore_conflicts=True)
    rows.update(count=F("count") + number, last_at=timezone.now())
    return rows.get()


def _keep_newest_examples(seam: str) -> None:
    rows = Mismatch.objects.filter(shape__seam=seam).order_by("-pk")
    oldest_kept = list(rows.values_list("pk", flat=True)[EXAMPLES_PER_SEAM - 1 : EXAMPLES_PER_SEAM])
    if oldest_kept:
        Mismatch.objects.filter(shape__seam=seam, pk__lt=oldest_kept[0]).delete()
