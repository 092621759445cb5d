"""Every address of the site, every method, every kind of reader: who is let in stands in a row, and holds."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client

from apps.chat import attachments
from apps.chat.models import ApiToken, Message
from apps.execution.models import Run
from apps.vocabulary import new_id
from tests.authorisation.addresses import PLACE, Address, every_address
from tests.authorisation.readers import ANONYMOUS, OPERATOR, OTHER, OWNER, STAFF, ask
from tests.authorisation.rows import LEAVING, MODELS, NO_SUCH_ADDRESS, ROWS, Let, row_of

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:Overriding get_actions"),  # waffle's own pages, on a newer Django
]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ADDRESSES = [address for address in every_address() if address.route not in NO_SUCH_ADDRESS]
UNIQUE = {address.route: address for address in ADDRESSES}
TO_LOG_IN = re.compile(r"^/(admin|accounts)/login/\?next=")


@pytest.fixture
def things(ann, services):
    """One of each of anna's things, by the name that it has in an address, and what else fills one in."""

    async def ready():
        return {}

    services.readiness = SimpleNamespace(failures=ready, degradations=ready)
    services.metrics = None
    thread = ann.thread("anna's title")
    ann.answer(thread.pk)
    kept = attachments.keep(ann.user_id, "a.txt", b"anna's words", attachments.limits_of(services.configuration))
    models = {
        "chat.thread": thread.pk,
        "chat.message": Message.objects.filter(user_id=ann.user_id).first().pk,
        "chat.apitoken": ApiToken.objects.filter(user_id=ann.user_id).first().pk,
        "execution.run": Run.objects.filter(user_id=ann.user_id).first().pk,
        "auth.user": ann.user_id,
    }
    places = {"content_type_id": "1", "object_id": "1", "id": str(ann.user_id), "app_label": "chat"}
    places |= {"name": "execution_engine", "shape_id": "1", "agent": "assistant", "url": "nothing"}
    places |= {"thread_id": thread.pk, "run_id": models["execution.run"], "attachment_id": kept.pk}
    return places | {f"{model}.object_id": str(key) for model, key in models.items()}


@contextmanager
def undone(client: Client) -> Iterator[None]:
    """What a call does to rows and cookies is taken back, so that each call finds the same world."""
    cookies = client.cookies.output()
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
    client.cookies.load(cookies.replace("Set-Cookie: ", ""))


def answer_of(readers, things, reader: str, method: str, address: Address):
    body = (getattr(row_of(address), "bodies", None) or {}).get(method)
    if body is not None:
        body = PLACE.sub(lambda place: things[place[1]], body)
    with undone(readers[reader]):
        return ask(readers[reader], method, address.filled(things), body)


def fault(reader: str, let: Let, answer) -> str:
    """What is wrong with an answer; empty when it is as the row says."""
    status, location = answer.status_code, answer.headers.get("Location", "")
    led_away = status == 302 and TO_LOG_IN.match(location)
    no_such_row = status == 302 and location == "/admin/"  # Django looks for the row before it looks for the right
    no_staff = reader in (ANONYMOUS, OWNER, OTHER)
    let_in = status < 400 or status in (400, 404, 405, 409, 503) or (reader == OPERATOR and status == 403)
    match let:
        case Let.ANYONE:
            right = let_in and not led_away
        case Let.PERSON:
            right = led_away if reader == ANONYMOUS else status == 200
        case Let.USER:
            right = status == 401 if reader == ANONYMOUS else let_in and status != 404
        case Let.OWNER if reader == OWNER:
            right = let_in and status != 404
        case Let.OWNER:
            right = status == (401 if reader == ANONYMOUS else 404)
        case Let.STAFF | Let.RIGHT | Let.NOBODY if no_staff:
            right = led_away
        case Let.STAFF:
            right = let_in and not led_away
        case Let.RIGHT:
            right = let_in and not led_away if reader == OPERATOR else status in (403, 404) or no_such_row
        case Let.NOBODY:
            right = status == 403 or no_such_row
    return "" if right else f"{reader} is told {status} {location} where the row lets in {let.value}"


