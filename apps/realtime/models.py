"""The durable event log: one stream a user, stored in segments, and one ledger row a run that guards its appends."""

import secrets
from typing import ClassVar

from django.db import models

from apps.vocabulary import ID_LENGTH, Position, UserId

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
