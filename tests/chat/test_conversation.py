"""Commands: at most once for their id, own threads only, and every change with its event in one transaction."""

import dataclasses
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from apps.chat.conversation import automatic_title
from apps.chat.models import CommandReceipt, Message, Thread
from apps.execution.models import Run
from apps.realtime.models import RunLedger
from apps.realtime.protocol import IfBusy, RunCancel, ToolDecide
from apps.vocabulary import ErrorCode, Refusal, RunId, ThreadId, new_id
from tests.chat.chat_room import CHAT_LIMITS, Room, a_start, spoken, texts

pytestmark = pytest.mark.django_db


def refused(code: ErrorCode) -> Any:
    return pytest.raises(Refusal, match=f"^{code}:")


# -- once


def test_a_command_is_answered_with_its_result():
    room = Room()
    command = a_start(room.thread().pk)
    reply = room.execute(command)
    assert (reply["type"], reply["id"], reply["ok"]) == ("reply", command.id, True)
    assert set(reply["result"]) == {"run_id", "thread_id", "message_id", "place"}
    assert reply["result"]["place"] == 1


def test_the_same_command_acts_once_and_gets_the_first_reply_again():
    room = Room()
    command = a_start(room.thread().pk)
    first = room.execute(command)
    again = room.execute(command)
    assert again == {**first, "replayed": True}
    assert Run.objects.filter(user_id=room.user_id).count() == 1


def test_the_same_id_with_other_content_is_refused_and_changes_nothing():
    room = Room()
    thread_id = room.thread().pk
    command = a_start(thread_id)
    first = room.execute(command)
    for other in (a_start(thread_id, "other", id=command.id), RunCancel(command.id, RunId(first["result"]["run_id"]))):
        assert room.execute(other)["error"]["code"] == "id_reused"
    assert room.execute(command) == {**first, "replayed": True}


def test_an_id_of_one_user_is_free_for_another():
    ann, bob = Room(), Room()
    command = a_start(ann.thread().pk)
    ann.execute(command)
    reply = bob.execute(a_start(bob.thread().pk, id=command.id))
    assert reply["ok"]
    assert "replayed" not in reply


def test_a_lasting_refusal_is_remembered():
    room = Room()
    command = a_start(new_id())
    first = room.execute(command)
    assert first["error"]["code"] == "not_found"
    assert room.execute(command) == {**first, "replayed": True}


def test_a_passing_refusal_is_not_remembered(monkeypatch):
    room = Room()
    command = a_start(room.thread().pk)
    monkeypatch.setattr(room.runs, "_limits", dataclasses.replace(room.runs._limits, queued_runs=1))
    blocker = Room()
    blocker.ask(blocker.thread().pk)
    refusal = room.execute(command)
    assert refusal["error"]["code"] == "queue_full"
    assert refusal["error"]["retry_after_s"] > 0
    assert not Message.objects.filter(user_id=room.user_id).exists()
    monkeypatch.undo()
    accepted = room.execute(command)
    assert accepted["ok"]
    assert "replayed" not in accepted


def test_a_database_that_is_away_is_a_passing_refusal(monkeypatch):
    room = Room()
    command = a_start(room.thread().pk)

    def away(*_: object) -> None:
        raise OperationalError("canary: server closed the connection")

    monkeypatch.setattr(room.runs, "lock_user", away)
    reply = room.execute(command)
    assert reply["error"]["code"] == "unavailable"
    assert "canary" not in orjson.dumps(reply).decode()
    monkeypatch.undo()
    assert room.execute(command)["ok"]


