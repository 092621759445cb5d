"""A deleted user's late writes are refused from the first commit on, and the steps leave nothing, of them alone."""

import asyncio
import json
from datetime import timedelta

import orjson
import pytest
from ag_ui.core import CustomEvent
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client as Browser
from django.utils import timezone

from apps.chat.models import ApiToken, CommandReceipt
from apps.execution.models import Run
from apps.operations.deletion import (
    DeletionKeeper,
    UserUnknown,
    begin_deletion,
    delete_now,
    deletion_step,
    finish_deletion,
    owned_models,
    unfinished,
    what_remains,
)
from apps.realtime.database import DatabaseThreads
from apps.realtime.erasing import REMOVED
from apps.realtime.log import RunClosed
from apps.realtime.models import Segment, Stream, Tombstone, Turn
from apps.realtime.values import LogEntry
from apps.vocabulary import Refusal, UserId
from tests.chat.chat_room import Room, spoken
from tests.operations.world import World
from tests.socket_client import Client

pytestmark = pytest.mark.django_db


@pytest.fixture
def room():
    user = User.objects.create_user("ann")
    room = Room(user_id=user.pk)
    room.answer(room.thread("hers").pk, "canary", "canary")
    ApiToken.objects.create(token_hash="h", user_id=user.pk)
    CommandReceipt.objects.create(user_id=user.pk, command_id="c", digest="d")
    return room


def test_a_run_under_way_is_fenced_with_the_first_commit(room):
    room.ask(room.thread().pk)
    claimed = room.claim()
    begin_deletion(room.user_id)
    with pytest.raises(AssertionError, match="Fenced"):
        room.say(claimed, *spoken("late"))
    with pytest.raises(AssertionError, match="Fenced"):
        room.end(claimed, *spoken("late"))
    while deletion_step(room.user_id, 3):
        pass
    with pytest.raises(AssertionError, match="Fenced"):
        room.say(claimed, *spoken("later"))
    with pytest.raises(RunClosed):
        room.log.claim_run(room.user_id, claimed.lease.run_id, 99)
    assert not Run.objects.running().exists()  # so the next renewal of its lease tells the owner to stop
    assert what_remains(room.user_id) == {}


def test_no_command_that_was_under_way_brings_anything_back(room):
    thread_id = room.thread().pk
    begin_deletion(room.user_id)
    for act in (
        lambda: room.thread("new"),
        lambda: room.ask(thread_id),
        lambda: room.conversation.change_thread(room.identity, thread_id, title="new"),
        lambda: room.log.append(room.user_id, [LogEntry(CustomEvent(name="late", value=1))]),
    ):
        with pytest.raises(Refusal, match="was deleted"), transaction.atomic():
            act()
    assert room.claim() is None


def test_the_steps_remove_everything_of_this_user_and_nothing_of_another(room):
    other = Room(user_id=User.objects.create_user("bob").pk)
    other.answer(other.thread("his").pk)
    before = what_remains(other.user_id)
    assert {"chat.Message", "chat.Thread", "execution.Run", "realtime.Segment"} <= set(before)
    begin_deletion(room.user_id)
    assert not User.objects.filter(pk=room.user_id).exists()
    assert not ApiToken.objects.filter(user_id=room.user_id).exists(), "gone with the first commit"
    removed = delete_now(room.user_id, 2)
    assert removed["chat.Message"] == 2
    for model in owned_models():
        assert not model.objects.filter(user_id=room.user_id).exists(), model
    assert what_remains(other.user_id) == before
    assert Tombstone.objects.get().finished_at is not None
    assert unfinished(10) == []


@pytest.mark.parametrize("steps", range(0, 12, 3))
def test_what_was_cut_off_at_any_step_goes_on_from_there(room, steps):
    begin_deletion(room.user_id)
    for _ in range(steps):
        deletion_step(room.user_id, 1)
    assert unfinished(10) == [room.user_id]
    delete_now(room.user_id, 5)
    assert what_remains(room.user_id) == {}
    assert unfinished(10) == []


def test_what_was_leaked_to_others_is_blanked_and_no_longer_says_whose_it_was(room):
    stranger = Room(user_id=User.objects.create_user("bob").pk)
    stranger.thread("his")
    payload = Segment.objects.filter(user_id=room.user_id).order_by("pk").last().payload
    entries = [entry | {"seq": number} for number, entry in enumerate(orjson.loads(payload), 2)]
    leak = Segment.objects.create(
        user_id=stranger.user_id,
        first_seq=2,
        last_seq=1 + len(entries),
        payload=orjson.dumps(entries).decode(),
        size=len(payload),
        tag="t" * 16,
        created_at=timezone.now(),
        leaked_from=room.user_id,
    )
    begin_deletion(room.user_id)
    delete_now(room.user_id, 100)
    leak.refresh_from_db()
    assert leak.leaked_from == 0
    assert all(entry["event"] == REMOVED for entry in orjson.loads(leak.payload))


