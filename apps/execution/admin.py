"""What operators see of runs: how they stand and what they used. What users wrote is theirs, and is not shown."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone

from apps.execution.models import Run, UserBudget


class _ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    # A row that is changed by hand no longer fits the log and the counts beside it.
    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        return False


@admin.register(Run)
class RunAdmin(_ReadOnlyAdmin):
    """Runs, newest first."""

    list_display = ("id", "user_id", "agent", "status", "error_code", "admitted_at", "started_at", "ended_at")
    list_filter = ("status", "agent", "error_code")
    search_fields = ("id", "=user_id", "=thread_id")
    ordering = ("-id",)
    list_per_page = 50
    show_full_result_count = False
    exclude = ("text", "message", "attachments", "user_name")


@admin.register(UserBudget)
class UserBudgetAdmin(_ReadOnlyAdmin):
    """What each user's runs hold, the busiest first."""

    list_display = (
        "user_id",
        "queued",
        "running",
        "waiting",
        "admitted",
        "used_today",
        "reserved_tokens",
        "tokens_per_day",
        "last_started_at",
    )
    search_fields = ("=user_id",)
    ordering = ("-running", "-queued", "user_id")
    list_per_page = 50
    show_full_result_count = False

    @admin.display(description="used today (UTC), in tokens")
    def used_today(self, budget: UserBudget) -> int:
        """The tokens of the runs that ended today."""
        return budget.used_on(timezone.now().date())