def test_a_fault_of_ours_is_told_by_reference_and_logged(monkeypatch, caplog):
    room = Room()
    command = a_start(room.thread().pk)

    def broken(*_: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(room.runs, "lock_user", broken)
    error = room.execute(command)["error"]
    assert error["code"] == "internal"
    assert "canary" not in error["message"]
    reference = error["message"].split()[-1]
    assert reference in caplog.text
    monkeypatch.undo()
    assert room.execute(command)["ok"]


def test_an_id_is_forgotten_after_its_hours_and_its_receipt_deleted():
    room = Room()
    thread_id = room.thread().pk
    command, other = a_start(thread_id), a_start(thread_id, if_busy=IfBusy.ENQUEUE)
    room.execute(command)
    room.execute(other)
    long_ago = timezone.now() - timedelta(hours=CHAT_LIMITS.receipt_hours, seconds=1)
    CommandReceipt.objects.filter(user_id=room.user_id).update(at=long_ago)
    reply = room.execute(dataclasses.replace(command, if_busy=IfBusy.ENQUEUE))
    assert reply["ok"]
    assert "replayed" not in reply
    assert list(CommandReceipt.objects.filter(user_id=room.user_id).values_list("command_id", flat=True)) == [
        command.id
    ]


def in_threads(*works: Callable[[], Any]) -> list[Any]:
    results: list[Any] = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(number: int) -> None:
        try:
            barrier.wait()
            results[number] = works[number]()
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.django_db(transaction=True)
def test_the_same_command_on_eight_connections_at_once_acts_once():
    room = Room()
    command = a_start(room.thread().pk)
    replies = in_threads(*[lambda: room.execute(command)] * 8)
    assert sorted(reply.get("replayed", False) for reply in replies) == [False] + [True] * 7
    assert len({reply["result"]["run_id"] for reply in replies}) == 1
    assert Run.objects.count() == Message.objects.count() == 1


# -- starting


def test_starting_writes_message_run_and_event_together():
    room = Room()
    thread = room.thread("mine")
    started = room.ask(thread.pk, "how are you?", agent="metronome")
    (message,) = room.messages(thread.pk)
    run = Run.objects.get(pk=started["run_id"])
    assert (message.message_id, message.text, message.run_id) == (started["message_id"], "how are you?", run.pk)
    assert (run.message_id, run.text, run.agent) == (message.message_id, "how are you?", "metronome")
    (queued,) = room.events("turnout.run.queued")
    assert queued["event"]["value"]["place"] == 1
    told = queued["event"]["value"]["message"]
    assert (told["id"], told["role"], told["content"]) == (message.message_id, "user", "how are you?")
    thread.refresh_from_db()
    assert thread.leaf_id == message.message_id


def test_a_refused_start_leaves_nothing_behind():
    room = Room()
    thread_id = room.thread("t").pk
    before = room.entries()
    with refused(ErrorCode.AGENT_UNKNOWN):
        room.ask(thread_id, agent="../../x")
    assert room.entries() == before
    assert not Message.objects.filter(user_id=room.user_id).exists()
    assert not RunLedger.objects.filter(user_id=room.user_id).exists()


def test_a_thread_that_is_unknown_or_anothers_is_refused_in_the_same_words():
    ann, bob = Room(), Room()
    foreign = bob.execute(a_start(ann.thread().pk))["error"]
    unknown = bob.execute(a_start(new_id()))["error"]
    assert foreign == unknown
    assert foreign["code"] == "not_found"


def test_an_untitled_thread_is_named_after_what_is_said_first():
    room = Room()
    thread = room.thread()
    room.ask(thread.pk, "  What is\nthe weather?  ")
    thread.refresh_from_db()
    assert thread.title == "What is the weather?"
    (updated,) = room.events("turnout.thread.updated")
    assert updated["event"]["value"] == {"id": thread.pk, "title": "What is the weather?"}


@pytest.mark.parametrize(
    ("text", "title"),
    [("", ""), ("short", "short"), ("word " * 30, "word " * 10 + "word…"), ("x" * 100, "x" * 59 + "…")],
)
def test_an_automatic_title_is_cut_between_words(text, title):
    assert automatic_title(text) == title
    assert len(title) <= 60


def test_a_busy_thread_refuses_a_second_run_unless_told_what_to_do():
    room = Room()
    thread_id = room.thread().pk
    room.ask(thread_id)
    with refused(ErrorCode.THREAD_BUSY):
        room.ask(thread_id)
    assert room.ask(thread_id, "next", if_busy=IfBusy.ENQUEUE)["place"] == 2


def test_an_enqueued_message_follows_the_answer_that_comes_before_it():
    room = Room()
    thread_id = room.thread().pk
    room.ask(thread_id, "one")
    room.ask(thread_id, "two", if_busy=IfBusy.ENQUEUE)
    room.end(room.claim(), *spoken("answer to one", message_id="a"))
    one, two = Message.objects.filter(user_id=room.user_id, role="user").order_by("pk")
    assert (one.parent_id, two.parent_id) == ("", "a")
    assert room.snapshot(thread_id)["thread"]["leaf_id"] == two.message_id


def test_an_interrupt_stops_the_old_run_and_goes_on_behind_what_it_said():
    room = Room()
    thread_id = room.thread().pk
    old = room.ask(thread_id, "one")
    claimed = room.claim()
    room.say(claimed, *spoken("half", message_id="a"))
    room.ask(thread_id, "two", if_busy=IfBusy.INTERRUPT)
    assert Run.objects.get(pk=old["run_id"]).cancel_requested
    room.end(claimed, how="cancelled")
    assert room.snapshot(thread_id)["messages"][-1]["parent_id"] == "a"


def test_a_rollback_leaves_the_old_turn_beside_the_branch():
    room = Room()
    thread_id = room.thread().pk
    room.answer(thread_id, "zero", "nought")
    answer = room.messages(thread_id)[-1].message_id
    room.ask(thread_id, "one")
    claimed = room.claim()
    room.say(claimed, *spoken("half", message_id="a"))
    started = room.ask(thread_id, "instead", if_busy=IfBusy.ROLLBACK)
    room.end(claimed, how="cancelled")
    snapshot = room.snapshot(thread_id)
    message = next(row for row in snapshot["messages"] if row["id"] == started["message_id"])
    assert message["parent_id"] == answer
    assert snapshot["thread"]["leaf_id"] == message["id"]


def test_a_parent_that_is_an_answer_starts_a_branch_behind_it():
    room = Room()
    thread_id = room.thread().pk
    room.answer(thread_id, "one", "first")
    first = room.messages(thread_id)[-1].message_id
    room.answer(thread_id, "two", "second")
    started = room.ask(thread_id, "two, differently", parent_message_id=first)
    assert Message.objects.get(message_id=started["message_id"]).parent_id == first


def test_a_parent_that_is_a_users_message_is_edited_even_the_first_one():
    room = Room()
    thread_id = room.thread().pk
    asked = room.answer(thread_id, "one", "first")
    started = room.ask(thread_id, "one, edited", parent_message_id=asked["message_id"])
    assert Message.objects.get(message_id=started["message_id"]).parent_id == ""
    assert room.snapshot(thread_id)["thread"]["leaf_id"] == started["message_id"]


def test_a_parent_of_another_thread_is_not_found():
    room = Room()
    other = room.answer(room.thread().pk)
    with refused(ErrorCode.NOT_FOUND):
        room.ask(room.thread().pk, parent_message_id=other["message_id"])


def test_answering_again_asks_the_same_message_and_adds_none():
    room = Room()
    thread_id = room.thread().pk
    asked = room.answer(thread_id, "one", "first", agent="metronome")
    again = room.ask(thread_id, None, retry_of=asked["run_id"])
    run = Run.objects.get(pk=again["run_id"])
    assert again["message_id"] == asked["message_id"]
    assert (run.text, run.agent, run.retry_of) == ("one", "metronome", asked["run_id"])
    assert texts(room.messages(thread_id)) == ["one", "first"]


def test_only_an_own_run_of_the_same_thread_is_answered_again():
    ann, bob = Room(), Room()
    asked = ann.answer(ann.thread().pk)
    for room, thread_id in ((bob, bob.thread().pk), (ann, ann.thread().pk)):
        with refused(ErrorCode.NOT_FOUND):
            room.ask(thread_id, None, retry_of=asked["run_id"])


def test_attachments_that_do_not_exist_are_not_found():
    room = Room()
    with refused(ErrorCode.NOT_FOUND):
        room.ask(room.thread().pk, attachments=(new_id(),))


def test_a_text_over_its_bytes_as_json_is_refused():
    room = Room(dataclasses.replace(CHAT_LIMITS, text_bytes=12))
    thread_id = room.thread().pk
    room.ask(thread_id, "0123456789")
    with refused(ErrorCode.INPUT_TOO_LARGE):
        room.ask(thread_id, '"123456789', if_busy=IfBusy.ENQUEUE)


def test_a_full_thread_takes_no_further_message():
    room = Room(dataclasses.replace(CHAT_LIMITS, messages_per_thread=2))
    thread_id = room.thread().pk
    room.answer(thread_id)
    with refused(ErrorCode.QUOTA_EXCEEDED):
        room.ask(thread_id)


# -- cancelling and deciding


def test_a_queued_run_is_cancelled_at_once_and_a_running_one_asked_to_stop():
    room = Room()
    running = room.ask(room.thread().pk)
    room.claim()
    queued = room.ask(room.thread().pk)
    assert room.execute(RunCancel(new_id(), running["run_id"]))["result"]["status"] == "cancelling"
    assert room.execute(RunCancel(new_id(), queued["run_id"]))["result"]["status"] == "cancelled"
    assert room.execute(RunCancel(new_id(), queued["run_id"]))["error"]["code"] == "run_finished"


def test_another_users_run_is_refused_as_an_unknown_one():
    ann, bob = Room(), Room()
    run_id = ann.ask(ann.thread().pk)["run_id"]
    foreign = bob.execute(RunCancel(new_id(), run_id))["error"]
    assert foreign == bob.execute(RunCancel(new_id(), RunId(new_id())))["error"]
    assert foreign["code"] == "not_found"
    assert Run.objects.get(pk=run_id).status == "queued"


def test_a_tool_call_that_nobody_waits_for_is_not_found():
    assert Room().execute(ToolDecide(new_id(), "call", approve=True))["error"]["code"] == "not_found"


# -- threads


def test_a_new_thread_is_told_to_all_tabs():
    room = Room()
    thread = room.thread("plans")
    (created,) = room.events("turnout.thread.created")
    assert created["thread_id"] == thread.pk
    assert created["event"]["value"] | {"created_at": "", "updated_at": ""} == {
        "id": thread.pk,
        "title": "plans",
        "leaf_id": None,
        "created_at": "",
        "updated_at": "",
    }


def test_nobody_keeps_more_threads_than_allowed():
    room = Room(dataclasses.replace(CHAT_LIMITS, threads_per_user=2))
    room.thread()
    room.thread()
    with refused(ErrorCode.QUOTA_EXCEEDED):
        room.thread()


def test_a_branch_is_shown_to_its_end():
    room = Room()
    thread_id = room.thread().pk
    asked = room.answer(thread_id, "one", "first")
    end = room.messages(thread_id)[-1].message_id
    room.answer(thread_id, "edited", "other", parent_message_id=asked["message_id"])
    room.conversation.change_thread(room.identity, thread_id, leaf_id=asked["message_id"])
    assert room.snapshot(thread_id)["thread"]["leaf_id"] == end
    assert room.events("turnout.thread.updated")[-1]["event"]["value"] == {"id": thread_id, "leaf_id": end}


def test_a_branch_of_another_thread_cannot_be_shown():
    room = Room()
    other = room.answer(room.thread().pk)
    with refused(ErrorCode.NOT_FOUND):
        room.conversation.change_thread(room.identity, ThreadId(room.thread().pk), leaf_id=other["message_id"])


def test_a_change_of_nothing_tells_nothing():
    room = Room()
    thread_id = room.thread().pk
    room.conversation.change_thread(room.identity, thread_id)
    assert room.events("turnout.thread.updated") == []


@pytest.mark.parametrize("act", ["change_thread", "delete_thread"])
def test_another_users_thread_can_be_neither_changed_nor_deleted(act):
    ann, bob = Room(), Room()
    thread_id = ThreadId(ann.thread("hers").pk)
    with refused(ErrorCode.NOT_FOUND):
        getattr(bob.conversation, act)(bob.identity, thread_id)
    assert Thread.objects.get(pk=thread_id).title == "hers"


def test_a_deleted_thread_leaves_none_of_its_words_anywhere():
    room = Room()
    thread_id = ThreadId(room.thread("canary title").pk)
    room.answer(thread_id, "canary question", "canary answer")
    room.ask(thread_id, "canary queued")
    seqs = [entry["seq"] for entry in room.entries()]
    room.conversation.delete_thread(room.identity, thread_id)
    assert "canary" not in orjson.dumps(room.entries()).decode()
    assert [entry["seq"] for entry in room.entries()][: len(seqs)] == seqs
    assert room.entries()[-1]["event"]["name"] == "turnout.thread.deleted"
    assert not Thread.objects.filter(pk=thread_id).exists()
    assert not Message.objects.filter(user_id=room.user_id).exists()
    for run in Run.objects.filter(user_id=room.user_id):
        assert "canary" not in f"{run.text} {run.message}"
        assert run.status in {"succeeded", "cancelled"}


def test_what_a_run_still_says_after_its_thread_was_deleted_is_removed_when_it_ends():
    room = Room()
    thread_id = ThreadId(room.thread().pk)
    room.ask(thread_id)
    claimed = room.claim()
    room.conversation.delete_thread(room.identity, thread_id)
    room.say(claimed, *spoken("canary"))
    room.end(claimed, how="cancelled")
    assert "canary" not in orjson.dumps(room.entries()).decode()
    assert not Message.objects.filter(user_id=room.user_id).exists()
