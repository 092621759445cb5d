"""The leak, live: two throw-away users beside each other, served by the singletons, and one click that ends it.

Both are put on the deny lists of the two seams, so that legacy serves them and nobody else's stage moves. The click
takes them off again: from the next run of each, the factories serve them, on the sockets that they have. Whoever may
move stages may hold a show, one at a time; its users are removed at its end, or before the next show begins.

Deleting the legacy room ends with deleting this file, its template, script and style, and their lines in `switch.py`.
"""

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.views.decorators.http import require_POST
from waffle import get_waffle_flag_model

from apps.chat.authentication import Principal, authenticate, issue_token
from apps.chat.handshake import BearerToken, Credentials, SessionCookie
from apps.chat.models import Thread
from apps.operations.deletion import begin_deletion
from apps.rollout.audit import DeniedUser
from apps.rollout.console import SeamView
from apps.rollout.moves import MOVE_STAGE
from apps.rollout.stages import Stage
from apps.vocabulary import UserId
from project.seams import SEAMS

SEATS = ("a", "b")
SHOWN_FOR = timedelta(hours=1)  # then its sockets are closed
_PREFIX = "leak-show"
_NAMES = {"a": "Ada", "b": "Ben"}


@dataclass(frozen=True, slots=True)
class Seat:
    """One throw-away user with the thread in which their runs are."""

    seat: str
    name: str
    user_id: UserId
    thread_id: str
    on_legacy: bool


def why_no_show() -> str:
    """Empty, or why nothing could be shown at the stages as they are."""
    for seam in SEAMS:
        placement = SeamView.read(seam.name).placement
        if placement.stage not in {Stage.RAMP, Stage.ON}:
            return (
                f"{seam.name} is {placement}: one user alone can be served otherwise than the rest at ramp and on only"
            )
    return ""


def begin(host_id: UserId) -> None:
    """Make two users for a show of this host's, on legacy; what is left of an earlier show is removed."""
    end(host_id)
    with transaction.atomic():
        for seat in SEATS:
            name = f"{_PREFIX}-{host_id}-{seat}-{secrets.token_hex(4)}"
            user = get_user_model()._default_manager.create(username=name, first_name=_NAMES[seat])  # noqa: SLF001 - the public way to any manager
            user.set_unusable_password()
            user.save()
            Thread.objects.create(user_id=user.pk, title="The leak, live")
    put_on_legacy(host_id)


def put_on_legacy(host_id: UserId) -> None:
    """From their next runs on, the show's users are served by the singletons."""
    rows = [
        DeniedUser(seam=seam.name, user_id=user.pk, by_name=_PREFIX, why="a throw-away user of the leak, live")
        for seam in SEAMS
        for user in _users(host_id)
    ]
    DeniedUser.objects.bulk_create(rows, ignore_conflicts=True)


def put_on_factory(host_id: UserId) -> None:
    """From their next runs on, the show's users are served by the factories."""
    users = _users(host_id)
    with transaction.atomic():
        DeniedUser.objects.filter(user_id__in=[user.pk for user in users], by_name=_PREFIX).delete()
        for flag in get_waffle_flag_model().objects.filter(name__in=[seam.name for seam in SEAMS], stage=Stage.RAMP):
            flag.users.add(*users)  # at ramp, those who are named are served whatever the share is


def end(host_id: UserId) -> None:
    """Remove the users of this host's shows, and all that they have."""
    for user in _users(host_id):
        begin_deletion(UserId(user.pk))


def seats_of(host_id: UserId) -> tuple[Seat, ...]:
    """The two seats of the host's show; empty while there is none."""
    users = _users(host_id)
    denied = set(DeniedUser.objects.filter(user_id__in=[user.pk for user in users]).values_list("user_id", flat=True))
    threads = dict(Thread.objects.filter(user_id__in=[user.pk for user in users]).values_list("user_id", "pk"))
    return tuple(
        Seat(user.username.split("-")[3], user.first_name, UserId(user.pk), threads[user.pk], user.pk in denied)
        for user in users
        if user.pk in threads
    )


