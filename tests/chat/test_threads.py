"""Threads are made, changed and deleted with their events, and leave nothing behind."""

import dataclasses
from typing import Any

import orjson
import pytest

from apps.chat.models import Message, Thread
from apps.execution.models import Run
from apps.realtime.models import Erasure
from apps.vocabulary import ErrorCode, Refusal, ThreadId
from tests.chat.chat_room import PLAN, Room, spoken

pytestmark = pytest.mark.django_db


def refused(code: ErrorCode) -> Any:
    return pytest.raises(Refusal, match=f"^{code}:")


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
    room = Room(plan=dataclasses.replace(PLAN, threads_per_user=2))
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


def test_what_a_run_still_says_after_its_thread_was_deleted_is_removed_after_its_end():
    room = Room()
    thread_id = ThreadId(room.thread().pk)
    room.ask(thread_id)
    claimed = room.claim()
    room.conversation.delete_thread(room.identity, thread_id)
    room.say(claimed, *spoken("canary"))
    assert not room.log.erase(room.user_id, thread_id, 1), "the run has not ended: there is nothing to hurry for"
    room.end(claimed, *spoken("canary"), how="cancelled")
    assert not room.log.erase(room.user_id, thread_id, 1)
    assert not Erasure.objects.exists()
    assert "canary" not in orjson.dumps(room.entries()).decode()
    assert not Message.objects.filter(user_id=room.user_id).exists()
