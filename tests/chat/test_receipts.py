"""A command acts at most once for its id, on however many connections it comes."""

import dataclasses
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from apps.chat.models import CommandReceipt, Message
from apps.execution.models import Run
from apps.realtime.protocol import IfBusy, RunCancel, ToolDecide
from apps.vocabulary import ErrorCode, Refusal, RunId, new_id
from tests.chat.chat_room import CHAT_LIMITS, Room, a_start

pytestmark = pytest.mark.django_db


def refused(code: ErrorCode) -> Any:
    return pytest.raises(Refusal, match=f"^{code}:")


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


def test_an_id_keeps_its_meaning_when_its_run_has_ended_and_others_followed():
    room = Room()
    thread_id = room.thread().pk
    command = a_start(thread_id)
    first = room.execute(command)
    room.end(room.claim())
    room.answer(thread_id, "and then?")
    assert room.execute(command) == {**first, "replayed": True}
    for other in (
        a_start(room.thread().pk, id=command.id),
        a_start(thread_id, None, id=command.id, retry_of=RunId(first["result"]["run_id"])),
        RunCancel(command.id, RunId(first["result"]["run_id"])),
        ToolDecide(command.id, new_id(), approve=True),
    ):
        assert room.execute(other)["error"]["code"] == "id_reused"
    assert room.execute(command) == {**first, "replayed": True}
    assert Run.objects.filter(user_id=room.user_id).count() == 2


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
