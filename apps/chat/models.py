"""What a user owns in the chat: threads, their messages, the receipts of commands, and bearer tokens.

Every row carries the `user_id` of its owner, and there is one door to one row: `owned(user_id).get(key)`. It
answers an unknown key and another user's key in the same words after the same query, so that nobody learns which
of the two it was. Owners are plain numbers, not foreign keys: nothing here may lock a row of `auth_user` or
cascade from it.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NoReturn, Self

import orjson
from django.db import connection, models
from django.utils import timezone

from apps.vocabulary import ID_LENGTH, ErrorCode, MessageId, Refusal, RunId, ThreadId, UserId, new_id

TITLE_LENGTH: Final = 200  # characters
MESSAGE_ID_LENGTH: Final = 128  # characters; ids of answers come from agents and their model providers
COMMAND_ID_LENGTH: Final = 64  # characters
ATTACHMENT_NAME_LENGTH: Final = 150  # characters

# Nothing else can be a key. PostgreSQL fails on a NUL in a parameter, psycopg on a lone surrogate, where both
# should find nothing; and a key of 10 KiB need not travel to the database.
_KEY: Final = re.compile(r"[!-~]{1,128}", re.ASCII)


def can_be_key(text: str) -> bool:
    """False for a text that no row has as its key, and that a database may fail on."""
    return _KEY.fullmatch(text) is not None


def not_found() -> NoReturn:
    """Raises Refusal(not_found): what is asked for does not exist, or is another user's. Nobody says which."""
    raise Refusal(ErrorCode.NOT_FOUND, "there is no such thing, or it is not yours")


@dataclass(frozen=True, slots=True)
class Owned[Row: models.Model, Rows: models.QuerySet[Any]]:
    """The rows of one user: `rows` to filter further, `get` and `lock` for one of them."""

    rows: Rows
    key_field: str

    def get(self, key: str) -> Row:
        """The row with this key. Raises Refusal(not_found), the same for an unknown key and a foreign one."""
        return self._one(self.rows, key)

    def has(self, key: str) -> bool:
        """Whether there is a row with this key."""
        return can_be_key(key) and self.rows.filter(**{self.key_field: key}).exists()

    def lock(self, key: str) -> Row:
        """As `get`, and the row stays locked until the transaction ends (on SQLite all is locked anyway)."""
        return self._one(self.rows.select_for_update(no_key=True), key)

    def _one(self, rows: models.QuerySet[Row], key: str) -> Row:
        row = rows.filter(**{self.key_field: key}).first() if can_be_key(key) else None
        return not_found() if row is None else row


class ThreadQuerySet(models.QuerySet["Thread"]):
    """Threads of all users."""

    def owned(self, user_id: UserId) -> "Owned[Thread, ThreadQuerySet]":
        """The door to one user's threads."""
        return Owned(self.filter(user_id=user_id), "id")

    def mentioning(self, query: str) -> Self:
        """Threads whose title or one of whose messages has `query` in it, whatever its case."""
        spoken = Message.objects.filter(user_id=models.OuterRef("user_id"), thread_id=models.OuterRef("pk"))
        said = models.Exists(spoken.filter(text__icontains=query))
        return self.filter(models.Q(title__icontains=query) | said)

    def stored_bytes(self, user_id: UserId) -> int:
        """What all messages of this user take, in bytes of UTF-8."""
        total: int = self.filter(user_id=user_id).aggregate(total=models.Sum("stored_bytes", default=0))["total"]
        return total

    def newest_first(self, before: ThreadId | None = None) -> Self:
        """By creation, which never changes while a client pages; those older than `before` only."""
        rows = self if before is None else self.filter(id__lt=before)
        return rows.order_by("-id")


class Thread(models.Model):
    """One conversation. Its messages are a tree; `leaf_id` is the end of the branch that is shown."""

    id = models.CharField(max_length=ID_LENGTH, primary_key=True, default=new_id)
    user_id = models.BigIntegerField()
    title = models.CharField(max_length=TITLE_LENGTH, blank=True)
    leaf_id = models.CharField(max_length=MESSAGE_ID_LENGTH, blank=True)
    stored_bytes = models.BigIntegerField(default=0, help_text="UTF-8 bytes of all its messages")
    client_key = models.CharField(  # noqa: DJ001 - null is "no client named it", and as often as that is true
        max_length=64, null=True, blank=True, help_text="SHA-256 of the name that a client gave it by itself"
    )
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    objects = ThreadQuerySet.as_manager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["user_id", "client_key"], name="chat_thread_client_key"),)
        indexes = (models.Index(fields=["user_id", "-id"], name="chat_thread_newest"),)
        permissions = (("view_contents", "Can read what users and agents say"),)

    def __str__(self) -> str:
        return f"thread {self.id}"


