"""The show's users are its own: nobody else's stage moves, nobody else takes their seats, and they leave nothing."""

from decimal import Decimal

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from apps.chat.authentication import SessionPrincipal, TokenPrincipal
from apps.chat.handshake import BearerToken, NoCredentials, SessionCookie
from apps.operations.deletion import delete_now, unfinished
from apps.rollout.adapter import FactoryAdapter
from apps.rollout.audit import DeniedUser, Move
from apps.rollout.moves import MOVE_STAGE, RIGHTS, move
from apps.rollout.stages import Mover, MoverKind, Placement, Stage
from apps.vocabulary import Identity, UserId
from project import leak_live
from project.seams import BRIDGE_SEAM, ENGINE_SEAM, SEAMS

pytestmark = pytest.mark.django_db

SHOW = "/admin/leak-live/"
OPERATOR = Mover(MoverKind.OPERATOR, "operator", None, RIGHTS)


@pytest.fixture(autouse=True)
def plain_http(settings):
    settings.SECURE_SSL_REDIRECT = False
    settings.STORAGES = settings.STORAGES | {
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    }


@pytest.fixture
def host():
    user = User.objects.create_user("host", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename=MOVE_STAGE.partition(".")[2]))
    return user


@pytest.fixture
def client(host):
    client = Client()
    client.force_login(host)
    return client


def paths_of(user_id):
    chosen = FactoryAdapter(SEAMS).choose_paths(Identity(UserId(user_id), ""))
    return {chosen[seam.name].path for seam in SEAMS}


def test_a_show_puts_its_own_two_users_on_legacy_and_moves_nobody_else(client, host):
    assert client.post(f"{SHOW}begin/").status_code == 302
    seats = leak_live.seats_of(UserId(host.pk))
    assert [(seat.seat, seat.name, seat.on_legacy) for seat in seats] == [("a", "Ada", True), ("b", "Ben", True)]
    assert [paths_of(seat.user_id) for seat in seats] == [{"legacy"}, {"legacy"}]
    assert paths_of(host.pk) == {"factory"}
    assert not Move.objects.exists()
    page = client.get(SHOW).content.decode()
    assert all(seat.thread_id in page for seat in seats)


@pytest.mark.parametrize("stage", [Stage.ON, Stage.RAMP])
def test_one_click_puts_both_on_the_factory_and_another_one_back(client, host, stage):
    placement = Placement.of(stage, Decimal(0) if stage is Stage.RAMP else None)
    for seam in SEAMS if stage is Stage.RAMP else ():
        move(seam.name, 0, placement, OPERATOR, "test")
    client.post(f"{SHOW}begin/")
    users = [seat.user_id for seat in leak_live.seats_of(UserId(host.pk))]
    assert client.post(f"{SHOW}switch/", {"to": "factory"}).json() == {"on_legacy": [False, False]}
    assert [paths_of(user) for user in users] == [{"factory"}, {"factory"}]
    assert client.post(f"{SHOW}switch/", {"to": "legacy"}).json() == {"on_legacy": [True, True]}
    assert [paths_of(user) for user in users] == [{"legacy"}, {"legacy"}]
    assert client.post(f"{SHOW}switch/", {"to": "elsewhere"}).status_code == 400


def test_another_denial_of_a_user_is_not_taken_away(client, host):
    client.post(f"{SHOW}begin/")
    DeniedUser.objects.create(seam=ENGINE_SEAM.name, user_id=host.pk, by_name="anna", why="asked for it")
    client.post(f"{SHOW}switch/", {"to": "factory"})
    assert DeniedUser.objects.get().user_id == host.pk


@pytest.mark.parametrize("stage", [Stage.OFF, Stage.SHADOW])
def test_where_one_user_alone_cannot_be_moved_there_is_no_show_and_the_page_says_why(client, stage):
    move(BRIDGE_SEAM.name, 0, Placement(stage), OPERATOR, "test")
    assert f"websocket_bridge is {stage}" in client.get(SHOW).content.decode()
    assert client.post(f"{SHOW}begin/").status_code == 409
    assert User.objects.count() == 1


def test_a_show_ends_with_its_users_and_a_new_one_ends_what_was_left(client, host):
    client.post(f"{SHOW}begin/")
    first = {seat.user_id for seat in leak_live.seats_of(UserId(host.pk))}
    client.post(f"{SHOW}begin/")
    second = {seat.user_id for seat in leak_live.seats_of(UserId(host.pk))}
    assert not first & second
    client.post(f"{SHOW}end/")
    assert leak_live.seats_of(UserId(host.pk)) == ()
    assert list(User.objects.all()) == [host]
    assert set(unfinished(10)) == first | second
    for user_id in first | second:
        delete_now(user_id, 100)
    assert not DeniedUser.objects.exists()


@pytest.mark.parametrize("address", ["", "begin/", "switch/", "end/"])
def test_only_staff_who_may_move_stages_hold_a_show(address, host):
    for fields, status in (({"is_staff": True}, 403), ({"is_staff": False}, 302)):
        client = Client()
        client.force_login(User.objects.create_user(f"user {fields}", **fields))
        assert client.post(f"{SHOW}{address}").status_code == status
    assert Client().post(f"{SHOW}{address}").status_code == 302
    assert not leak_live.seats_of(UserId(host.pk))


def test_a_show_takes_posts_with_the_forms_token_only(host, client):
    assert [client.get(f"{SHOW}{act}/").status_code for act in ("begin", "switch", "end")] == [405, 405, 405]
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(host)
    assert careful.post(f"{SHOW}begin/").status_code == 403


def session_of(client):
    return SessionCookie(client.cookies["sessionid"].value)


def test_the_host_takes_the_seats_of_the_own_show_and_nobody_else_does(client, host):
    client.post(f"{SHOW}begin/")
    seats = leak_live.seats_of(UserId(host.pk))
    for seat in seats:
        principal = leak_live.authenticate_seat(seat.seat, session_of(client))
        assert isinstance(principal, TokenPrincipal)
        assert principal.identity.user_id == seat.user_id
    assert leak_live.authenticate_seat("c", session_of(client)) is None
    other = Client()
    other.force_login(User.objects.create_superuser("another host"))
    assert leak_live.authenticate_seat("a", session_of(other)) is None, "their own show has not begun"
    for credentials in (NoCredentials(), BearerToken("turnout_x")):
        assert leak_live.authenticate_seat("a", credentials) is None
    host.user_permissions.clear()
    assert leak_live.authenticate_seat("a", session_of(client)) is None
    assert not isinstance(principal, SessionPrincipal)


def test_throw_away_users_are_known_as_such(client, host):
    client.post(f"{SHOW}begin/")
    users = {seat.user_id for seat in leak_live.seats_of(UserId(host.pk))}
    assert leak_live.throw_away_users([*users, UserId(host.pk)]) == users
