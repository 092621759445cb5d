"""The pages of the rollout in the admin: translate a request, make one call, show one frozen view."""

# ruff: noqa: ARG002 - Django calls these hooks with more than each of them needs

from collections.abc import Callable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from waffle import get_waffle_flag_model
from waffle.admin import FlagAdmin, delete_individually, disable_for_all, enable_for_all

from apps.rollout.audit import DeniedUser, Move
from apps.rollout.models import AbstractSeamFlag, Flag
from apps.rollout.moves import MOVE_STAGE
from apps.rollout.pages import SeamPages, seam_address, seams_with_links
from apps.rollout.seams import declared_seams

type Action = Callable[[Any, HttpRequest, QuerySet[Any]], Any]


class SeamFlagForm(forms.ModelForm):  # type: ignore[type-arg] # the model is the project's choice
    """An ordinary flag's form: a seam's flag is made by its first move."""

    def clean_name(self) -> str:
        """Refuse to create a flag under the name of a seam."""
        name: str = self.cleaned_data["name"]
        if self.instance.pk is None and name in declared_seams():
            raise forms.ValidationError(f"{name} is a seam: move it on its own page, with a reason")
        return name


def _for_ordinary_flags(action: Action, description: str, permission: str) -> Action:
    """Waffle's action for all but seams, which have one writer and are moved with a reason."""

    @admin.action(description=description, permissions=[permission])
    def act(model_admin: Any, request: HttpRequest, flags: QuerySet[Any]) -> None:
        seams = [flag.name for flag in flags if flag.placement is not None]
        action(model_admin, request, flags.exclude(name__in=seams))
        for name in seams:
            model_admin.message_user(request, f"Seam {name} is moved on its own page, with a reason", messages.WARNING)

    act.__name__ = action.__name__
    return act


class SeamFlagAdmin(SeamPages, FlagAdmin):  # type: ignore[misc] # waffle's classes are Any to mypy
    """Flags as waffle shows them; the stage of a seam is read-only here and is moved on the seam's page."""

    form = SeamFlagForm
    change_list_template = "rollout/change_list.html"
    change_form_template = "rollout/change_form.html"
    list_display = ("name", "stage", "version", "everyone", "percent", "staff", "note")
    list_filter = ("stage", "everyone", "staff")
    actions = (
        _for_ordinary_flags(enable_for_all, "Enable selected flags for everyone", "change"),
        _for_ordinary_flags(disable_for_all, "Disable selected flags for everyone", "change"),
        _for_ordinary_flags(delete_individually, "Delete selected", "delete"),
    )
    # What waffle has besides the stage and means nothing for a seam: visitors' cookies, languages,
    # superusers.
    SEAM_READ_ONLY: ClassVar[tuple[str, ...]] = (
        "name",
        *("stage", "share_buckets", "version", "salt", "latched_at", "latched_why", "everyone", "percent"),
        *("testing", "superusers", "authenticated", "languages", "rollout"),
    )

    def get_urls(self) -> list[URLPattern]:
        """The pages of waffle's admin, and one for each seam."""
        return [*self.seam_urls(), *super().get_urls()]

    def get_actions(
        self, request: HttpRequest, action_location: admin.ActionLocation = admin.ActionLocation.CHANGE_LIST
    ) -> dict[str, Any]:
        """Ours alone, past waffle 5.0.0, whose override has a signature that Django 6.1 deprecates."""
        actions: dict[str, Any] = admin.ModelAdmin.get_actions(self, request, action_location)
        actions.pop("delete_selected", None)  # it deletes without leaving waffle's cache empty
        return actions

    def get_readonly_fields(self, request: HttpRequest, obj: AbstractSeamFlag | None = None) -> tuple[str, ...]:
        """All that says who is served by what, where the flag holds a seam."""
        return self.SEAM_READ_ONLY if obj is not None and obj.placement is not None else ()

    def has_delete_permission(self, request: HttpRequest, obj: AbstractSeamFlag | None = None) -> bool:
        """Nobody deletes a declared seam."""
        declared = obj is not None and obj.name in declared_seams()
        return not declared and super().has_delete_permission(request, obj)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list of flags below the list of seams, with what is dangerous on top."""
        context = {"seams": seams_with_links(), **(extra_context or {})}
        return super().changelist_view(request, context)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """A seam's flag leads to the seam's page, where its stage is moved."""
        flag: AbstractSeamFlag | None = kwargs.get("obj")
        if flag is not None and flag.name in declared_seams():
            context["seam_address"] = seam_address(flag.name)
        return super().render_change_form(request, context, *args, **kwargs)


class MoveAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # not subscriptable at run time
    """The audit trail: read-only for everyone."""

    change_list_template = "rollout/change_list.html"
    list_display = ("seam", "at", "by_name", "came_from", "went_to", "version", "why")
    list_filter = ("seam",)
    search_fields = ("seam", "by_name", "why")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The trail below the seams it tells of."""
        return super().changelist_view(request, {"seams": seams_with_links(), **(extra_context or {})})

    def has_add_permission(self, request: HttpRequest) -> bool:
        """A row is written by a move alone."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Move | None = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Move | None = None) -> bool:
        """Never."""
        return False


class DeniedUserAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # as above
    """The deny list: rows are added with a reason, and deleted, by those who may move stages."""

    list_display = ("seam", "user_id", "why", "by_name", "at")
    list_filter = ("seam",)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """The seam is one of those declared."""
        if db_field.name == "seam":
            return forms.ChoiceField(choices=[(name, name) for name in sorted(declared_seams())])
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: DeniedUser, form: Any, change: Any) -> None:
        """Note who added the row."""
        obj.by_name = request.user.get_username()
        super().save_model(request, obj, form, change)

    def has_view_permission(self, request: HttpRequest, obj: DeniedUser | None = None) -> bool:
        """Who may move stages."""
        return request.user.has_perm(MOVE_STAGE)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Who may move stages."""
        return request.user.has_perm(MOVE_STAGE)

    def has_change_permission(self, request: HttpRequest, obj: DeniedUser | None = None) -> bool:
        """A row is added or deleted, so that it says who wrote what it says."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: DeniedUser | None = None) -> bool:
        """Who may move stages."""
        return request.user.has_perm(MOVE_STAGE)


if get_waffle_flag_model() is Flag:  # a project with a flag model of its own registers a subclass of SeamFlagAdmin
    admin.site.register(Flag, SeamFlagAdmin)
admin.site.register(Move, MoveAdmin)
admin.site.register(DeniedUser, DeniedUserAdmin)