class MessageQuerySet(models.QuerySet["Message"]):
    """Messages of all users."""

    def owned(self, user_id: UserId) -> "Owned[Message, MessageQuerySet]":
        """The door to one user's messages, by the id that events and snapshots call them."""
        return Owned(self.filter(user_id=user_id).order_by("pk"), "message_id")

    def in_order(self) -> Self:
        """As a snapshot lists them: by when they began, and within a run by their place in it."""
        return self.order_by("created_at", "run_id", "place")

    def follow(self, user_id: UserId, run_id: RunId, last: MessageId) -> None:
        """Let the messages that wait for the end of a run come after its last answer."""
        self.filter(user_id=user_id, after_run_id=run_id).update(parent_id=last)


class Message(models.Model):
    """One complete message of a thread: a user's, written at admission, or an answer, folded from events.

    The key that everyone else knows is `message_id`. For answers it is an agent's word and so unique within its
    run only; a row has a key of its own.
    """

    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, related_name="messages")
    user_id = models.BigIntegerField()
    message_id = models.CharField(max_length=MESSAGE_ID_LENGTH)
    parent_id = models.CharField(max_length=MESSAGE_ID_LENGTH, blank=True, help_text="empty at the root")
    run_id = models.CharField(max_length=ID_LENGTH, help_text="run that asked it or answered with it")
    after_run_id = models.CharField(
        max_length=ID_LENGTH,
        blank=True,
        help_text="run whose last answer becomes its parent, if it gives one",
    )
    place = models.IntegerField(default=0, help_text="place within its run; 0 is the user's message")
    role = models.CharField(max_length=16)
    text = models.TextField(blank=True)
    parts = models.JSONField(default=list, blank=True, help_text="reasoning and tool calls, in order")
    complete = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = MessageQuerySet.as_manager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["run_id", "message_id"], name="chat_message_place"),)
        indexes = (
            models.Index(fields=["thread", "created_at"], name="chat_message_thread"),
            models.Index(fields=["user_id", "message_id"], name="chat_message_owned"),
            models.Index(
                fields=["after_run_id"],
                name="chat_message_after",
                condition=~models.Q(after_run_id=""),
            ),
        )

    def __str__(self) -> str:
        return f"message {self.message_id} of thread {self.thread_id}"

    @property
    def stored_bytes(self) -> int:
        """What it adds to its thread's size: its text, and its parts as JSON."""
        return len(self.text.encode()) + (len(orjson.dumps(self.parts)) if self.parts else 0)


class AttachmentQuerySet(models.QuerySet["Attachment"]):
    """Attachments of all users."""

    def owned(self, user_id: UserId) -> "Owned[Attachment, AttachmentQuerySet]":
        """The door to one user's attachments."""
        return Owned(self.filter(user_id=user_id), "id")

    def held_bytes(self, user_id: UserId) -> int:
        """What a user's files have together."""
        held: int = self.filter(user_id=user_id).aggregate(held=models.Sum("size", default=0))["held"]
        return held

    def due(self, before: datetime) -> Self:
        """Those that came before this and belong to nothing, oldest first."""
        return self.filter(thread_id="", created_at__lt=before).order_by("created_at", "pk")

    def without_thread(self) -> Self:
        """Those whose thread is gone."""
        threads = Thread.objects.filter(pk=models.OuterRef("thread_id"))
        return self.filter(~models.Q(thread_id=""), ~models.Exists(threads)).order_by("pk")


