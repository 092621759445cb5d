"""The hashes by which a tab's text is judged: of its own user's messages, in one query."""

import hashlib

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.chat.digests import read_digests
from tests.chat.chat_room import Room

pytestmark = pytest.mark.django_db


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_digest_is_that_of_the_text_a_tab_assembles_and_of_nobody_elses():
    anna, bert = Room(), Room()
    for room, reply in ((anna, "hé 😀"), (bert, "other")):
        room.answer(room.thread().pk, reply=reply)
    mine, theirs = (
        next(message.message_id for message in room.messages(room.entries()[0]["thread_id"]) if message.role != "user")
        for room in (anna, bert)
    )
    wanted = {(anna.user_id, mine), (anna.user_id, theirs), (bert.user_id, theirs), (anna.user_id, "unknown")}
    with CaptureQueriesContext(
        connection,
    ) as queries:
        found = read_digests(wanted)
    assert len(queries) == 1
    assert found == {(anna.user_id, mine): [sha256("hé 😀")], (bert.user_id, theirs): [sha256("other")]}
    assert not read_digests({(anna.user_id, theirs), (bert.user_id, mine)}), "each asks for the other's"