def throw_away_users(user_ids: Collection[UserId]) -> set[UserId]:
    """Those of these users who are in a show: what befalls them is meant, and nobody is to be woken for it."""
    found = get_user_model()._default_manager.filter(pk__in=user_ids, username__startswith=f"{_PREFIX}-")  # noqa: SLF001 - as above
    return {UserId(user_id) for user_id in found.values_list("pk", flat=True)}


def sockets() -> Mapping[str, Callable[[Credentials], Principal | None]]:
    """By address, how the host's credentials become those of the user in that seat."""
    return {f"/ws/leak-live/{seat}/": partial(authenticate_seat, seat) for seat in SEATS}


def authenticate_seat(seat: str, credentials: Credentials) -> Principal | None:
    """The throw-away user in this seat, for the host of the show and nobody else. Synchronous."""
    host = authenticate(credentials) if isinstance(credentials, SessionCookie) else None
    if host is None:
        return None
    user = get_user_model()._default_manager.filter(pk=host.identity.user_id).first()  # noqa: SLF001 - as above
    if not isinstance(user, AbstractUser) or not _may_host(user):
        return None
    for taken in seats_of(host.identity.user_id):
        if taken.seat == seat:
            token = issue_token(taken.user_id, "the leak, live", timezone.now() + SHOWN_FOR)
            return authenticate(BearerToken(token))
    return None


# -- pages


def urls() -> list[URLPattern]:
    """The pages of the show, to stand before those of the admin."""
    wrap = admin.site.admin_view
    return [
        path("admin/leak-live/", wrap(show_page), name="leak_live"),
        path("admin/leak-live/begin/", wrap(require_POST(begin_page)), name="leak_live_begin"),
        path("admin/leak-live/switch/", wrap(require_POST(switch_page)), name="leak_live_switch"),
        path("admin/leak-live/end/", wrap(require_POST(end_page)), name="leak_live_end"),
    ]


def show_page(request: HttpRequest) -> HttpResponse:
    """The two users beside each other, or how to begin."""
    host_id = _host(request)
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": "The leak, live",
        "refusal": why_no_show(),
        "seats": seats_of(host_id),
    }
    return TemplateResponse(request, "project/leak_live.html", context)


def begin_page(request: HttpRequest) -> HttpResponse:
    """Begin a show: 302 to it, 409 where nothing could be shown."""
    host_id = _host(request)
    if refusal := why_no_show():
        return HttpResponse(refusal, status=409, content_type="text/plain")
    begin(host_id)
    return HttpResponseRedirect(reverse("leak_live"))


def switch_page(request: HttpRequest) -> HttpResponse:
    """Put both users on the path that is asked for: `legacy` or `factory`; 400 for any other."""
    host_id = _host(request)
    match request.POST.get("to"):
        case "factory":
            put_on_factory(host_id)
        case "legacy":
            put_on_legacy(host_id)
        case _:
            return JsonResponse({"error": "`to` is legacy or factory"}, status=400)
    return JsonResponse({"on_legacy": [seat.on_legacy for seat in seats_of(host_id)]})


def end_page(request: HttpRequest) -> HttpResponse:
    """End the show: its users and all that they have are removed."""
    end(_host(request))
    return HttpResponseRedirect(reverse("leak_live"))


def _host(request: HttpRequest) -> UserId:
    if not isinstance(request.user, AbstractUser) or not _may_host(request.user):
        raise PermissionDenied
    return UserId(request.user.pk)


def _may_host(user: AbstractUser) -> bool:
    return user.is_active and user.is_staff and user.has_perm(MOVE_STAGE)


def _users(host_id: UserId) -> list[AbstractUser]:
    rows = get_user_model()._default_manager.filter(username__startswith=f"{_PREFIX}-{host_id}-")  # noqa: SLF001 - as above
    return list(rows.order_by("username"))
