"""Files that users add to what they say: looked at when they come, kept for their owner, gone with what they belong to.

What a file is, its content says, never the client: text that is UTF-8 without control characters, or an image by its
first bytes. Nothing else is taken, and nothing is ever shown in place: `GET` is a download. Contents lie in the Django
storage `attachments`; the default is the database, so that every process and worker sees them.

All functions are synchronous. `attach` belongs into the transaction of the command that names the files.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

from django.core.files.base import ContentFile
from django.core.files.storage import Storage, storages
from django.db import transaction
from django.utils import timezone

from apps.chat.models import ATTACHMENT_NAME_LENGTH, Attachment, not_found
from apps.execution.admission import OWN_RETRY_S
from apps.execution.models import LONG_AGO, UserBudget
from apps.vocabulary import ErrorCode, Refusal, ThreadId, UserId, new_id

STORAGE: Final = "attachments"
REMOVED_AT_ONCE: Final = 200

_IMAGES: Final = (
    (re.compile(rb"\x89PNG\r\n\x1a\n....IHDR", re.DOTALL), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)
# How a text is read says its name; its content must be text all the same.
_TEXTS: Final[Mapping[str, str]] = {"md": "text/markdown", "csv": "text/csv", "json": "application/json"}
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ufffe\uffff]")
_NOT_IN_A_NAME: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069/\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentLimits:
    """Bounds of one user's files; those that no message holds go after `unattached_hours`."""

    bytes: int = 4_194_304  # of one file
    bytes_per_user: int = 67_108_864
    unattached_hours: int = 24


class AttachmentBounds(Protocol):
    """The bounds as the configuration names them."""

    @property
    def attachment_bytes(self) -> int: ...
    @property
    def attachment_bytes_per_user(self) -> int: ...
    @property
    def attachment_hours(self) -> int: ...


def limits_of(bounds: AttachmentBounds) -> AttachmentLimits:
    """The limits that a configuration sets."""
    return AttachmentLimits(
        bytes=bounds.attachment_bytes,
        bytes_per_user=bounds.attachment_bytes_per_user,
        unattached_hours=bounds.attachment_hours,
    )


def kind_of(name: str, content: bytes) -> str:
    """The media type that the content has. Raises Refusal(bad_request)."""
    for begins, kind in _IMAGES:
        if begins.match(content):
            return kind
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if not content or _CONTROLS.search(text):
        raise Refusal(ErrorCode.BAD_REQUEST, "a file is text in UTF-8, or a PNG, JPEG, GIF or WebP image; not empty")
    return _TEXTS.get(name.rpartition(".")[2].lower(), "text/plain")


def safe_name(name: str) -> str:
    """A client's name for a file as it can be shown and offered for saving."""
    name = _NOT_IN_A_NAME.sub("", name.encode(errors="replace").decode().replace("\\", "/").rpartition("/")[2])
    stem, dot, ending = name.strip(" .").rpartition(".")
    if len(name) > ATTACHMENT_NAME_LENGTH and dot:
        ending = ending[:16]
        name = f"{stem[: ATTACHMENT_NAME_LENGTH - len(ending) - 1]}.{ending}"
    return name.strip(" .")[:ATTACHMENT_NAME_LENGTH] or "file"


def keep(user_id: UserId, name: str, content: bytes, limits: AttachmentLimits) -> Attachment:
    """Keep a file, as belonging to nothing yet. Raises Refusal (bad_request, input_too_large, quota_exceeded)."""
    if len(content) > limits.bytes:
        raise Refusal(ErrorCode.INPUT_TOO_LARGE, f"a file has at most {limits.bytes} bytes")
    name = safe_name(name)
    kind = kind_of(name, content)
    attachment = Attachment(
        id=new_id(), user_id=user_id, name=name, media_type=kind, size=len(content), digest=_digest(content)
    )
    with transaction.atomic():
        UserBudget.objects.locked(user_id)  # what is counted must not change until it is written
        if Attachment.objects.held_bytes(user_id) + len(content) > limits.bytes_per_user:
            most = limits.bytes_per_user
            full = f"your files may have {most} bytes; delete a thread to make room"
            raise Refusal(ErrorCode.QUOTA_EXCEEDED, full, {"limit": most}, OWN_RETRY_S)
        attachment.save(force_insert=True)
        _storage().save(attachment.stored_as, ContentFile(content))
    return attachment


def describe(attachment: Attachment) -> dict[str, Any]:
    """A file as the API shows it."""
    return {
        "id": attachment.pk,
        "name": attachment.name,
        "type": attachment.media_type,
        "bytes": attachment.size,
    }


def read(user_id: UserId, attachment_id: str) -> tuple[Attachment, bytes]:
    """One of the user's files with its content. Raises Refusal(not_found)."""
    attachment = Attachment.objects.owned(user_id).get(attachment_id)
    try:
        with _storage().open(attachment.stored_as) as stored:
            content: bytes = stored.read()
    except FileNotFoundError:  # removed meanwhile
        not_found()
    return attachment, content


def attach(user_id: UserId, thread_id: ThreadId, attachment_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Let these files belong to a thread, and describe them as parts of a message. In the caller's transaction.

    Raises Refusal(not_found), also for a file that belongs to another thread.
    """
    parts: list[dict[str, Any]] = []
    for attachment_id in attachment_ids:
        attachment = Attachment.objects.owned(user_id).lock(attachment_id)
        if attachment.thread_id not in ("", thread_id):
            not_found()
        if not attachment.thread_id:
            Attachment.objects.filter(pk=attachment.pk).update(thread_id=thread_id)
        described = describe(attachment)
        parts.append({**described, "type": "attachment", "media_type": described["type"]})
    return parts


def forget_thread(user_id: UserId, thread_id: ThreadId) -> None:
    """Let the files of a thread go; the next turn of `remove_due` removes them. In the caller's transaction."""
    rows = Attachment.objects.owned(user_id).rows.filter(thread_id=thread_id)
    rows.update(thread_id="", created_at=LONG_AGO)


def remove_due(limits: AttachmentLimits) -> None:
    """Remove files that nothing holds any more, of all users, in steps."""
    before = timezone.now() - timedelta(hours=limits.unattached_hours)
    while keys := list(Attachment.objects.due(before).values_list("pk", flat=True)[:REMOVED_AT_ONCE]):
        with transaction.atomic():
            # A file that a message took meanwhile stays: who attaches it holds its row.
            gone = list(Attachment.objects.select_for_update(no_key=True).filter(pk__in=keys, thread_id=""))
            remove_files(gone)
            Attachment.objects.filter(pk__in=[attachment.pk for attachment in gone]).delete()


def remove_files(attachments: Sequence[Attachment]) -> None:
    """Remove the contents; the rows are the caller's. Doing it twice changes nothing."""
    for attachment in attachments:
        _storage().delete(attachment.stored_as)


def _storage() -> Storage:
    return storages[STORAGE]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
