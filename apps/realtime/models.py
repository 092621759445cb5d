"""The durable event log: one stream a user, stored in segments, and one ledger row a run that guards its appends.

Beside them stand the small rows of what goes on for longer than a transaction: contents that are being removed, users
who are being deleted, whose turn a periodic job of the whole deployment is, and the mark by which a restore is noticed.
"""

import secrets
from datetime import timedelta
from typing import ClassVar, Self

from django.db import models
from django.db.models.functions import Now

from apps.vocabulary import ID_LENGTH, Position, UserId, new_id

TAG_LENGTH = 16  # hex digits of the running checksum
GENESIS_TAG = "0" * TAG_LENGTH


def new_epoch() -> str:
    """16 random hex digits: the name of one history of one user's stream."""
    return secrets.token_hex(8)


class Stream(models.Model):
    """The head and the tail of one user's stream. Its row lock is the last one in the lock order."""

    user_id = models.BigIntegerField(primary_key=True)
    epoch = models.CharField(max_length=16, default=new_epoch)
    head = models.BigIntegerField(default=0, help_text="seq of the newest event")
    tag = models.CharField(max_length=TAG_LENGTH, default=GENESIS_TAG, help_text="checksum at the head")
    tail = models.BigIntegerField(default=0, help_text="events up to this seq are trimmed")
    tail_tag = models.CharField(max_length=TAG_LENGTH, default=GENESIS_TAG, help_text="checksum at the tail")
    # Counted where the head is moved anyway: counting the rows of every stream would read the whole log each time.
    kept_rows = models.BigIntegerField(default=0, help_text="segments between tail and head")
    kept_bytes = models.BigIntegerField(default=0, help_text="bytes of their payloads")
    oldest_at = models.DateTimeField(null=True, blank=True, db_index=True, help_text="when the oldest was written")

    def __str__(self) -> str:
        return f"stream of user {self.user_id} at {self.head}"

    @property
    def position(self) -> Position:
        """The position after the newest event."""
        return Position(self.epoch, self.head, self.tag)


class Segment(models.Model):
    """Up to 64 consecutive events of one user, as the JSON text of an array; never split, never merged.

    `tag` is the stream's checksum after the segment, so positions exist at segment ends only. `leaked_from` names the
    user whose run the old bridge wrote into this stream; such rows are violations, kept visible until they are blanked.
    """

    user_id = models.BigIntegerField()
    first_seq = models.BigIntegerField()
    last_seq = models.BigIntegerField()
    payload = models.TextField()
    size = models.IntegerField(help_text="bytes of the payload in UTF-8")
    tag = models.CharField(max_length=TAG_LENGTH)
    created_at = models.DateTimeField()
    leaked_from = models.BigIntegerField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user_id", "first_seq"], name="realtime_segment_place"),
            models.CheckConstraint(
                condition=models.Q(last_seq__gte=models.F("first_seq")), name="realtime_segment_order"
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["leaked_from"],
                name="realtime_segment_leaks",
                condition=models.Q(leaked_from__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"events {self.first_seq}-{self.last_seq} of user {self.user_id}"


class RunLedger(models.Model):
    """What the log knows of a run: who owns it, under which fence, and how many events it has.

    One conditional update of this row is dedupe after a lost COMMIT, fence against a zombie, ownership check,
    terminal-once, and delivery of a cancel request. The id is opaque here: realtime knows no runs.
    """

    run_id = models.CharField(max_length=ID_LENGTH, primary_key=True)
    user_id = models.BigIntegerField()
    thread_id = models.CharField(max_length=ID_LENGTH)
    fence = models.IntegerField(default=0)
    logged = models.IntegerField(default=0, help_text="events that the run has appended under its lease")
    is_open = models.BooleanField(default=True)
    cancel_requested = models.BooleanField(default=False)
    first_seq = models.BigIntegerField(help_text="no event of the run is in a segment that begins earlier")

    class Meta:
        indexes: ClassVar = [
            models.Index(
                fields=["user_id", "thread_id"],
                name="realtime_ledger_open",
                condition=models.Q(is_open=True),
            )
        ]

    def __str__(self) -> str:
        return f"ledger of run {self.run_id}"

    @property
    def owner(self) -> UserId:
        """The only user whose stream this run may write to."""
        return UserId(self.user_id)


class Erasure(models.Model):
    """A deleted thread whose events are being blanked, in steps; gone when nothing of it is left in the log.

    It outlives the process that began it: whoever looks next goes on at `next_seq`.
    """

    user_id = models.BigIntegerField()
    thread_id = models.CharField(max_length=ID_LENGTH)
    next_seq = models.BigIntegerField(help_text="events before this one hold nothing of the thread any more")
    asked_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user_id", "thread_id"], name="realtime_erasure_once"),
        ]

    def __str__(self) -> str:
        return f"erasure of thread {self.thread_id} of user {self.user_id}"

    @property
    def owner(self) -> UserId:
        """The user in whose stream the events are."""
        return UserId(self.user_id)


class Tombstone(models.Model):
    """A user who was deleted: nothing is written for them any more. It says who by number only, and stays.

    Ids of users are never given again, so it can keep out nobody else.
    """

    user_id = models.BigIntegerField(primary_key=True)
    asked_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True, help_text="when nothing of the user was left")

    def __str__(self) -> str:
        return f"tombstone of user {self.user_id}"


class TurnQuerySet(models.QuerySet["Turn"]):
    """Taking turns, by the database's clock alone."""

    def take(self, job: str, every_s: float) -> bool:
        """Whether it is the caller's turn: nobody in the whole deployment took it in the last `every_s` seconds."""
        due = self.filter(pk=job, taken_at__lte=Now() - timedelta(seconds=every_s))
        if due.update(taken_at=Now()):
            return True
        if self.filter(pk=job).exists():
            return False
        self.bulk_create([Turn(job=job)], ignore_conflicts=True)
        return False  # the first turn is the next one's: of two who came at once, nobody knows who made the row


class Turn(models.Model):
    """When a periodic job of the whole deployment was last taken by one of its processes."""

    job = models.CharField(max_length=40, primary_key=True)
    taken_at = models.DateTimeField(db_default=Now())

    objects = TurnQuerySet.as_manager()

    def __str__(self) -> str:
        return f"turn of {self.job}"


class HistoryMarkQuerySet(models.QuerySet["HistoryMark"]):
    """The one row."""

    def current(self) -> "HistoryMark":
        """The mark as it stands, made when there is none."""
        mark = self.filter(pk=1).first()
        if mark is None:
            self.bulk_create([HistoryMark(pk=1)], ignore_conflicts=True)
            mark = self.get(pk=1)
        return mark

    def advance(self) -> Self:
        """Count one beat of the deployment's life."""
        self.current()
        self.filter(pk=1).update(beat=models.F("beat") + 1)
        return self


class HistoryMark(models.Model):
    """By this row a restored database is told from one that went on: its beat only rises, its name only gets newer.

    `name` is a UUIDv7, so that names sort by the time at which they were given.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    name = models.CharField(max_length=ID_LENGTH, default=new_id)
    beat = models.BigIntegerField(default=0)

    objects = HistoryMarkQuerySet.as_manager()

    def __str__(self) -> str:
        return f"history {self.name} at beat {self.beat}"
