"""The pages of a seam in the admin: translate a request, make one call, show one frozen view."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from waffle import get_waffle_flag_model

from apps.rollout.audit import Move
from apps.rollout.console import ConsoleView, SeamView, all_seams
from apps.rollout.mismatches import MismatchShape, Opinion, UnexplainedMute
from apps.rollout.moves import ACKNOWLEDGE_BREACH, MOVE_STAGE, acknowledge, move, person, reshuffle
from apps.rollout.seams import UnknownSeam
from apps.rollout.stages import Mover, MoveRefused, Placement, Stage, StaleStage

type Step = Callable[[SeamView, forms.Form, Mover], Move]


class ReasonForm(forms.Form):
    """Why, and which version of the stage was looked at."""

    reason = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"}),
        help_text="Kept in the audit trail, for the next person.",
    )
    version = forms.IntegerField(min_value=0, widget=forms.HiddenInput)


class MoveForm(ReasonForm):
    """What a person says who moves a stage: where to besides."""

    stage = forms.ChoiceField(widget=forms.RadioSelect)
    percent = forms.DecimalField(
        required=False, min_value=0, max_value=100, decimal_places=2, help_text="For ramp only, 0 to 100."
    )
    field_order = ("stage", "percent", "reason", "version")

    def __init__(self, view: SeamView, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(stage, stage) for stage in view.targets]
        self.fields["stage"] = forms.ChoiceField(widget=forms.RadioSelect, choices=choices)

    def asked(self) -> Placement:
        """The placement that a valid form asks for. Raises IllegalShare."""
        return Placement.of(Stage(self.cleaned_data["stage"]), self.cleaned_data["percent"])


class OpinionForm(forms.Form):
    """What a person decides about a way in which the paths differ."""

    opinion = forms.ChoiceField(
        choices=[
            (Opinion.MUTED.value, "known until the day below"),
            (Opinion.NEW_IS_RIGHT.value, "the new path is right"),
            (Opinion.OPEN.value, "open"),
        ]
    )
    until = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}))
    reason = forms.CharField(required=False, max_length=500)


class SeamPages(admin.ModelAdmin):  # type: ignore[type-arg] # not subscriptable at run time
    """What a flag's admin shows of seams: a page for each, and one POST for each thing to do on it."""

    def seam_urls(self) -> list[URLPattern]:
        """The addresses of the pages."""
        wrap = self.admin_site.admin_view
        return [
            path("seam/<str:name>/", wrap(self.seam_page), name=page_name()),
            path("seam/<str:name>/acknowledge/", wrap(self.acknowledge_page), name=page_name("_acknowledge")),
            path("seam/<str:name>/reshuffle/", wrap(self.reshuffle_page), name=page_name("_reshuffle")),
            path("seam/<str:name>/shape/<int:shape_id>/", wrap(self.shape_page), name=page_name("_shape")),
        ]

    def seam_page(self, request: HttpRequest, name: str) -> HttpResponse:
        """GET shows the seam with its forms, POST moves it: 302 moved, 400 refused, 409 someone else was
        faster.
        """
        if request.method == "POST":
            view = self._seam(request, name, MOVE_STAGE)
            return self._step(request, view, MoveForm(view, request.POST), "move")
        return self._shown(request, self._seam(request, name), {})

    def acknowledge_page(self, request: HttpRequest, name: str) -> HttpResponse:
        """POST takes the latch off, with a reason. Answers as `seam_page`."""
        return self._post(request, name, ACKNOWLEDGE_BREACH, "acknowledge")

    def reshuffle_page(self, request: HttpRequest, name: str) -> HttpResponse:
        """POST draws anew whom the share holds, with a reason. Answers as `seam_page`."""
        return self._post(request, name, MOVE_STAGE, "reshuffle")

    def shape_page(self, request: HttpRequest, name: str, shape_id: int) -> HttpResponse:
        """POST writes what was decided about a shape: 302 written, 400 refused."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        view = self._seam(request, name, MOVE_STAGE)
        row = MismatchShape.objects.at(name).filter(pk=shape_id).first()
        if row is None:
            raise Http404("there is no such shape at this seam")
        form = OpinionForm(request.POST)
        if form.is_valid():
            wish = form.cleaned_data
            opinion, owner = Opinion(wish["opinion"]), request.user.get_username()
            try:
                MismatchShape.objects.decide(row, opinion, owner, wish["reason"], wish["until"])
            except UnexplainedMute as refusal:
                form.add_error(None, str(refusal))
            else:
                messages.success(request, f"{row.shape} is {opinion.value.replace('_', ' ')}")
                return HttpResponseRedirect(seam_address(name))
        refusals = "; ".join(str(error) for errors in form.errors.values() for error in errors)
        messages.error(request, f"{row.shape}: {refusals}")
        return self._shown(request, view, {}, HTTPStatus.BAD_REQUEST)

    def _post(self, request: HttpRequest, name: str, right: str, kind: str) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        return self._step(request, self._seam(request, name, right), ReasonForm(request.POST), kind)

    def _seam(self, request: HttpRequest, name: str, right: str = "") -> SeamView:
        rights = (MOVE_STAGE, ACKNOWLEDGE_BREACH)
        looks = self.has_view_permission(request) or any(request.user.has_perm(each) for each in rights)
        if not (request.user.has_perm(right) if right else looks):
            raise PermissionDenied
        try:
            return SeamView.read(name)
        except UnknownSeam as error:
            raise Http404(str(error)) from error

    def _step(self, request: HttpRequest, view: SeamView, form: ReasonForm, kind: str) -> HttpResponse:
        status = HTTPStatus.BAD_REQUEST
        if form.is_valid():
            try:
                row = _STEPS[kind](view, form, person(request.user))
            except MoveRefused as refusal:
                form.add_error(None, str(refusal))
                status = HTTPStatus.CONFLICT if isinstance(refusal, StaleStage) else status
            else:
                messages.success(request, _told(row))
                return HttpResponseRedirect(seam_address(view.seam.name))
        if status is HTTPStatus.CONFLICT:
            view = SeamView.read(view.seam.name)
            form = _asked_again(view, form)
        return self._shown(request, view, {kind: form}, status)

    def _shown(
        self, request: HttpRequest, view: SeamView, answered: dict[str, forms.Form], status: HTTPStatus = HTTPStatus.OK
    ) -> HttpResponse:
        name, initial = view.seam.name, {"version": view.version}
        may_move = request.user.has_perm(MOVE_STAGE)
        empty = {
            "move": MoveForm(view, initial=initial) if may_move else None,
            "reshuffle": ReasonForm(initial=initial) if may_move and view.placement.stage is Stage.RAMP else None,
            "acknowledge": (
                ReasonForm(initial=initial) if view.latched_why and request.user.has_perm(ACKNOWLEDGE_BREACH) else None
            ),
        }
        context = {
            **self.admin_site.each_context(request),
            "title": f"Seam {name}",
            "opts": self.model._meta,  # noqa: SLF001 - as every admin template expects it
            "view": ConsoleView.read(name),
            "forms": empty | answered,
            "opinion": OpinionForm() if may_move else None,
            "addresses": {kind: seam_address(name, f"_{kind}") for kind in ("acknowledge", "reshuffle")},
        }
        return TemplateResponse(request, "rollout/seam.html", context, status=status)


def _move(view: SeamView, form: forms.Form, by: Mover) -> Move:
    assert isinstance(form, MoveForm)
    return move(view.seam.name, form.cleaned_data["version"], form.asked(), by, form.cleaned_data["reason"])


def _acknowledge(view: SeamView, form: forms.Form, by: Mover) -> Move:
    return acknowledge(view.seam.name, form.cleaned_data["version"], by, form.cleaned_data["reason"])


def _reshuffle(view: SeamView, form: forms.Form, by: Mover) -> Move:
    return reshuffle(view.seam.name, form.cleaned_data["version"], by, form.cleaned_data["reason"])


_STEPS: Mapping[str, Step] = {"move": _move, "acknowledge": _acknowledge, "reshuffle": _reshuffle}


def _told(row: Move) -> str:
    if row.act == "move":
        return f"Seam {row.seam} went from {row.came_from} to {row.went_to}"
    return f"Seam {row.seam}: {row.act} at {row.went_to}"


def _asked_again(view: SeamView, stale: ReasonForm) -> ReasonForm:
    """The same wishes against the stage as it is now, for the person to decide anew."""
    wishes = {**stale.cleaned_data, "version": view.version}
    form = MoveForm(view, wishes) if isinstance(stale, MoveForm) else ReasonForm(wishes)
    form.is_valid()
    for error in stale.non_field_errors():
        form.add_error(None, error)
    return form


def page_name(suffix: str = "") -> str:
    """The name of a seam's page, as `reverse` takes it behind `admin:`."""
    options = get_waffle_flag_model()._meta  # noqa: SLF001 - documented
    return f"{options.app_label}_{options.model_name}_seam{suffix}"


def seams_with_links() -> list[tuple[SeamView, str]]:
    """Every declared seam with the address of its page."""
    return [(view, seam_address(view.seam.name)) for view in all_seams()]


def seam_address(name: str, suffix: str = "") -> str:
    """The address of a seam's page, or of something to do on it."""
    return reverse(f"admin:{page_name(suffix)}", args=[name])
