"""Finished pieces of work that wait to be replayed: one bounded row each, owned by its user, gone when it was replayed.

What is in a row is known to whoever records and replays; here it is text. Rows are a queue without promise: the oldest
are thrown away when there are too many or when they are too old.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from django.db import models, transaction
from django.utils import timezone

from apps.vocabulary import ID_LENGTH, UserId, new_id


@dataclass(frozen=True, slots=True)
class RecordedWork:
    """One finished piece of legacy's work: whose, at which seam, and all that a replay needs, as text."""

    user_id: UserId
    seam: str
    work_id: str
    payload: str


class RecordingQuerySet(models.QuerySet["Recording"]):
    """The verbs of the queue; those that read a user's rows name the user first."""

    def owned(self, user_id: UserId) -> "RecordingQuerySet":
        """The one door to a user's recordings."""
        return self.filter(user_id=user_id)

    def keep(self, work: RecordedWork, at_most: int) -> bool:
        """Add a row; False, and nothing is added, where `at_most` wait already."""
        with transaction.atomic():
            if self.count() >= at_most:
                return False
            self.create(seam=work.seam, user_id=work.user_id, work_id=work.work_id, payload=work.payload)
            return True

    def take(self, by: str, given_up_after_s: float) -> "Recording | None":
        """The oldest row that nobody replays, or whose replay should have ended long ago; it is this process's now."""
        stale = timezone.now() - timedelta(seconds=given_up_after_s)
        free = models.Q(taken_by="") | models.Q(taken_at__lt=stale)
        for row in self.filter(free).order_by("pk")[:10]:
            with transaction.atomic():
                mine = self.filter(free, pk=row.pk).update(taken_by=by, taken_at=timezone.now())
            if mine:
                return row
        return None

    def drop_older_than(self, minutes: float) -> int:
        """Throw away what waited too long; returns how many."""
        return self.filter(at__lt=timezone.now() - timedelta(minutes=minutes)).delete()[0]

    def waiting(self) -> Mapping[str, int]:
        """How many rows wait, by seam."""
        return dict(self.order_by("seam").values_list("seam").annotate(models.Count("pk")))


class Recording(models.Model):
    """One finished piece of legacy's work, until it was replayed."""

    id = models.CharField(max_length=ID_LENGTH, primary_key=True, default=new_id, editable=False)
    seam = models.CharField(max_length=100)
    user_id = models.BigIntegerField(db_index=True)
    work_id = models.CharField(max_length=ID_LENGTH)
    payload = models.TextField()
    at = models.DateTimeField(default=timezone.now)
    taken_by = models.CharField(max_length=ID_LENGTH, blank=True, default="")
    taken_at = models.DateTimeField(null=True)

    objects = RecordingQuerySet.as_manager()

    class Meta:
        default_permissions = ()
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["taken_by", "id"], name="rollout_recording_free")]

    def __str__(self) -> str:
        return f"recording of {self.work_id} at {self.seam}"

    @property
    def work(self) -> RecordedWork:
        """The row as a value."""
        return RecordedWork(UserId(self.user_id), self.seam, self.work_id, self.payload)
