"""What each process says about itself. Audits and the admin read it; the process and `--fix` write it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models.functions import Now

from apps.vocabulary import ID_LENGTH

KEPT_DAYS = 7  # days that the report of a process that ended is kept


class ProcessReports(models.QuerySet["ProcessReport"]):
    """Reports by what they say. The database's clock alone tells ages: no two hosts' clocks are compared."""

    def running(self, silent_s: float) -> Self:
        """Processes that have not ended and reported within the last `silent_s` seconds."""
        return self.filter(ending="", reported_at__gte=Now() - timedelta(seconds=silent_s))

    def silent(self, silent_s: float) -> Self:
        """Processes that have not ended by their own word, and last reported over `silent_s` seconds ago."""
        return self.filter(ending="", reported_at__lt=Now() - timedelta(seconds=silent_s))

    def with_age(self) -> Self:
        """Adds `age`, the time since the last report."""
        return self.annotate(
            age=models.ExpressionWrapper(Now() - models.F("reported_at"), output_field=models.DurationField())
        )

    def mark_lost(self) -> int:
        """State that these processes are gone without a word. Returns how many there were."""
        return self.filter(ending="").update(ending=ProcessReport.Ending.LOST, ended_at=Now())

    def forget_old(self) -> int:
        """Delete what ended more than KEPT_DAYS ago. Returns how many rows went."""
        return self.exclude(ending="").filter(ended_at__lt=Now() - timedelta(days=KEPT_DAYS)).delete()[0]

    def report(self, process_id: str, first: Mapping[str, Any], counts: Mapping[str, int], ending: str = "") -> None:
        """Write one beat: a process without a row gets one from `first`, else its row is counted up.

        A row that an operator declared lost is taken back: who reports is not lost.
        """
        ended_at = Now() if ending else None
        changed = self.filter(pk=process_id).update(
            beat=models.F("beat") + 1,
            reported_at=Now(),
            counts=dict(counts),
            ending=ending,
            ended_at=ended_at,
        )
        if not changed:
            self.create(
                id=process_id,
                **first,
                beat=1,
                started_at=Now(),
                reported_at=Now(),
                counts=dict(counts),
                ending=ending,
                ended_at=ended_at,
            )


class ProcessReport(models.Model):
    """The last thing that one process said about itself: that it lives, and what it holds."""

    class Ending(models.TextChoices):
        """How a process ended; empty while it runs, or while nobody has noticed that it does not."""

        STOPPED = "stopped", "stopped in order"
        LOST = "lost", "lost without a word"

    id = models.CharField(primary_key=True, max_length=ID_LENGTH)
    host = models.CharField(max_length=255)
    pid = models.PositiveBigIntegerField()
    kind = models.CharField(max_length=32)  # what was started: serve, run_worker, lifespan
    version = models.CharField(max_length=64)
    started_at = models.DateTimeField()
    beat = models.PositiveBigIntegerField()  # reports so far; it stands still when the process does
    reported_at = models.DateTimeField(db_index=True)
    counts = models.JSONField(default=dict)  # what it holds, by name, as `census` builds it
    ending = models.CharField(max_length=16, choices=Ending, blank=True, default="")
    ended_at = models.DateTimeField(null=True, blank=True)

    age: timedelta  # since the last report; of rows that `with_age` read only

    objects = ProcessReports.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["-started_at"]
        permissions = (("operate", "Can cancel runs, close users' sockets and drain processes"),)
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=models.Q(ending="", ended_at=None)
                | (~models.Q(ending="") & models.Q(ended_at__isnull=False)),
                name="operations_report_ends_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pid} on {self.host}"


class TraceRequest(models.Model):
    """An operator asks all processes what they know of one event. Gone when it is answered, or a minute later."""

    user_id = models.BigIntegerField()
    seq = models.BigIntegerField()
    asked_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"trace of seq {self.seq} of user {self.user_id}"


class TraceAnswer(models.Model):
    """What one process knows of it: the steps with their times, by that process's clock."""

    request = models.ForeignKey(TraceRequest, on_delete=models.CASCADE, related_name="answers")
    process_id = models.CharField(max_length=ID_LENGTH)
    known_since = models.FloatField(help_text="Unix seconds; what happened before is no longer known there")
    marks = models.JSONField(default=list)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["request", "process_id"], name="operations_trace_answered_once"),
        ]

    def __str__(self) -> str:
        return f"answer of process {self.process_id}"


class Order(models.Model):
    """An operator tells processes to do something. Gone a minute after it was given."""

    class Kind(models.TextChoices):
        """What is to be done."""

        CLOSE_SOCKETS = "close_sockets", "close a user's sockets"
        DRAIN = "drain", "drain a process"

    kind = models.CharField(max_length=16, choices=Kind)
    user_id = models.BigIntegerField(null=True, blank=True, help_text="whose sockets are closed, in every process")
    process_id = models.CharField(max_length=ID_LENGTH, blank=True, default="", help_text="which process is drained")
    given_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=models.Q(kind="close_sockets", user_id__isnull=False, process_id="")
                | (models.Q(kind="drain", user_id=None) & ~models.Q(process_id="")),
                name="operations_order_names_its_target",
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.process_id or self.user_id}"


class OrderTaken(models.Model):
    """One process has taken an order."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="takers")
    process_id = models.CharField(max_length=ID_LENGTH)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["order", "process_id"], name="operations_order_taken_once"),
        ]

    def __str__(self) -> str:
        return f"order {self.order_id} taken by {self.process_id}"
