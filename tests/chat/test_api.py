"""The HTTP calls as a client meets them: another user's ids, hostile input, limits, and nothing cached."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from apps.agents.registry import build_registry
from apps.chat.authentication import issue_token
from apps.chat.models import ApiToken, Thread
from apps.execution.apps import execution_config
from apps.execution.models import Run
from apps.vocabulary import UserId, new_id
from project.configuration import Configuration
from tests.chat.chat_room import Room, called, spoken

pytestmark = pytest.mark.django_db

HOSTILE_IDS = ["x", "%00", "a%0Ab", "a" * 10_240, "%F0%9F%98%80", "..", "%2e%2e%2fadmin", "'%20OR%201=1--", "%ED%A0%80"]


class Person(Room):
    """A user of the database with their own program and browser."""

    def __init__(self, name: str) -> None:
        self.user = User.objects.create_user(name, password="s3cret-enough")
        super().__init__(user_id=self.user.pk)
        self.token = issue_token(self.user_id)

    def call(self, method: str, path: str, body: Any = None, **extra: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        data = "" if body is None else json.dumps(body)
        return Client().generic(method, f"/api/{path}", data, "application/json", headers=headers, **extra)


@pytest.fixture
def services(monkeypatch):
    room = Room()
    open_services = SimpleNamespace(
        conversation=room.conversation,
        runs=room.runs,
        agents=build_registry(faulty_allowed=False),
        configuration=Configuration(),
    )
    monkeypatch.setattr(execution_config(), "_services", open_services)
    return open_services


@pytest.fixture
def ann(services):
    return Person("ann")


@pytest.fixture
def bob(services):
    return Person("bob")


def check_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    assert response["Cache-Control"] == "private, no-store"
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"]
    assert body["detail"]
    return body


# -- threads


def test_a_thread_is_made_listed_shown_changed_and_deleted(ann):
    made = ann.call("POST", "threads", {"title": "Plans"})
    assert made.status_code == 201
    thread = made.json()
    assert thread["title"] == "Plans"
    assert ann.call("GET", "threads").json() == {"threads": [thread], "next_cursor": None}
    assert ann.call("GET", f"threads/{thread['id']}").json()["thread"] == thread
    changed = ann.call("PATCH", f"threads/{thread['id']}", {"title": "  Better plans "})
    assert changed.json()["title"] == "Better plans"
    deleted = ann.call("DELETE", f"threads/{thread['id']}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    check_problem(ann.call("GET", f"threads/{thread['id']}"), 404, "not_found")


def test_a_thread_needs_no_title_and_no_body(ann):
    assert ann.call("POST", "threads").status_code == 201
    assert ann.call("POST", "threads", {}).json()["title"] == ""


def test_pages_hold_every_thread_once_newest_first(ann):
    ids = [ann.thread(str(number)).pk for number in range(60)]
    first = ann.call("GET", "threads").json()
    ann.thread("newer")
    second = ann.call("GET", f"threads?cursor={first['next_cursor']}").json()
    assert [thread["id"] for thread in first["threads"] + second["threads"]] == ids[::-1]
    assert second["next_cursor"] is None


def test_a_query_finds_titles_and_words(ann, bob):
    found = ann.thread("about invoices")
    ann.thread("other")
    bob.thread("invoices of bob")
    page = ann.call("GET", "threads?query=INVOICES").json()
    assert [thread["id"] for thread in page["threads"]] == [found.pk]


def test_a_snapshot_has_what_the_documents_say(ann):
    thread_id = ann.thread().pk
    ann.answer(thread_id, "q", "a")
    body = ann.call("GET", f"threads/{thread_id}").json()
    assert set(body) == {"thread", "messages", "runs", "interrupts", "position", "seq"}
    assert body["position"].split(".")[1] == str(body["seq"])
    question, answer = body["messages"]
    assert answer["parent_id"] == question["id"]
    assert body["thread"]["leaf_id"] == answer["id"]
    assert body["runs"][0]["status"] == "succeeded"


def test_the_branch_to_show_is_changed_by_its_message(ann):
    thread_id = ann.thread().pk
    asked = ann.answer(thread_id, "q", "a")
    end = ann.messages(thread_id)[-1].message_id
    ann.answer(thread_id, "q2", "b", parent_message_id=asked["message_id"])
    assert ann.call("PATCH", f"threads/{thread_id}", {"leaf_id": end}).json()["leaf_id"] == end
    check_problem(ann.call("PATCH", f"threads/{thread_id}", {"leaf_id": "no"}), 404, "not_found")


def test_an_export_is_a_file_of_the_shown_branch_or_of_all(ann):
    thread_id = ann.thread("My *title*").pk
    asked = ann.answer(thread_id, "old question", "old answer")
    ann.ask(thread_id, "new question", parent_message_id=asked["message_id"])
    ann.end(ann.claim(), *spoken("look"), *called("clock", "{}", "noon"))
    response = ann.call("GET", f"threads/{thread_id}/export")
    text = response.content.decode()
    assert response["Content-Type"] == "text/markdown; charset=utf-8"
    assert response["Content-Disposition"] == f'attachment; filename="thread-{thread_id}.md"'
    assert text.startswith("# My *title*\n")
    assert "new question" in text
    assert "`clock`" in text
    assert "old question" not in text
    whole = ann.call("GET", f"threads/{thread_id}/export?format=json").json()
    assert "old answer" in [message["text"] for message in whole["messages"]]
    check_problem(ann.call("GET", f"threads/{thread_id}/export?format=csv"), 400, "bad_request")


def test_too_many_threads_are_a_limit_with_a_time_to_wait(ann, services, monkeypatch):
    monkeypatch.setattr(
        services.conversation, "_limits", dataclasses.replace(services.conversation._limits, threads_per_user=1)
    )
    ann.call("POST", "threads")
    response = ann.call("POST", "threads")
    check_problem(response, 429, "quota_exceeded")
    assert int(response["Retry-After"]) > 0


# -- runs


def test_a_run_is_started_shown_and_cancelled(ann):
    thread_id = ann.thread().pk
    response = ann.call("POST", "runs", {"thread_id": thread_id, "text": "hello", "agent": "metronome"})
    assert response.status_code == 201, response.content
    started = response.json()
    assert (started["thread_id"], started["place"], started["replayed"]) == (thread_id, 1, False)
    run = ann.call("GET", f"runs/{started['run_id']}").json()
    assert (run["status"], run["agent"], run["place"]) == ("queued", "metronome", 1)
    cancelled = ann.call("POST", f"runs/{started['run_id']}/cancel").json()
    assert cancelled == {"run_id": started["run_id"], "status": "cancelled"}
    check_problem(ann.call("POST", f"runs/{started['run_id']}/cancel"), 409, "run_finished")


def test_a_repeated_call_with_an_id_starts_nothing_again(ann):
    body = {"id": "once", "thread_id": ann.thread().pk, "text": "hello"}
    first, second = ann.call("POST", "runs", body), ann.call("POST", "runs", body)
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == {**first.json(), "replayed": True}
    check_problem(ann.call("POST", "runs", {**body, "text": "other"}), 409, "id_reused")
    assert Run.objects.filter(user_id=ann.user_id).count() == 1


def test_refusals_of_runs_have_their_status(ann, services, monkeypatch):
    thread_id = ann.thread().pk
    body = {"thread_id": thread_id, "text": "hello"}
    check_problem(ann.call("POST", "runs", {**body, "agent": "nobody"}), 400, "agent_unknown")
    check_problem(ann.call("POST", "runs", {**body, "text": "x" * 40_000}), 413, "input_too_large")
    check_problem(ann.call("POST", "runs", {**body, "text": "x" * 70_000}), 413, "input_too_large")
    check_problem(ann.call("POST", "runs", {**body, "attachments": [new_id()]}), 404, "not_found")
    assert ann.call("POST", "runs", body).status_code == 201
    check_problem(ann.call("POST", "runs", body), 409, "thread_busy")
    limits = dataclasses.replace(services.runs._limits, open_runs_per_user=1)
    monkeypatch.setattr(services.runs, "_limits", limits)
    response = ann.call("POST", "runs", {**body, "if_busy": "enqueue"})
    check_problem(response, 429, "too_many_runs")
    assert response["Retry-After"] == "5"


@pytest.mark.parametrize(
    "change",
    [
        {"text": None},
        {"text": ""},
        {"text": 5},
        {"text": "a\0b"},
        {"id": "no spaces please"},
        {"id": "x" * 65},
        {"if_busy": "maybe"},
        {"attachments": "x"},
        {"attachments": ["a", "a"]},
        {"thread_id": ["x"]},
        {"user_id": 1},
        {"retry_of": "x"},
    ],
)
def test_a_run_that_does_not_hold_what_it_must_is_a_bad_request(ann, change):
    body = {"thread_id": ann.thread().pk, "text": "hello", **change}
    check_problem(ann.call("POST", "runs", body), 400, "bad_request")
    assert not Run.objects.exists()


# -- who asks


def test_me_agents_and_usage(ann):
    assert ann.call("GET", "me").json() == {"id": str(ann.user.pk), "name": "ann", "username": "ann"}
    agents = ann.call("GET", "agents").json()
    assert agents["agents"][0]["name"] == agents["default"] == "assistant"
    assert {"name", "title", "description"} == set(agents["agents"][0])
    ann.answer(ann.thread().pk)
    Run.objects.filter(user_id=ann.user_id).update(ended_at=timezone.now())
    used = {"input_tokens": 3, "output_tokens": 5}
    assert ann.call("GET", "usage").json() == {"today": used, "total": used, "runs": 1, "quota": None}


def test_usage_counts_nobody_elses_runs(ann, bob):
    ann.answer(ann.thread().pk)
    assert bob.call("GET", "usage").json()["runs"] == 0


CALLS = [
    ("GET", "threads/{thread}", None),
    ("PATCH", "threads/{thread}", {"title": "mine now"}),
    ("PATCH", "threads/{thread}", {"leaf_id": "{message}"}),
    ("DELETE", "threads/{thread}", None),
    ("GET", "threads/{thread}/export", None),
    ("GET", "threads/{thread}/export?format=json", None),
    ("POST", "runs", {"thread_id": "{thread}", "text": "hello"}),
    ("POST", "runs", {"thread_id": "{thread}", "text": "hello", "parent_message_id": "{message}"}),
    ("POST", "runs", {"thread_id": "{thread}", "retry_of": "{run}"}),
    ("GET", "runs/{run}", None),
    ("POST", "runs/{run}/cancel", None),
]


def filled(template: Any, ids: dict[str, str]) -> Any:
    text = json.dumps(template)
    for name, value in ids.items():
        text = text.replace("{" + name + "}", value)
    return json.loads(text)


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_another_users_id_is_answered_exactly_as_an_unknown_one(ann, bob, method, path, body):
    thread_id = ann.thread("hers").pk
    asked = ann.answer(thread_id)
    theirs = {"thread": thread_id, "run": asked["run_id"], "message": asked["message_id"]}
    nobodys = {"thread": new_id(), "run": new_id(), "message": new_id()}
    before = ann.entries()
    foreign = bob.call(method, filled(path, theirs), filled(body, theirs))
    unknown = bob.call(method, filled(path, nobodys), filled(body, nobodys))
    check_problem(foreign, 404, "not_found")
    assert foreign.content == unknown.content
    assert foreign.headers == unknown.headers
    assert ann.entries() == before
    assert Thread.objects.get(pk=thread_id).title == "hers"


def test_the_matrix_has_every_call_that_takes_an_id(ann):
    document = ann.call("GET", "openapi.json").json()
    with_id = {(method.upper(), path.removeprefix("/api/")) for path, calls in document["paths"].items()
               for method in calls if "{" in path}  # fmt: skip
    covered = {(method, path.split("?")[0].replace("{thread}", "{thread_id}").replace("{run}", "{run_id}"))
               for method, path, _ in CALLS}  # fmt: skip
    assert with_id <= covered


@pytest.mark.parametrize("odd", HOSTILE_IDS)
@pytest.mark.parametrize(("method", "path", "body"), [row for row in CALLS if "{" in row[1]])
def test_an_id_that_is_none_is_not_found(ann, odd, method, path, body):
    response = ann.call(method, filled(path, {"thread": odd, "run": odd}), filled(body, {"message": "x"}))
    check_problem(response, 404, "not_found")


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


def test_the_docs_page_shows_every_call_without_any_script(services):
    response = Client().get("/api/docs")
    page = response.content.decode()
    assert response.status_code == 200
    assert "<script" not in page
    assert " style=" not in page
    assert "http://" not in page.replace("http://testserver", "")
    assert "https://" not in page
    for call in ("GET /api/threads", "POST /api/runs", "DELETE /api/threads/{thread_id}"):
        assert call in page
    assert "script-src" in response["Content-Security-Policy"]


def test_a_user_id_is_given_as_text(ann):
    assert ann.call("GET", "me").json()["id"] == str(UserId(ann.user.pk))
