"""Commands: at most once for their id, own threads only, and every change with its event in one transaction."""

import dataclasses
from typing import Any

import pytest

from apps.chat.conversation import automatic_title
from apps.chat.models import Message
from apps.execution.models import Run
from apps.realtime.models import RunLedger
from apps.realtime.protocol import IfBusy, RunCancel, ToolDecide
from apps.vocabulary import ErrorCode, Refusal, RunId, new_id
from tests.chat.chat_room import CHAT_LIMITS, PLAN, Room, a_start, spoken, texts

pytestmark = pytest.mark.django_db


def refused(code: ErrorCode) -> Any:
    return pytest.raises(Refusal, match=f"^{code}:")


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
    room = Room(plan=dataclasses.replace(PLAN, messages_per_thread=2))
    thread_id = room.thread().pk
    room.answer(thread_id)
    with refused(ErrorCode.QUOTA_EXCEEDED):
        room.ask(thread_id)


def test_nobody_stores_more_bytes_than_allowed_answers_included_until_a_thread_goes():
    room = Room(plan=dataclasses.replace(PLAN, stored_bytes_per_user=20))
    thread_id = room.thread().pk
    room.answer(thread_id, "12345", "1234567890")
    other = room.thread().pk
    with refused(ErrorCode.QUOTA_EXCEEDED):
        room.ask(other, "ääää")
    room.ask(other, "12345")
    room.conversation.delete_thread(room.identity, thread_id)
    room.ask(other, "ääää", if_busy=IfBusy.ENQUEUE)


def test_a_run_of_a_deleted_thread_is_not_found_any_more():
    room = Room()
    thread_id = room.thread().pk
    run_id = room.answer(thread_id)["run_id"]
    assert room.conversation.describe_run(room.identity, run_id)["status"] == "succeeded"
    room.conversation.delete_thread(room.identity, thread_id)
    with refused(ErrorCode.NOT_FOUND):
        room.conversation.describe_run(room.identity, run_id)


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