def test_every_address_has_a_row_and_every_row_an_address():
    without = [route for route, address in UNIQUE.items() if row_of(address) is None]
    assert without == [], "say in tests/authorisation/rows.py who may do what there"
    models = {address.model for address in ADDRESSES if address.route.endswith("/history/")}
    gone = tuple(start for room, starts in LEAVING.items() if find_spec(room) is None for start in starts)
    superfluous = (set(ROWS) - set(UNIQUE)) | (set(MODELS) - models)
    assert [name for name in superfluous if not name.startswith(gone)] == []


def test_every_address_answers_each_reader_as_its_row_says(readers, things):
    faults = []
    for route, address in UNIQUE.items():
        for method, let in row_of(address).methods.items():
            for reader in readers:
                told = fault(reader, let, answer_of(readers, things, reader, method, address))
                if told:
                    faults.append(f"{method} {route}: {told}")
    assert not faults


def test_what_is_not_in_the_row_is_refused_to_everyone(readers, things):
    for route, address in UNIQUE.items():
        if route.startswith("admin/"):
            continue  # Django's pages take any method for GET
        for method in set(METHODS) - {*row_of(address).methods, "HEAD", "OPTIONS"}:
            for reader in (ANONYMOUS, OTHER):
                answer = answer_of(readers, things, reader, method, address)
                led_away = answer.status_code == 302 and TO_LOG_IN.match(answer["Location"])
                assert answer.status_code == 405 or led_away or route == "accounts/login/", (method, route, reader)


def test_no_method_opens_an_address_of_the_admin_to_who_is_no_staff(readers, things):
    for route, address in UNIQUE.items():
        if route.startswith("admin/") and Let.ANYONE not in row_of(address).methods.values():
            for method in set(METHODS) - set(row_of(address).methods):
                answer = answer_of(readers, things, OTHER, method, address)
                assert answer.status_code in (302, 405), (method, route, answer.status_code)
                assert b"anna" not in answer.content


def test_anothers_id_and_an_unknown_one_are_answered_alike(readers, things):
    unknown = dict.fromkeys(("thread_id", "run_id", "attachment_id"), new_id())
    looked_at = 0
    for route, address in UNIQUE.items():
        for method, let in row_of(address).methods.items():
            for reader in (OTHER, STAFF, OPERATOR) if let is Let.OWNER else ():
                anothers, nobodys = (
                    answer_of(readers, these, reader, method, address) for these in (things, things | unknown)
                )
                assert anothers.content == nobodys.content, route
                assert anothers.headers == nobodys.headers, route
                assert json.loads(anothers.content)["code"] == "not_found"
                looked_at += 1
    assert looked_at > 20


def test_what_a_user_is_told_is_kept_by_no_cache(readers, things):
    for route, address in UNIQUE.items():
        if row_of(address).methods.get("GET") in (None, Let.ANYONE):
            continue
        for reader in (OWNER, OPERATOR):
            answer = answer_of(readers, things, reader, "GET", address)
            if answer.status_code == 200:
                kept = set(answer.headers.get("Cache-Control", "").replace(" ", "").split(","))
                assert kept >= {"no-store", "private"}, (route, reader, answer.headers)


def test_who_is_logged_in_changes_nothing_without_the_csrf_token(ann, things):
    operator = User.objects.create_superuser("root")
    for user in (ann.user, operator):
        client = Client(enforce_csrf_checks=True, raise_request_exception=False)
        client.force_login(user)
        for route, address in UNIQUE.items():
            for method in set(row_of(address).methods) - {"GET"}:
                if row_of(address).methods[method] is Let.ANYONE and route.startswith(("api/", "favicon")):
                    continue  # documents, the same whatever they are asked with
                with undone(client):
                    answer = ask(client, method, address.filled(things), '{"title": "x"}')
                assert answer.status_code in (302, 403, 405), (route, method, answer.status_code)
                if answer.status_code == 302:
                    assert TO_LOG_IN.match(answer["Location"]) or route == "accounts/login/", (route, method)
