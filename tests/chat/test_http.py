"""How calls come in and go out: access, hostile input, problems, documents; and nothing is cached."""

import json

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from apps.chat.models import ApiToken, Thread
from apps.execution.apps import execution_config
from apps.vocabulary import UserId
from tests.chat.calling import CALLS, check_problem

pytestmark = pytest.mark.django_db


# -- access


@pytest.mark.parametrize(("method", "path", "body"), [*CALLS, ("GET", "threads", None), ("GET", "me", None),
                         ("POST", "threads", {}), ("GET", "agents", None), ("GET", "usage", None)])  # fmt: skip
def test_nobody_is_answered_without_a_user(services, method, path, body):
    data = "" if body is None else json.dumps(body)
    response = Client().generic(method, f"/api/{path}", data, "application/json")
    check_problem(response, 401, "unauthenticated")
    assert response["WWW-Authenticate"] == "Bearer"


def test_a_session_needs_the_csrf_token_to_change_something(ann):
    client = Client(enforce_csrf_checks=True)
    client.force_login(ann.user)
    assert client.get("/api/me").json()["username"] == "ann"
    check_problem(client.post("/api/threads", "{}", "application/json"), 403, "forbidden")
    assert not Thread.objects.exists()
    client.cookies["csrftoken"] = "x" * 32
    response = client.post("/api/threads", "{}", "application/json", headers={"X-CSRFToken": "x" * 32})
    assert response.status_code == 201


def test_a_token_needs_no_csrf_token_and_speaks_for_its_user_alone(ann, bob):
    client = Client(enforce_csrf_checks=True)
    client.force_login(bob.user)
    headers = {"Authorization": f"Bearer {ann.token}"}
    assert client.get("/api/me", headers=headers).json()["username"] == "ann"
    assert client.post("/api/threads", "{}", "application/json", headers=headers).status_code == 201


@pytest.mark.parametrize(
    "authorization", ["Bearer wrong", "Bearer", "Basic YTpi", "Bearer a,Bearer b", "bearer  x", "é"]
)
def test_a_wrong_token_is_refused_even_beside_a_valid_session(ann, authorization):
    client = Client()
    client.force_login(ann.user)
    check_problem(client.get("/api/me", headers={"Authorization": authorization}), 401, "unauthenticated")


def test_a_revoked_token_and_a_disabled_user_are_refused(ann, bob):
    ApiToken.objects.filter(user_id=ann.user_id).update(revoked_at=timezone.now())
    check_problem(ann.call("GET", "me"), 401, "unauthenticated")
    User.objects.filter(pk=bob.user.pk).update(is_active=False)
    check_problem(bob.call("GET", "me"), 401, "unauthenticated")


# -- hostile input


@pytest.mark.parametrize(
    "body",
    ["{", "[]", "null", '"x"', "1", "NaN", '{"title": NaN}', '{"title": 1e999}', '{"title": 5}', "\ufeff{}",
     '{"title": "\\ud800"}', '{"title": "a\\u0000b"}', '{"title": true}', '{"title": null}', '{"title": ["x"]}',
     '{"title": "x", "user_id": 7}', '{"__proto__": {}}', "[" * 100_000, '{"title": "' + "x" * 201 + '"}',
     '{"title": ' + "9" * 5_000 + "}"],
)  # fmt: skip
def test_a_body_that_is_none_is_a_bad_request_and_nothing_is_stored(ann, body):
    headers = {"Authorization": f"Bearer {ann.token}"}
    response = Client().post("/api/threads", body.encode(), "application/json", headers=headers)
    if body == "null":
        assert response.status_code == 201  # the same as no body
        return
    check_problem(response, 400, "bad_request")
    assert not Thread.objects.exists()


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json"]
)
def test_a_body_that_says_it_is_something_else_is_a_bad_request(ann, content_type):
    headers = {"Authorization": f"Bearer {ann.token}"}
    response = Client().generic("POST", "/api/threads", '{"title": "x"}', content_type, headers=headers)
    check_problem(response, 400, "bad_request")


