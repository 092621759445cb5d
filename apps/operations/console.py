"""The live page of operators, and what they may do from it: cancel runs, close a user's sockets, drain a process.

Translate a request, make one call, show one frozen view. Each act needs the right `operations.operate` and a reason,
and leaves a row in the admin's history: who, when, what, why. Cancelling is the same call as the user's own.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from apps.execution.apps import ServicesNotOpen, execution_config
from apps.execution.models import Run
from apps.execution.service import RunService
from apps.operations.live import Bounds, read_live
from apps.operations.models import ProcessReport
from apps.operations.orders import order_to_close, order_to_drain
from apps.vocabulary import Refusal, UserId

RIGHT = "operations.operate"
_NOT_OPEN = (
    "This process executes no runs, so it cannot cancel any. Open this page on a server that manage.py serve runs."
)
_REFRESH_S = 5  # seconds between two looks, where the operator asks for them
_ACTS = 10  # newest acts shown


class ActForm(forms.Form):
    """Something to do, to whom, and why."""

    CANCEL_RUN, CANCEL_RUNS, CLOSE = "cancel_run", "cancel_runs", "close_sockets"
    ACTS: ClassVar[list[tuple[str, str]]] = [
        (CANCEL_RUN, "cancel one run"),
        (CANCEL_RUNS, "cancel all open runs of a user"),
        (CLOSE, "close all sockets of a user; their tabs come back"),
    ]
    act = forms.ChoiceField(choices=ACTS, label="What")
    target = forms.CharField(max_length=150, label="Whose", help_text="The id of a run, or the name of a user")
    why = forms.CharField(max_length=200, label="Why", help_text="Kept in the history of this page")


class DrainForm(forms.Form):
    """A process to be drained, and why."""

    process = forms.CharField(widget=forms.HiddenInput)
    why = forms.CharField(max_length=200, label="Why")


class ActRefused(Exception):  # noqa: N818 - an answer to the operator
    """What was asked cannot be done; the message says why."""


def live_page(request: HttpRequest, context: Mapping[str, Any]) -> HttpResponse:
    """Show the deployment; on POST do what was asked and show it again. `context` is the admin's own."""
    may_act = request.user.has_perm(RIGHT)
    form = ActForm()
    if request.method == "POST":
        if not may_act:
            raise PermissionDenied
        form, done = _act(request)
        if done:
            messages.success(request, done)
            return HttpResponseRedirect(reverse("admin:operations_live"))
    view = {
        **context,
        "title": "Live",
        "view": read_live(_bounds(), settings.CONFIGURATION.report_stale_s),
        "may_act": may_act,
        "form": form,
        "acts": _history(),
        "refresh_s": _REFRESH_S if "refresh" in request.GET else None,
    }
    return TemplateResponse(request, "operations/live.html", view)


def _bounds() -> Bounds:
    bounds = settings.CONFIGURATION
    return Bounds(
        connections=bounds.connections,
        run_slots=bounds.run_slots,
        queued_runs=bounds.queued_runs,
        database_threads=bounds.database_threads,
        users_with_news=bounds.hint_users,
        proofs=bounds.proofs,
    )


def _act(request: HttpRequest) -> tuple[ActForm, str]:
    """The form with what is wrong with it, or what was done."""
    if "process" in request.POST:
        return ActForm(), _drained(request)
    form = ActForm(request.POST)
    if not form.is_valid():
        return form, ""
    act = {ActForm.CANCEL_RUN: _cancel_run, ActForm.CANCEL_RUNS: _cancel_runs_of, ActForm.CLOSE: _close_sockets}
    try:
        return form, act[form.cleaned_data["act"]](request, form.cleaned_data["target"], form.cleaned_data["why"])
    except (ActRefused, Refusal) as refused:
        form.add_error("target", str(refused))
        return form, ""


def _drained(request: HttpRequest) -> str:
    form = DrainForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Say why the process is to be drained.")
        return ""
    try:
        return _drain(request, form.cleaned_data["process"], form.cleaned_data["why"])
    except ActRefused as refused:
        messages.error(request, str(refused))
        return ""


def _drain(request: HttpRequest, process_id: str, why: str) -> str:
    process = ProcessReport.objects.running(settings.CONFIGURATION.report_stale_s).filter(pk=process_id).first()
    if process is None:
        raise ActRefused("This process has ended, or is silent: it would hear no order.")
    with transaction.atomic():
        order_to_drain(process_id)
        _note(request, process_id, str(process), f"Told to drain: {why}")
    return f"{process} was told to drain. It ends within {settings.CONFIGURATION.drain_timeout_s:g} s."


def _cancel_run(request: HttpRequest, run_id: str, why: str) -> str:
    run = Run.objects.filter(pk=run_id).first() if run_id.isascii() and run_id.isprintable() else None
    if run is None:
        raise ActRefused("There is no such run.")
    runs = _runs()
    with transaction.atomic():
        how = runs.cancel(run.owner, run.run_id)
        _note(request, run.pk, f"run {run.pk}", f"Cancelled: {why}")
    return f"Run {run.pk} is {how}."


def _cancel_runs_of(request: HttpRequest, name: str, why: str) -> str:
    user_id, runs = _user(name), _runs()
    with transaction.atomic():
        runs.lock_user(user_id)
        open_runs = list(Run.objects.owned(user_id).open().order_by("ordinal"))
        for run in open_runs:
            runs.cancel(user_id, run.run_id)
        _note(request, str(user_id), f"user {user_id}", f"{len(open_runs)} open runs cancelled: {why}")
    return f"{len(open_runs)} open runs of user {user_id} are cancelled, or asked to stop."


def _close_sockets(request: HttpRequest, name: str, why: str) -> str:
    user_id = _user(name)
    with transaction.atomic():
        order_to_close(user_id)
        _note(request, str(user_id), f"user {user_id}", f"Sockets closed: {why}")
    return f"All processes were told to close the sockets of user {user_id}."


def _runs() -> RunService:
    try:
        return cast("RunService", execution_config().services.runs)
    except ServicesNotOpen:
        raise ActRefused(_NOT_OPEN) from None


def _user(name: str) -> UserId:
    model = get_user_model()
    found = model.objects.filter(**{model.USERNAME_FIELD: name}).values_list("pk", flat=True).first()
    if found is None:
        raise ActRefused("There is no such user.")
    return UserId(found)


def _note(request: HttpRequest, object_id: str, what: str, message: str) -> None:
    LogEntry.objects.create(
        user_id=cast("AbstractBaseUser", request.user).pk,
        content_type=ContentType.objects.get_for_model(ProcessReport),
        object_id=object_id,
        object_repr=what[:200],
        action_flag=CHANGE,
        change_message=message,
    )


def _history() -> list[LogEntry]:
    of_reports = ContentType.objects.get_for_model(ProcessReport)
    return list(
        LogEntry.objects.filter(content_type=of_reports).select_related("user").order_by("-action_time")[:_ACTS]
    )
