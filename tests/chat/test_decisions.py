"""A decided call in its thread: the new run goes on where the old one stopped, in every view of the thread."""

import dataclasses
from contextlib import contextmanager

import pytest
from ag_ui.core import ToolCallArgsEvent, ToolCallEndEvent, ToolCallStartEvent

from apps.chat.history import HistoryLimits, history_within
from apps.chat.projection import ThreadView
from apps.execution.models import Interrupt, Run
from apps.realtime.protocol import IfBusy, ToolDecide
from apps.vocabulary import ErrorCode, Refusal, RunId, ThreadId, new_id
from tests.chat.chat_room import PLAN, Room, spoken, texts

pytestmark = pytest.mark.django_db


@contextmanager
def refused(code):
    with pytest.raises(Refusal) as refusal:
        yield
    assert refusal.value.code == code


def asked_for(call_id="call-1"):
    """What an agent says before it waits; the call stays open."""
    message_id = new_id()
    return [
        *spoken("May I?", message_id=message_id),
        ToolCallStartEvent(tool_call_id=call_id, tool_call_name="write", parent_message_id=message_id),
        ToolCallArgsEvent(tool_call_id=call_id, delta='{"what":"x"}'),
        ToolCallEndEvent(tool_call_id=call_id),
    ]


def wait(room, thread_id, text="write x"):
    """A run that waits for approval; the id of what it asks."""
    room.ask(thread_id, text)
    claimed = room.claim()
    room.end(claimed, *asked_for(), how="waiting")
    return Interrupt.objects.get(run_id=claimed.lease.run_id).pk


def decide(room, interrupt_id, approve=True):
    return room.conversation.decide_tool(room.identity, ToolDecide(new_id(), interrupt_id, approve, "why not"))


def replayed(room, thread_id):
    """The thread as a tab knows it that has seen every event."""
    view = ThreadView(ThreadId(thread_id))
    for entry in room.entries():
        view.apply(entry)
    return view.as_json()


def shape(snapshot):
    """What the tree, the runs' ends and the open questions are, whoever tells it."""
    tree = [(message["id"], message["parent_id"], message["text"]) for message in snapshot["messages"]]
    return sorted(tree), snapshot["thread"]["leaf_id"], snapshot["interrupts"]


def test_a_snapshot_shows_what_waits_until_it_is_decided():
    room = Room()
    thread_id = room.thread().pk
    interrupt_id = wait(room, thread_id)
    (interrupt,) = room.snapshot(thread_id)["interrupts"]
    assert (interrupt["id"], interrupt["toolCallId"], interrupt["message"]) == (interrupt_id, "call-1", "Write x?")
    decide(room, interrupt_id)
    assert room.snapshot(thread_id)["interrupts"] == []


def test_the_resumed_run_answers_behind_what_the_waiting_one_said_in_every_view():
    room = Room()
    thread_id = room.thread().pk
    interrupt_id = wait(room, thread_id)
    waited = room.snapshot(thread_id)
    assert shape(replayed(room, thread_id)) == shape(waited)
    started = decide(room, interrupt_id)
    assert shape(replayed(room, thread_id)) == shape(room.snapshot(thread_id))
    claimed = room.claim()
    assert claimed.lease.run_id == started["run_id"]
    room.say(claimed, *spoken("I "))
    assert shape(replayed(room, thread_id)) == shape(room.snapshot(thread_id))
    room.end(claimed, *spoken("wrote"))
    snapshot = room.snapshot(thread_id)
    assert shape(replayed(room, thread_id)) == shape(snapshot)
    assert texts(snapshot["messages"]) == ["write x", "May I?", "I ", "wrote"]
    ids = [message["id"] for message in snapshot["messages"]]
    assert [message["parent_id"] for message in snapshot["messages"]] == [None, *ids[:-1]]
    assert snapshot["thread"]["leaf_id"] == ids[-1]


def test_the_resumed_run_is_told_the_question_and_the_call_that_waited():
    room = Room()
    thread_id = room.thread().pk
    room.answer(thread_id, "hello", "hi")
    run_id = decide(room, wait(room, thread_id))["run_id"]
    history = history_within(HistoryLimits(40, 100_000))(room.user_id, ThreadId(thread_id), RunId(run_id))
    assert [(turn.role, turn.text) for turn in history] == [
        ("user", "hello"),
        ("assistant", "hi"),
        ("user", "write x"),
        ("assistant", "May I?"),
        ("tool", "This call was not finished."),
    ]
    assert history[-1].tool_call_id == "call-1"


def test_the_next_turn_is_valid_whatever_became_of_the_call():
    room = Room()
    thread_id = room.thread().pk
    wait(room, thread_id)
    run_id = room.ask(thread_id, "never mind")["run_id"]
    history = history_within(HistoryLimits(40, 100_000))(room.user_id, ThreadId(thread_id), RunId(run_id))
    assert [turn.role for turn in history] == ["user", "assistant", "tool"]


def test_a_decision_sent_again_acts_once_and_another_comes_too_late():
    room = Room()
    interrupt_id = wait(room, room.thread().pk)
    command = ToolDecide(new_id(), interrupt_id, approve=True)
    first, again = room.execute(command), room.execute(command)
    assert first["ok"]
    assert again["result"] == first["result"]
    assert again["replayed"]
    late = room.execute(ToolDecide(new_id(), interrupt_id, approve=False))
    assert late["error"]["code"] == "already_decided"
    assert Run.objects.filter(user_id=room.user_id).count() == 2


def test_nobody_else_can_decide():
    room, other = Room(), Room()
    interrupt_id = wait(room, room.thread().pk)
    with refused(ErrorCode.NOT_FOUND):
        decide(other, interrupt_id)
    assert Interrupt.objects.get().decision == ""


def test_a_decision_waits_behind_the_run_that_its_thread_is_busy_with():
    room = Room()
    thread_id = room.thread().pk
    interrupt_id = wait(room, thread_id)
    room.ask(thread_id, "meanwhile")
    assert room.claim() is not None
    assert decide(room, interrupt_id)["place"] == 1
    assert room.claim() is None


def test_a_decision_that_the_quota_refuses_can_be_made_later():
    room = Room(plan=dataclasses.replace(PLAN, tokens_per_day=1_000))
    interrupt_id = wait(room, room.thread().pk)
    with refused(ErrorCode.QUOTA_EXCEEDED):
        decide(room, interrupt_id)
    room.plan = PLAN
    assert decide(room, interrupt_id)["run_id"]


def test_deleting_the_thread_forgets_what_was_asked():
    room = Room()
    thread_id = room.thread().pk
    interrupt_id = wait(room, thread_id)
    room.conversation.delete_thread(room.identity, ThreadId(thread_id))
    assert not Interrupt.objects.exists()
    with refused(ErrorCode.NOT_FOUND):
        decide(room, interrupt_id)


def test_an_interrupt_sends_a_waiting_run_away_and_the_new_turn_stands_behind_it():
    room = Room()
    thread_id = room.thread().pk
    wait(room, thread_id)
    room.ask(thread_id, "something else", if_busy=IfBusy.INTERRUPT)
    assert room.snapshot(thread_id)["interrupts"] == []
    assert shape(replayed(room, thread_id)) == shape(room.snapshot(thread_id))