@pytest.mark.parametrize(
    "query", ["cursor=x", "cursor=%00", "cursor=" + "a" * 65, "query=%00", "query=" + "x" * 201, "cursor=-1'"]
)
def test_a_list_that_is_asked_wrongly_is_a_bad_request(ann, query):
    check_problem(ann.call("GET", f"threads?{query}"), 400, "bad_request")


@pytest.mark.parametrize(
    "query", ["page=-1", "limit=1e9", "query=a&query=b", "user__password=x", "query=%25", "cursor="]
)
def test_what_a_list_does_not_know_is_passed_over(ann, query):
    assert ann.call("GET", f"threads?{query}").status_code == 200


def test_a_body_over_the_servers_bound_is_refused(ann, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000
    check_problem(ann.call("POST", "threads", {"title": "x" * 2_000}), 413, "input_too_large")


@pytest.mark.parametrize("path", ["", "nothing", "threads/x/y/z", "threads/", "runs", "docs/x"])
def test_an_unknown_address_is_a_problem(ann, path):
    response = ann.call("GET", path)
    assert response.status_code in {404, 405}
    check_problem(response, response.status_code, response.json()["code"])


@pytest.mark.parametrize("method", ["PUT", "TRACE", "OPTIONS", "POST", "NONSENSE"])
def test_a_method_that_an_address_does_not_take_is_a_problem_that_names_those_it_does(ann, method):
    response = ann.call(method, f"threads/{ann.thread().pk}")
    check_problem(response, 405, "method_not_allowed")
    assert response["Allow"] == "DELETE, GET, PATCH"


# -- failures


def test_a_fault_of_ours_is_a_reference_and_no_trace(ann, services, monkeypatch, caplog):
    def broken(*_: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(services.conversation, "create_thread", broken)
    body = check_problem(ann.call("POST", "threads", {}), 500, "internal")
    assert "canary" not in str(body)
    assert body["detail"].split()[-1] in caplog.text


def test_without_open_services_reading_works_and_the_rest_names_serve(ann, monkeypatch):
    thread_id = ann.thread().pk
    monkeypatch.setattr(execution_config(), "_services", None)
    assert ann.call("GET", "threads").status_code == 200
    assert ann.call("GET", f"threads/{thread_id}").status_code == 200
    body = check_problem(ann.call("POST", "threads", {}), 503, "unavailable")
    assert "manage.py serve" in body["detail"]


# -- documents


def test_every_answer_is_private(ann):
    thread_id = ann.thread().pk
    for path in ("me", "threads", f"threads/{thread_id}", f"threads/{thread_id}/export", "openapi.json", "docs"):
        assert ann.call("GET", path)["Cache-Control"] == "private, no-store", path


def test_the_openapi_document_names_every_call_and_its_problems(ann):
    document = ann.call("GET", "openapi.json").json()
    assert document["openapi"] == "3.1.0"
    calls = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert ("post", "/api/runs") in calls
    assert ("get", "/api/threads/{thread_id}") in calls
    ids = [call["operationId"] for methods in document["paths"].values() for call in methods.values()]
    assert len(ids) == len(set(ids))
    for methods in document["paths"].values():
        for call in methods.values():
            for status, answer in call["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"]
    listing = document["paths"]["/api/threads"]["get"]["parameters"]
    assert [parameter["required"] for parameter in listing] == [False, False]


def test_the_docs_page_shows_every_call_with_no_script_but_its_own(services):
    response = Client().get("/api/docs")
    page = response.content.decode()
    assert response.status_code == 200
    assert page.count("<script") == page.count('<script type="module" src="/static/chat/tryout.js"></script>') == 1
    assert " style=" not in page
    assert "http://" not in page.replace("http://testserver", "")
    assert "https://" not in page
    for call in ("GET /api/threads", "POST /api/runs", "DELETE /api/threads/{thread_id}"):
        assert call in page
    assert "script-src" in response["Content-Security-Policy"]


def test_a_user_id_is_given_as_text(ann):
    assert ann.call("GET", "me").json()["id"] == str(UserId(ann.user.pk))
