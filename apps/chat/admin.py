"""The chat for operators: who has what, since when, how much. Read only.

What was said is private: titles, texts and parts are shown to staff with the permission `chat.view_contents` alone,
which no role has by itself and which a superuser has too.
"""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

from apps.chat.models import ApiToken, Message, Thread

if TYPE_CHECKING:  # the class can be subscripted by the type checker only
    ThreadAdminBase = admin.ModelAdmin[Thread]
    MessageAdminBase = admin.ModelAdmin[Message]
    TokenAdminBase = admin.ModelAdmin[ApiToken]
else:
    ThreadAdminBase = MessageAdminBase = TokenAdminBase = admin.ModelAdmin


class ReadOnly:
    """Rows that nobody adds, changes or deletes here: the chat's own calls do, with their events."""

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:  # noqa: ARG002 - nobody
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - nobody
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - nobody
        return False


def may_view_contents(request: HttpRequest) -> bool:
    """True for staff who were given the permission to read what users say."""
    return request.user.has_perm("chat.view_contents")


@admin.register(Thread)
class ThreadAdmin(ReadOnly, ThreadAdminBase):
    """Threads by owner and time; titles for those who may read contents."""

    list_display = ("id", "user_id", "created_at", "updated_at")
    list_filter = ("created_at",)
    search_fields = ("=id", "=user_id")
    ordering = ("-id",)

    def get_fields(self, request: HttpRequest, obj: Thread | None = None) -> tuple[str, ...]:  # noqa: ARG002 - one set for all
        contents = ("title",) if may_view_contents(request) else ()
        return ("id", "user_id", *contents, "leaf_id", "created_at", "updated_at")


@admin.register(Message)
class MessageAdmin(ReadOnly, MessageAdminBase):
    """Messages by owner, thread and run; what they say for those who may read contents."""

    list_display = ("message_id", "user_id", "thread_id", "run_id", "role", "created_at")
    list_filter = ("role", "created_at")
    search_fields = ("=message_id", "=user_id", "=thread__id", "=run_id")
    ordering = ("-pk",)

    def get_fields(self, request: HttpRequest, obj: Message | None = None) -> tuple[str, ...]:  # noqa: ARG002 - one set for all
        contents = ("text", "parts") if may_view_contents(request) else ()
        places = ("message_id", "user_id", "thread_id", "parent_id", "run_id", "after_run_id", "place", "role")
        return (*places, *contents, "created_at")


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnly, TokenAdminBase):
    """Tokens by owner, and whether they are used. The hash is of no use to anyone here."""

    list_display = ("name", "user_id", "created_at", "last_used_at", "expires_at", "revoked_at")
    search_fields = ("=user_id", "name")
    ordering = ("-pk",)
    fields = ("name", "user_id", "created_at", "last_used_at", "expires_at", "revoked_at")
