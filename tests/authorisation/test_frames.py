"""Every frame that a client may send: what of it can name another user's thing, and how that is answered."""

import typing

import pytest

from apps.chat import attachments
from apps.realtime.protocol import (
    Ack,
    ClientFrame,
    Ping,
    Pong,
    RefusedCommand,
    RunCancel,
    RunStart,
    Subscribe,
    ToolDecide,
)
from apps.vocabulary import RunId, ThreadId, new_id
from project.configuration import Configuration
from tests.chat.chat_room import a_start

pytestmark = pytest.mark.django_db

NAMES_NOTHING = {Ack, Ping, Pong, RefusedCommand}  # numbers of this connection, or what was refused already
NAMES_A_PLACE = {Subscribe}  # held by promises/test_leaks_of_a_server.py: another's place is answered by a reset
COMMANDS = {
    RunStart: lambda ids: [
        a_start(ids["thread"]),
        a_start(ids["thread"], parent_message_id=ids["message"]),
        a_start(ids["thread"], text=None, retry_of=RunId(ids["run"])),
        a_start(ids["own_thread"], parent_message_id=ids["message"]),
        a_start(ids["own_thread"], text=None, retry_of=RunId(ids["run"])),
        a_start(ids["own_thread"], attachments=(ids["attachment"],)),
    ],
    RunCancel: lambda ids: [RunCancel(id=new_id(), run_id=RunId(ids["run"]))],
    ToolDecide: lambda ids: [ToolDecide(id=new_id(), interrupt_id=ids["interrupt"], approve=True)],
}


def test_every_frame_has_a_row():
    assert set(typing.get_args(ClientFrame)) == NAMES_NOTHING | NAMES_A_PLACE | set(COMMANDS)


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.__name__)
def test_anothers_thing_and_an_unknown_one_are_answered_alike_and_nothing_is_done(ann, bob, kind):
    thread = ThreadId(ann.thread().pk)
    asked = ann.ask(thread)
    claimed = ann.claim()
    ann.end(claimed, how="waiting")
    waiting = ann.snapshot(thread)
    kept = a_file_of(ann)
    anothers = {
        "thread": thread,
        "message": asked["message_id"],
        "run": asked["run_id"],
        "interrupt": waiting["interrupts"][0]["id"],
        "attachment": kept,
    }
    unknown = {name: new_id() for name in anothers}
    own = {"own_thread": bob.thread().pk}
    before = ann.entries(), ann.snapshot(thread)
    for command, nobodys in zip(COMMANDS[kind](anothers | own), COMMANDS[kind](unknown | own), strict=True):
        replies = [bob.execute(command), bob.execute(nobodys)]
        for reply in replies:
            del reply["id"]
        assert replies[0] == replies[1]
        assert replies[0]["error"]["code"] == "not_found", command
    assert (ann.entries(), ann.snapshot(thread)) == before


def a_file_of(ann):
    return attachments.keep(ann.user_id, "a.txt", b"hello", attachments.limits_of(Configuration())).pk