def test_a_user_is_gone_only_when_nobody_can_write_for_them_any_more(room):
    World().process()
    begin_deletion(room.user_id)
    delete_now(room.user_id, 100)
    assert unfinished(10) == [room.user_id], "a process lives, and may have begun something before"
    Stream.objects.create(user_id=room.user_id)  # as a socket does that was opened just before
    Tombstone.objects.update(asked_at=timezone.now() - timedelta(seconds=60))
    assert not finish_deletion(room.user_id, 10)
    assert deletion_step(room.user_id, 10) == 1
    assert finish_deletion(room.user_id, 10)


def test_every_table_of_ours_with_an_owner_is_found_and_the_budget_goes_last():
    labels = [model._meta.label for model in owned_models()]
    assert {"chat.Thread", "chat.Message", "chat.ApiToken", "realtime.Erasure"} <= set(labels)
    assert labels[-1] == "execution.UserBudget"
    assert labels.index("chat.Message") < labels.index("chat.Thread")
    assert labels.index("realtime.Segment") < labels.index("realtime.RunLedger")


def test_a_user_who_never_was_cannot_be_deleted():
    with pytest.raises(UserUnknown):
        begin_deletion(UserId(4_711))
    assert not Tombstone.objects.exists()


def test_the_admins_delete_action_goes_the_same_way(room):
    browser = Browser()
    browser.force_login(User.objects.create_superuser("root"))
    chosen = {"action": "delete_selected", "_selected_action": [room.user_id], "post": "yes"}
    assert browser.post("/admin/auth/user/", chosen).status_code == 302
    assert unfinished(10) == [room.user_id]
    assert not Run.objects.filter(user_id=room.user_id, status="queued").exists()
    second = User.objects.create_user("second")
    assert browser.post(f"/admin/auth/user/{second.pk}/delete/", {"post": "yes"}).status_code == 302
    assert set(unfinished(10)) == {room.user_id, second.pk}
    assert not User.objects.filter(pk=second.pk).exists()


@pytest.mark.django_db(transaction=True)
async def test_a_running_process_goes_on_with_what_was_begun_in_turns():
    async with DatabaseThreads(1) as database:
        room = await database.call(_room_of_a_user_being_deleted)
        keeper = DeletionKeeper(database, 60.0, rows=1, steps=3)
        await keeper.turn()
        for _ in range(30):
            await database.call(lambda: Turn.objects.update(taken_at=timezone.now() - timedelta(seconds=90)))
            await keeper.turn()
        assert await database.call(what_remains, room.user_id) == {}
        assert await database.call(unfinished, 10) == []
        assert keeper.removed > 5


def _room_of_a_user_being_deleted():
    room = Room(user_id=User.objects.create_user("ann").pk)
    room.answer(room.thread().pk)
    begin_deletion(room.user_id)
    Tombstone.objects.update(asked_at=timezone.now() - timedelta(seconds=60))
    return room


# -- a real server


async def test_a_user_who_is_connected_and_whose_run_goes_on_is_sent_away_and_nothing_is_left(server):
    tokens = server.tokens(["ann", "bob"])
    ann, bob = (Client(server.url, server.ws_url, tokens[name]) for name in ("ann", "bob"))
    async with ann.connected(), bob.connected():
        thread_id = await ann.new_thread("canary")
        await ann.run(thread_id, "count=2000 interval_ms=5 tag=canary")
        his = await bob.run(await bob.new_thread(), "count=100 interval_ms=5 tag=his")
        await ann.until(lambda tab: tab.seq > 10)
        done = await asyncio.to_thread(server.manage, "delete_user", "ann", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["left"] == {}
        await ann.until(lambda tab: tab.close_code is not None, timeout_s=5)
        assert (ann.bye["code"], ann.close_code) == (4401, 4401)
        await bob.until_ended(his)
        assert bob.text(his) == "".join(f"{i}:his " for i in range(100))
    for command in ("audit_isolation", "audit_cleanup"):
        audit = await asyncio.to_thread(server.manage, command)
        assert audit.returncode == 0, audit.stdout
    again = await asyncio.to_thread(server.manage, "delete_user", "ann")
    assert again.returncode == 1
    assert "there is no user 'ann'" in again.stderr
