"""The processes of this deployment, to read: who lives, who fell silent, what each holds."""

from typing import ClassVar, override

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from apps.operations.connections import read_connections
from apps.operations.console import live_page
from apps.operations.deletion import begin_deletion
from apps.operations.models import ProcessReport
from apps.vocabulary import UserId


@admin.register(ProcessReport)
class ProcessReportAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    """Read only: a process writes its own report. `manage.py audit_cleanup --fix` closes what fell silent."""

    list_display = ("id", "kind", "host", "pid", "version", "started_at", "reported_at", "ending", "holds")
    list_filter = ("kind", "ending")
    readonly_fields: ClassVar[list[str]] = [field.name for field in ProcessReport._meta.fields]  # noqa: SLF001 - Django's own public name

    @override
    def get_urls(self) -> list[URLPattern]:
        """The pages that are made of the reports, beside them."""
        pages = [
            path("connections/", self.admin_site.admin_view(self.connections), name="operations_connections"),
            path("live/", self.admin_site.admin_view(self.live), name="operations_live"),
        ]
        return [*pages, *super().get_urls()]

    def live(self, request: HttpRequest) -> HttpResponse:
        """The deployment at a glance, and what may be done to it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return live_page(request, self.admin_site.each_context(request))

    def connections(self, request: HttpRequest) -> HttpResponse:
        """How the sockets of all processes keep up."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        view = read_connections(settings.CONFIGURATION.report_stale_s)
        context = {**self.admin_site.each_context(request), "title": "Connections", "view": view}
        return TemplateResponse(request, "operations/connections.html", context)

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
