"""The pages of the rollout in the admin: translate a request, make one call, show one frozen view."""

# ruff: noqa: ARG002 - Django calls these hooks with more than each of them needs

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from waffle import get_waffle_flag_model
from waffle.admin import FlagAdmin, delete_individually, disable_for_all, enable_for_all

from apps.rollout.audit import DeniedUser, Move
from apps.rollout.console import SeamView, all_seams
from apps.rollout.models import AbstractSeamFlag, Flag
from apps.rollout.moves import MOVE_STAGE, move, person
from apps.rollout.seams import UnknownSeam, declared_seams
from apps.rollout.stages import MoveRefused, Placement, Stage, StaleStage

type Action = Callable[[Any, HttpRequest, QuerySet[Any]], Any]


class MoveForm(forms.Form):
    """What a person says who moves a stage: where to, why, and which version they looked at."""

    stage = forms.ChoiceField(widget=forms.RadioSelect)
    percent = forms.DecimalField(
        required=False, min_value=0, max_value=100, decimal_places=2, help_text="For ramp only, 0 to 100."
    )
    reason = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"}),
        help_text="Kept in the audit trail, for the next person.",
    )
    version = forms.IntegerField(min_value=0, widget=forms.HiddenInput)

    def __init__(self, view: SeamView, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = forms.ChoiceField(widget=forms.RadioSelect, choices=[(stage, stage) for stage in view.targets])
        self.fields["stage"] = choices

    def asked(self) -> Placement:
        """The placement that a valid form asks for. Raises IllegalShare."""
        return Placement.of(Stage(self.cleaned_data["stage"]), self.cleaned_data["percent"])


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


class SeamFlagAdmin(FlagAdmin):  # type: ignore[misc] # waffle's classes are Any to mypy
    """Flags as waffle shows them; the stage of a seam is read-only here and is moved on the seam's page."""

    form = SeamFlagForm
    change_list_template = "rollout/change_list.html"
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
        page = path("seam/<str:name>/", self.admin_site.admin_view(self.seam_page), name=_page_name())
        return [page, *super().get_urls()]

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
        context = {"seams": _with_links(), **(extra_context or {})}
        return super().changelist_view(request, context)  # type: ignore[no-any-return]

    def seam_page(self, request: HttpRequest, name: str) -> HttpResponse:
        """GET shows the seam with the form, POST moves it: 302 moved, 400 refused, 409 someone else was
        faster.
        """
        may_move = request.user.has_perm(MOVE_STAGE)
        if not may_move and (request.method == "POST" or not self.has_view_permission(request)):
            raise PermissionDenied
        try:
            view = SeamView.read(name)
        except UnknownSeam as error:
            raise Http404(str(error)) from error
        status = HTTPStatus.OK
        form = MoveForm(view, request.POST or None, initial={"version": view.version})
        if request.method == "POST":
            status = _moved(request, view, form)
            if status is HTTPStatus.FOUND:
                return HttpResponseRedirect(reverse(f"admin:{_page_name()}", args=[name]))
            if status is HTTPStatus.CONFLICT:
                view = SeamView.read(name)
                form = _asked_again(view, form)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Seam {name}",
            "opts": self.model._meta,  # noqa: SLF001 - as every admin template expects it
            "view": view,
            "seams": _with_links(),
            "form": form if may_move else None,
        }
        return TemplateResponse(request, "rollout/seam.html", context, status=status)


def _moved(request: HttpRequest, view: SeamView, form: MoveForm) -> HTTPStatus:
    if not form.is_valid():
        return HTTPStatus.BAD_REQUEST
    try:
        row = move(
            view.seam.name,
            form.cleaned_data["version"],
            form.asked(),
            person(request.user),
            form.cleaned_data["reason"],
        )
    except MoveRefused as refusal:
        form.add_error(None, str(refusal))
        return HTTPStatus.CONFLICT if isinstance(refusal, StaleStage) else HTTPStatus.BAD_REQUEST
    messages.success(request, f"Seam {row.seam} went from {row.came_from} to {row.went_to}")
    return HTTPStatus.FOUND


def _asked_again(view: SeamView, stale: MoveForm) -> MoveForm:
    """The same wishes against the stage as it is now, for the person to decide anew."""
    data = {**stale.cleaned_data, "version": view.version}
    form = MoveForm(view, data)
    form.is_valid()
    for error in stale.non_field_errors():
        form.add_error(None, error)
    return form


def _page_name() -> str:
    options = get_waffle_flag_model()._meta  # noqa: SLF001 - documented
    return f"{options.app_label}_{options.model_name}_seam"


def _with_links() -> list[tuple[SeamView, str]]:
    return [(view, reverse(f"admin:{_page_name()}", args=[view.seam.name])) for view in all_seams()]


class MoveAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # not subscriptable at run time
    """The audit trail: read-only for everyone."""

    change_list_template = "rollout/change_list.html"
    list_display = ("seam", "at", "by_name", "came_from", "went_to", "version", "why")
    list_filter = ("seam",)
    search_fields = ("seam", "by_name", "why")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The trail below the seams it tells of."""
        return super().changelist_view(request, {"seams": _with_links(), **(extra_context or {})})

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
