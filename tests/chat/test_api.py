"""The HTTP calls as a client meets them: another user's ids, hostile input, limits, and nothing cached."""

import orjson
import pytest
from django.utils import timezone

from apps.chat.attachments import AttachmentLimits, keep
from apps.chat.models import Thread
from apps.execution.models import Run
from apps.vocabulary import Identity, UserId, new_id
from tests.chat.calling import CALLS, HOSTILE_IDS, check_problem, filled
from tests.chat.chat_room import a_start, called, spoken

pytestmark = pytest.mark.django_db


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


def test_too_many_threads_are_a_limit_with_a_time_to_wait(ann, services):
    services.allow(threads_per_user=1)
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


def test_an_id_means_the_same_over_the_socket_and_over_http(ann, services):
    identity = Identity(UserId(ann.user_id), "ann")
    command = a_start(ann.thread().pk)
    told = orjson.loads(services.conversation.execute(identity, command))
    body = {"id": command.id, "thread_id": command.thread_id, "text": command.text}
    again = ann.call("POST", "runs", body)
    assert (again.status_code, again.json()) == (200, {**told["result"], "replayed": True})
    check_problem(ann.call("POST", "runs", {**body, "text": "other"}), 409, "id_reused")
    assert Run.objects.filter(user_id=ann.user_id).count() == 1


def test_refusals_of_runs_have_their_status(ann, services):
    thread_id = ann.thread().pk
    body = {"thread_id": thread_id, "text": "hello"}
    check_problem(ann.call("POST", "runs", {**body, "agent": "nobody"}), 400, "agent_unknown")
    check_problem(ann.call("POST", "runs", {**body, "text": "x" * 40_000}), 413, "input_too_large")
    check_problem(ann.call("POST", "runs", {**body, "text": "x" * 70_000}), 413, "input_too_large")
    check_problem(ann.call("POST", "runs", {**body, "attachments": [new_id()]}), 404, "not_found")
    assert ann.call("POST", "runs", body).status_code == 201
    check_problem(ann.call("POST", "runs", body), 409, "thread_busy")
    services.allow(open_runs_per_user=1)
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
    assert ann.call("GET", "usage").json() == {
        "today": used,
        "total": used,
        "runs": 1,
        "quota": 10_000_000,
        "used": 8,
        "reserved": 0,
    }


def test_usage_counts_nobody_elses_runs(ann, bob):
    ann.answer(ann.thread().pk)
    assert bob.call("GET", "usage").json()["runs"] == 0


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_another_users_id_is_answered_exactly_as_an_unknown_one(ann, bob, method, path, body):
    thread_id = ann.thread("hers").pk
    asked = ann.answer(thread_id)
    file = keep(ann.user_id, "a.txt", b"hers", AttachmentLimits()).pk
    theirs = {"thread": thread_id, "run": asked["run_id"], "message": asked["message_id"], "attachment": file}
    nobodys = {name: new_id() for name in theirs}
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
               for method in calls if "_id}" in path}  # fmt: skip
    covered = {(method, path.split("?")[0].replace("{thread}", "{thread_id}").replace("{run}", "{run_id}")
                .replace("{attachment}", "{attachment_id}"))
               for method, path, _ in CALLS}  # fmt: skip
    assert with_id <= covered


@pytest.mark.parametrize("odd", HOSTILE_IDS)
@pytest.mark.parametrize(("method", "path", "body"), [row for row in CALLS if "{" in row[1]])
def test_an_id_that_is_none_is_not_found(ann, odd, method, path, body):
    response = ann.call(
        method, filled(path, {"thread": odd, "run": odd, "attachment": odd}), filled(body, {"message": "x"})
    )
    check_problem(response, 404, "not_found")
