"""One door to owned rows."""

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.chat.models import ApiToken, CommandReceipt, Message, Thread
from apps.vocabulary import Refusal, UserId, new_id
from tests.chat.chat_room import Room

pytestmark = pytest.mark.django_db

ODD_KEYS = ["", " ", "a\0b", "a\nb", "x" * 10_240, "\ud800", "é", "' OR 1=1 --", "%"]


@pytest.mark.parametrize("queryset", [Thread.objects, Message.objects, ApiToken.objects])
@pytest.mark.parametrize("key", ODD_KEYS)
@pytest.mark.parametrize("verb", ["get", "lock"])
def test_a_key_that_cannot_be_one_is_not_found(queryset, key, verb):
    with pytest.raises(Refusal, match="not_found"):
        getattr(queryset.owned(UserId(1)), verb)(key)


@pytest.mark.parametrize("verb", ["get", "lock"])
def test_the_door_answers_a_foreign_key_as_an_unknown_one(verb):
    ann, bob = Room(), Room()
    thread = ann.thread()
    asked = ann.answer(thread.pk)
    ApiToken.objects.create(token_hash="a" * 64, user_id=ann.user_id)
    for queryset, key in ((Thread, thread.pk), (Message, asked["message_id"]), (ApiToken, "a" * 64)):
        assert getattr(queryset.objects.owned(ann.user_id), verb)(key).user_id == ann.user_id
        answers = []
        for tried in (key, new_id()):
            with pytest.raises(Refusal) as refusal:
                getattr(queryset.objects.owned(bob.user_id), verb)(tried)
            answers.append(refusal.value)
        assert vars(answers[0]) == vars(answers[1])


def test_threads_are_listed_by_creation_and_in_pages():
    room = Room()
    threads = [room.thread(str(number)).pk for number in range(5)]
    rows = Thread.objects.owned(room.user_id).rows
    assert [row.pk for row in rows.newest_first()] == threads[::-1]
    assert [row.pk for row in rows.newest_first(threads[2])] == [threads[1], threads[0]]


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({}, True),
        ({"expires_at": timedelta(minutes=1)}, True),
        ({"expires_at": timedelta(0)}, False),
        ({"revoked_at": timedelta(minutes=-1)}, False),
    ],
)
def test_a_token_is_valid_until_it_expires_or_is_revoked(changes, valid):
    now = timezone.now()
    moments = {name: now + delta for name, delta in changes.items()}
    ApiToken.objects.create(token_hash="b" * 64, user_id=1, **moments)
    assert ApiToken.objects.valid(now).exists() is valid


def test_a_receipt_is_claimed_once_and_found_afterwards():
    long_ago = timezone.now() - timedelta(hours=1)
    assert CommandReceipt.objects.claim(UserId(1), "c", "digest", long_ago) is None
    CommandReceipt.objects.remember(UserId(1), "c", "reply")
    found = CommandReceipt.objects.claim(UserId(1), "c", "digest", long_ago)
    assert (found.digest, found.reply) == ("digest", "reply")
    assert CommandReceipt.objects.claim(UserId(2), "c", "digest", long_ago) is None
    assert CommandReceipt.objects.claim(UserId(1), "c", "new", timezone.now() + timedelta(hours=1)) is None
