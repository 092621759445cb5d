"""The processes of this deployment, to read: who lives, who fell silent, what each holds."""

from typing import ClassVar, override

from django.contrib import admin
from django.http import HttpRequest

from apps.operations.models import ProcessReport


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
