"""Search finds a user's own words, and no others."""

import pytest

from apps.chat.search import EXCERPT_LENGTH, search_threads
from apps.vocabulary import ThreadId
from tests.chat.chat_room import Room

pytestmark = pytest.mark.django_db


def test_threads_are_found_by_title_by_question_and_by_answer_newest_first():
    room = Room()
    by_title = room.thread("All about Invoices")
    by_question = room.thread("a")
    room.answer(by_question.pk, "where are my invoices?", "there")
    by_answer = room.thread("b")
    room.answer(by_answer.pk, "well?", "The INVOICES are here.")
    room.thread("nothing")
    hits = search_threads(room.user_id, "invoices", 10)
    assert [hit.thread_id for hit in hits] == [by_answer.pk, by_question.pk, by_title.pk]
    assert [hit.excerpt for hit in hits] == ["The INVOICES are here.", "where are my invoices?", ""]


def test_another_users_words_are_never_found():
    ann, bob = Room(), Room()
    ann.answer(ann.thread("canary").pk, "canary", "canary")
    assert search_threads(bob.user_id, "canary", 10) == []


@pytest.mark.parametrize("query", ["", "   ", "\0"])
def test_looking_for_nothing_finds_nothing(query):
    room = Room()
    room.thread("t")
    assert list(search_threads(room.user_id, query, 10)) == []


@pytest.mark.parametrize("query", ["100%", "a_b", "back\\slash", "it's"])
def test_signs_that_databases_read_as_patterns_are_words_like_others(query):
    room = Room()
    found = room.thread(f"x {query} y")
    room.thread("x 100 a-b backslash its y")
    assert [hit.thread_id for hit in search_threads(room.user_id, query, 10)] == [found.pk]


def test_the_thread_that_is_asked_in_is_not_found_by_its_own_question():
    room = Room()
    asking, other = room.thread("whales"), room.thread("more whales")
    assert [hit.thread_id for hit in search_threads(room.user_id, "whales", 10, ThreadId(asking.pk))] == [other.pk]


def test_an_excerpt_shows_words_without_the_marks_of_markdown():
    room = Room()
    room.answer(room.thread().pk, "q", "# Whales\n\n- **Blue** `whale`, see [here](https://example.org)\n")
    (hit,) = search_threads(room.user_id, "blue", 1)
    assert hit.excerpt == "Whales Blue whale, see here"


def test_an_excerpt_is_cut_around_the_match():
    room = Room()
    room.answer(room.thread().pk, "q", "before " * 100 + "needle" + " after" * 100)
    (hit,) = search_threads(room.user_id, "needle", 1)
    assert "needle" in hit.excerpt
    assert len(hit.excerpt) <= EXCERPT_LENGTH
