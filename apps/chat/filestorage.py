"""A Django storage in the database: the default for attachments, so that workers on other machines see them.

It is made for small files that are written once: a content is one row, read and written whole.
"""

from typing import override

from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage

from apps.chat.models import StoredFile


class DatabaseStorage(Storage):
    """Names are `OWNER/ID`; the owner's number goes into the row, so that it is found when its user is deleted."""

    def _open(self, name: str, mode: str = "rb") -> "File[bytes]":
        row = StoredFile.objects.filter(pk=name).first()
        if row is None or mode != "rb":
            raise FileNotFoundError(f"there is no stored file {name!r} to open as {mode}")
        return ContentFile(bytes(row.content), name=name)

    def _save(self, name: str, content: "File[bytes]") -> str:
        owner = int(name.partition("/")[0])
        StoredFile.objects.create(name=name, user_id=owner, content=content.read())
        return name

    @override
    def delete(self, name: str) -> None:
        """Remove it; nothing happens if it is not there."""
        StoredFile.objects.filter(pk=name).delete()

    @override
    def exists(self, name: str) -> bool:
        return StoredFile.objects.filter(pk=name).exists()
