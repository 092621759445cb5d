"""What an agent is told: the branch of its own message, bounded, and valid for a model provider."""

import pytest
from ag_ui.core import ToolCallArgsEvent, ToolCallEndEvent, ToolCallStartEvent

from apps.chat.history import UNFINISHED, HistoryLimits, history_within
from apps.vocabulary import RunId, ThreadId, new_id
from tests.chat.chat_room import Room, called, spoken

pytestmark = pytest.mark.django_db


def told(room: Room, thread_id: str, run_id: str, messages: int = 40, size: int = 100_000):
    history = history_within(HistoryLimits(messages, size))
    return [(row.role, row.text) for row in history(room.user_id, ThreadId(thread_id), RunId(run_id))]


def test_the_first_run_is_told_nothing():
    room = Room()
    thread_id = room.thread().pk
    assert told(room, thread_id, room.ask(thread_id)["run_id"]) == []


def test_a_run_is_told_what_came_before_its_message_oldest_first():
    room = Room()
    thread_id = room.thread().pk
    room.answer(thread_id, "one", "first")
    room.answer(thread_id, "two", "second")
    run_id = room.ask(thread_id, "three")["run_id"]
    assert told(room, thread_id, run_id) == [
        ("user", "one"),
        ("assistant", "first"),
        ("user", "two"),
        ("assistant", "second"),
    ]


def test_other_branches_are_not_told():
    room = Room()
    thread_id = room.thread().pk
    asked = room.answer(thread_id, "one", "first")
    room.answer(thread_id, "edited", "other", parent_message_id=asked["message_id"])
    run_id = room.ask(thread_id, "next")["run_id"]
    assert told(room, thread_id, run_id) == [("user", "edited"), ("assistant", "other")]


def test_answering_again_is_not_told_the_old_answer():
    room = Room()
    thread_id = room.thread().pk
    room.answer(thread_id, "one", "first")
    asked = room.answer(thread_id, "two", "bad")
    run_id = room.ask(thread_id, None, retry_of=asked["run_id"])["run_id"]
    assert told(room, thread_id, run_id) == [("user", "one"), ("assistant", "first")]


def test_nobody_is_told_of_another_users_run():
    ann, bob = Room(), Room()
    thread_id = ann.thread().pk
    ann.answer(thread_id, "secret", "more of it")
    run_id = ann.ask(thread_id)["run_id"]
    assert told(ann, thread_id, run_id)
    assert told(bob, thread_id, run_id) == []
    assert told(ann, thread_id, new_id()) == []


def test_the_newest_messages_are_told_and_begin_with_a_users():
    room = Room()
    thread_id = room.thread().pk
    for number in range(4):
        room.answer(thread_id, f"q{number}", f"a{number}")
    run_id = room.ask(thread_id)["run_id"]
    assert told(room, thread_id, run_id, messages=3) == [("user", "q3"), ("assistant", "a3")]
    assert told(room, thread_id, run_id, messages=1) == []


def test_bytes_are_bounded_too():
    room = Room()
    thread_id = room.thread().pk
    room.answer(thread_id, "é" * 50, "long ago")
    room.answer(thread_id, "q", "a")
    run_id = room.ask(thread_id)["run_id"]
    assert told(room, thread_id, run_id, size=107) == [("user", "q"), ("assistant", "a")]
    assert len(told(room, thread_id, run_id, size=110)) == 4


def test_a_tool_call_comes_with_its_result():
    room = Room()
    thread_id = room.thread().pk
    room.ask(thread_id, "time?")
    room.end(room.claim(), *spoken("look", message_id="a"), *called("clock", '{"day":"1"}', "noon", "c"), *spoken("12"))
    run_id = room.ask(thread_id)["run_id"]
    rows = history_within(HistoryLimits(40, 9_999))(room.user_id, ThreadId(thread_id), RunId(run_id))
    call = {"id": "c", "type": "function", "function": {"name": "clock", "arguments": '{"day":"1"}'}}
    assert [(row.role, row.text, row.tool_calls, row.tool_call_id) for row in rows] == [
        ("user", "time?", (), None),
        ("assistant", "look", (call,), None),
        ("tool", "noon", (), "c"),
        ("assistant", "12", (), None),
    ]


def test_a_call_that_was_cut_off_gets_a_result_and_arguments_that_are_json():
    room = Room()
    thread_id = room.thread().pk
    room.ask(thread_id)
    cut_off = [
        ToolCallStartEvent(tool_call_id="c", tool_call_name="clock"),
        ToolCallArgsEvent(tool_call_id="c", delta='{"da'),
        ToolCallEndEvent(tool_call_id="c"),
    ]
    room.end(room.claim(), *cut_off, how="interrupted")
    run_id = room.ask(thread_id)["run_id"]
    _, call, result = history_within(HistoryLimits(40, 9_999))(room.user_id, ThreadId(thread_id), RunId(run_id))
    assert call.tool_calls[0]["function"]["arguments"] == "{}"
    assert (result.role, result.text, result.tool_call_id) == ("tool", UNFINISHED, "c")


def test_ids_used_twice_do_not_lead_in_a_circle():
    room = Room()
    thread_id = room.thread().pk
    for number in range(3):
        room.ask(thread_id, f"q{number}")
        room.end(room.claim(), *spoken(f"a{number}", message_id="same"))
    assert len(told(room, thread_id, room.ask(thread_id)["run_id"])) <= 7
