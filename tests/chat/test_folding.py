"""A run's events become messages with its terminal event, or not at all."""

import pytest
from django.db import transaction

from apps.chat.models import Message, Thread
from apps.execution.models import Run
from tests.chat.chat_room import Room, called, spoken, texts

pytestmark = pytest.mark.django_db


def test_an_ended_run_is_its_messages_in_order():
    room = Room()
    thread_id = room.thread().pk
    room.ask(thread_id, "time?")
    claimed = room.claim()
    room.say(claimed, *spoken("I ", "look.", message_id="a"), *called("clock", '{"day":1}', "noon", "c"))
    assert texts(room.messages(thread_id)) == ["time?"]
    room.end(claimed, *spoken("Noon.", message_id="b"))
    asked, first, second = room.messages(thread_id)
    assert [row.parent_id for row in (asked, first, second)] == ["", asked.message_id, "a"]
    assert (first.text, second.text) == ("I look.", "Noon.")
    assert first.parts == [
        {"type": "tool_call", "id": "c", "name": "clock", "arguments": '{"day":1}', "result": "noon", "complete": True}
    ]
    assert {row.run_id for row in (first, second)} == {claimed.lease.run_id}
    assert {row.user_id for row in (asked, first, second)} == {room.user_id}


def test_the_leaf_follows_to_the_last_answer():
    room = Room()
    thread = room.thread()
    room.answer(thread.pk, reply="there")
    thread.refresh_from_db()
    assert thread.leaf_id == room.messages(thread.pk)[-1].message_id


def test_a_failed_run_keeps_what_it_said():
    room = Room()
    thread_id = room.thread().pk
    room.ask(thread_id)
    room.end(room.claim(), *spoken("half of it"), how="interrupted")
    assert texts(room.messages(thread_id))[1:] == ["half of it"]


def test_a_run_without_words_leaves_no_message():
    room = Room()
    thread_id = room.thread().pk
    room.ask(thread_id)
    room.end(room.claim())
    assert len(room.messages(thread_id)) == 1


def test_two_users_whose_agents_use_the_same_ids_do_not_meet():
    ann, bob = Room(), Room()
    for room, words in ((ann, "for ann"), (bob, "for bob")):
        thread_id = room.thread().pk
        room.ask(thread_id)
        room.end(room.claim(), *spoken(words, message_id="msg-1"))
    for room, words in ((ann, "for ann"), (bob, "for bob")):
        assert Message.objects.owned(room.user_id).get("msg-1").text == words


def test_an_agent_that_uses_one_id_in_every_run_is_folded_all_the_same():
    room = Room()
    thread_id = room.thread().pk
    for words in ("one", "two"):
        room.ask(thread_id)
        room.end(room.claim(), *spoken(words, message_id="msg-1"))
    assert [row.text for row in room.messages(thread_id) if row.role == "assistant"] == ["one", "two"]


def test_an_id_of_any_length_is_folded():
    room = Room()
    thread_id = room.thread().pk
    room.ask(thread_id)
    room.end(room.claim(), *spoken("said", message_id="m" * 5_000))
    assert texts(room.messages(thread_id))[1:] == ["said"]


def test_status_and_messages_come_together():
    room = Room()
    thread_id = room.thread().pk
    started = room.answer(thread_id)
    assert Run.objects.get(pk=started["run_id"]).status == "succeeded"
    assert room.snapshot(thread_id)["runs"][0]["status"] == "succeeded"


def test_what_was_prepared_is_folded_with_what_came_since_and_however_often_the_commit_is_tried():
    room = Room()
    thread_id = room.thread().pk
    room.ask(thread_id)
    claimed = room.claim()
    room.say(claimed, *spoken("one", message_id="a"), *called("clock", "{}", "noon", "c"))
    prepared = room.fold.prepare(claimed.lease)
    assert prepared is not None
    room.say(claimed, *spoken("two ", "three", message_id="b"))
    for _ in range(2):
        with transaction.atomic():
            room.end(claimed, *spoken("four", message_id="d"), prepared=prepared)
            assert texts(room.messages(thread_id))[1:] == ["one", "two three", "four"]
            transaction.set_rollback(True)
        room.forget_the_last(claimed)
    room.end(claimed, *spoken("four", message_id="d"), prepared=prepared)
    assert texts(room.messages(thread_id))[1:] == ["one", "two three", "four"]
    assert [len(row.parts) for row in room.messages(thread_id)] == [0, 1, 0, 0]
    assert Thread.objects.get(pk=thread_id).leaf_id == "d"


def test_the_writer_reads_nothing_of_what_was_prepared_nor_of_other_threads():
    room = Room()
    thread_id, other_id = room.thread().pk, room.thread().pk
    room.ask(thread_id)
    claimed = room.claim()
    room.ask(other_id)
    other = room.claim()
    for _ in range(30):
        room.say(claimed, *spoken("said before"))
        room.say(other, *spoken("elsewhere"))
    prepared = room.fold.prepare(claimed.lease)
    room.say(claimed, *spoken("since"))
    tail = room.log.read_logged(room.user_id, claimed.lease.run_id, prepared.upto)
    assert len(tail.entries) == len(spoken("since"))
    room.end(claimed, prepared=prepared)
    assert texts(room.messages(thread_id))[1:] == ["said before"] * 30 + ["since"]


def test_nothing_is_prepared_for_a_thread_that_is_gone():
    room = Room()
    thread_id = room.thread().pk
    room.ask(thread_id)
    claimed = room.claim()
    room.conversation.delete_thread(room.identity, thread_id)
    assert room.fold.prepare(claimed.lease) is None
