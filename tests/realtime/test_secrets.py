"""Credentials never reach the log, however their text is cut into deltas, and all other text does, unchanged."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.realtime.secrets import HELD_CHARACTERS, REMOVED, RunSecrets, SecretFilter

SECRETS = [
    "sk-" + "a1B2" * 12,
    "sk-ant-api03-" + "x_-9" * 20,
    "AKIA" + "ABCDEFGHIJKLMNOP",
    "ghp_" + "a" * 36,
    "github_pat_" + "b" * 60,
    "glpat-" + "c" * 20,
    "xoxb-" + "1234567890-" * 4 + "abc",
    "AIza" + "d" * 35,
    "turnout_" + "E" * 43,
]
BLOCK = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/=\nabc\n-----END RSA PRIVATE KEY-----"
PLAIN = [
    "sk- is how they begin",
    "skiing, asking and sk",
    "a-b_c-d",
    "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
    "-----BEGIN",
    "eyJ is base64",
    "Größe: 5 €",
    "x" * 5_000,
    "",
]


def through(pieces, known=()):
    one = SecretFilter(known)
    shown = [one.feed(piece) for piece in pieces]
    return [*shown, one.finish()]


def cut(text, places):
    bounds = [0, *sorted({place % (len(text) + 1) for place in places}), len(text)]
    return [text[start:end] for start, end in pairwise(bounds)]


@pytest.mark.parametrize("secret", [*SECRETS, BLOCK])
@given(before=st.sampled_from(["", "key=", 'Bearer "', "(", "ü"]), after=st.sampled_from(["", " ", ".", '"', "\n"]),
       places=st.lists(st.integers(0, 300), max_size=8))  # fmt: skip
def test_a_secret_is_removed_wherever_its_text_is_cut(secret, before, after, places):
    pieces = cut(f"{before}{secret}{after}", places)
    assert "".join(through(pieces)) == f"{before}{REMOVED}{after}"


@given(st.lists(st.sampled_from([*PLAIN, " ", "\n"]), max_size=6), st.lists(st.integers(0, 20_000), max_size=8))
def test_all_other_text_passes_byte_for_byte(texts, places):
    text = " ".join(texts)
    assert "".join(through(cut(text, places))) == text


@given(st.text(), st.lists(st.integers(0, 100), max_size=5))
def test_any_text_comes_out_the_same_however_it_is_cut(text, places):
    assert "".join(through(cut(text, places))) == "".join(through([text]))


@pytest.mark.parametrize("word", ["hello", "0:B", "tick", "Zürich"])
def test_usual_words_wait_for_nothing(word):
    assert SecretFilter().feed(word) == word


def test_a_word_that_may_become_a_key_waits_until_it_is_none():
    one = SecretFilter()
    assert one.feed("a s") == "a "
    assert one.feed("k") == ""
    assert one.feed("y") == "sky"


def test_a_secret_of_the_installation_is_removed_too():
    known = "my-own-model-key-1"
    assert "".join(through(["use my-own-mo", "del-key-1 now"], [known])) == f"use {REMOVED} now"


def test_no_text_makes_it_slow_or_hold_much():
    size = 300_000
    for hostile in ("sk-" * size, "-----BEGIN " * size, "a" * size, BLOCK[:40] + "-----EN" * size, "eyJ" + "a" * size):
        began = time.process_time()
        one = SecretFilter()
        for start in range(0, len(hostile), 997):
            one.feed(hostile[start : start + 997])
            assert len(one._held) <= HELD_CHARACTERS + 997
        one.finish()
        assert time.process_time() - began < 3


def test_values_that_come_at_once_are_looked_through():
    value = {"content": f"the key is {SECRETS[0]}", "list": [1, SECRETS[2], None]}
    assert RunSecrets().whole(value) == {"content": f"the key is {REMOVED}", "list": [1, REMOVED, None]}