class Attachment(models.Model):
    """A file of a user's. `thread_id` is empty until a message holds it, and again when its thread is deleted."""

    id = models.CharField(max_length=ID_LENGTH, primary_key=True, default=new_id)
    user_id = models.BigIntegerField()
    thread_id = models.CharField(max_length=ID_LENGTH, blank=True)
    name = models.CharField(max_length=ATTACHMENT_NAME_LENGTH)
    media_type = models.CharField(max_length=40, help_text="as its content says")
    size = models.IntegerField(help_text="bytes")
    digest = models.CharField(max_length=64, help_text="SHA-256 of the content")
    created_at = models.DateTimeField(default=timezone.now)

    objects = AttachmentQuerySet.as_manager()

    class Meta:
        indexes = (
            models.Index(fields=["user_id", "thread_id"], name="chat_attachment_owner"),
            models.Index(fields=["thread_id", "created_at"], name="chat_attachment_due"),
        )

    def __str__(self) -> str:
        return f"attachment {self.id}"

    @property
    def stored_as(self) -> str:
        """Its name in the storage."""
        return f"{self.user_id}/{self.id}"


class StoredFile(models.Model):
    """A content in the database, for the storage that is the default for attachments."""

    name = models.CharField(max_length=80, primary_key=True)
    user_id = models.BigIntegerField()
    content = models.BinaryField()

    class Meta:
        indexes = (models.Index(fields=["user_id"], name="chat_stored_file_owner"),)

    def __str__(self) -> str:
        return f"stored file {self.name}"


class CommandReceiptQuerySet(models.QuerySet["CommandReceipt"]):
    """Receipts of all users."""

    def claim(
        self, user_id: UserId, command_id: str, digest: str, forgotten_before: datetime
    ) -> "CommandReceipt | None":
        """Take this command id for the caller's transaction; None when it is now the caller's to act.

        Otherwise the receipt of whoever acted on it. Waits for a transaction that has the id and has not ended.
        """
        now = timezone.now()
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO chat_commandreceipt (user_id, command_id, digest, reply, at)"
                " VALUES (%s, %s, %s, '', %s) ON CONFLICT (user_id, command_id) DO NOTHING",
                (user_id, command_id, digest, connection.ops.adapt_datetimefield_value(now)),
            )
            if cursor.rowcount:
                return None
        receipt = self.select_for_update(no_key=True).get(user_id=user_id, command_id=command_id)
        if receipt.at >= forgotten_before:
            return receipt
        self.filter(pk=receipt.pk).update(digest=digest, reply="", at=now)
        return None

    def remember(self, user_id: UserId, command_id: str, reply: str) -> None:
        """Keep the answer that the command was given."""
        self.filter(user_id=user_id, command_id=command_id).update(reply=reply)

    def forget(self, before: datetime) -> None:
        """Delete those that are too old to answer a repeated command."""
        self.filter(at__lt=before).delete()


class CommandReceipt(models.Model):
    """The answer that a command id was given, so that the same command never acts twice.

    It is inserted before the command acts, in the same transaction: a second one with the same id, on any
    connection, waits at the unique index until the first commits, and then finds the answer here.
    """

    user_id = models.BigIntegerField()
    command_id = models.CharField(max_length=COMMAND_ID_LENGTH)
    digest = models.CharField(max_length=64, help_text="SHA-256 of the command's content")
    reply = models.TextField(blank=True, help_text="the reply frame, as it was sent")
    at = models.DateTimeField(default=timezone.now)

    objects = CommandReceiptQuerySet.as_manager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["user_id", "command_id"], name="chat_receipt_once"),)
        indexes = (models.Index(fields=["at"], name="chat_receipt_age"),)

    def __str__(self) -> str:
        return f"receipt of command {self.command_id}"


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    """Bearer tokens of all users."""

    def owned(self, user_id: UserId) -> "Owned[ApiToken, ApiTokenQuerySet]":
        """The door to one user's tokens, by the hash."""
        return Owned(self.filter(user_id=user_id), "token_hash")

    def valid(self, now: datetime) -> Self:
        """Neither revoked nor expired."""
        unexpired = models.Q(expires_at__isnull=True) | models.Q(expires_at__gt=now)
        return self.filter(unexpired, revoked_at__isnull=True)


class ApiToken(models.Model):
    """A program's credential. Only the hash is kept: who reads the table cannot use what stands in it."""

    token_hash = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the token, in hex")
    user_id = models.BigIntegerField()
    name = models.CharField(max_length=100, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        verbose_name = "API token"
        indexes = (models.Index(fields=["user_id"], name="chat_token_owner"),)

    def __str__(self) -> str:
        return f"token {self.name or self.pk} of user {self.user_id}"
