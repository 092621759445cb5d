"""The processes of this deployment, to read: who lives, who fell silent, what each holds."""

from typing import ClassVar, override

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.operations.deletion import begin_deletion
from apps.operations.models import ProcessReport
from apps.vocabulary import UserId


@admin.register(ProcessReport)
class ProcessReportAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    """Read only: a process writes its own report. `manage.py audit_cleanup --fix` closes what fell silent."""

    list_display = ("id", "kind", "host", "pid", "version", "started_at", "reported_at", "ending", "holds")
    list_filter = ("kind", "ending")
    readonly_fields: ClassVar[list[str]] = [field.name for field in ProcessReport._meta.fields]  # noqa: SLF001 - Django's own public name

    @admin.display(description="holds")
    def holds(self, report: ProcessReport) -> str:
        """What is open in the process, by name."""
        return ", ".join(f"{name} {number}" for name, number in sorted(report.counts.items()) if number)

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds one by hand."""
        return False

    @override
    def has_change_permission(self, request: HttpRequest, obj: ProcessReport | None = None) -> bool:
        """Nobody changes one by hand."""
        return False

    @override
    def has_delete_permission(self, request: HttpRequest, obj: ProcessReport | None = None) -> bool:
        """Nobody deletes one by hand."""
        return False


admin.site.unregister(User)


@admin.register(User)
class TurnoutUserAdmin(UserAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    """Django's own, but that deleting a user deletes what is theirs: the same calls as `manage.py delete_user`."""

    @override
    def delete_model(self, request: HttpRequest, obj: User) -> None:
        """The first commit; a running server goes on with the steps."""
        begin_deletion(UserId(obj.pk))

    @override
    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """As `delete_model`, for each in a transaction of its own."""
        for user_id in queryset.order_by("pk").values_list("pk", flat=True):
            begin_deletion(UserId(user_id))
