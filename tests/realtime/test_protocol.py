"""The server's half of the protocol: what each frame says, and the table of close codes."""

import zlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.realtime import protocol
from apps.realtime.protocol import ClientDuty, CloseCode, Limits, MalformedFrame, ResetReason, Window
from apps.realtime.values import Page
from apps.vocabulary import ConnectionId, ErrorCode, Identity, Position, Refusal, UserId

HEAD = Position("0123456789abcdef", 7, "fedcba9876543210")
LIMITS = Limits(frame_bytes=65_536, event_bytes=65_536, text_bytes=32_768, attachments=8, runs=20)


def test_hello_tells_the_tab_who_it_is_where_it_stands_and_what_is_accepted():
    identity = Identity(UserId(42), "Åsa")
    frame = protocol.hello(ConnectionId("c1"), identity, HEAD, 15.0, Window(512, 262_144), LIMITS)
    assert orjson.loads(frame) == {
        "type": "hello",
        "protocol": "turnout.v1",
        "connection_id": "c1",
        "user": {"id": "42", "name": "Åsa"},
        "head": "0123456789abcdef.7.fedcba9876543210",
        "heartbeat_s": 15.0,
        "window": {"events": 512, "bytes": 262_144},
        "limits": {
            "frame_bytes": 65_536,
            "event_bytes": 65_536,
            "text_bytes": 32_768,
            "attachments": 8,
            "runs": 20,
        },
    }


def test_an_events_frame_carries_the_page_unchanged_and_the_position_after_it():
    text = '{"seq":6,"event":{"delta":"é"}},{"seq":7,"event":{}}'
    frame = protocol.events(Page(UserId(1), 6, HEAD, text, len(text.encode())))
    assert orjson.loads(frame) == {
        "type": "events",
        "events": [{"seq": 6, "event": {"delta": "é"}}, {"seq": 7, "event": {}}],
        "position": str(HEAD),
    }


def test_a_reply_is_a_result_or_an_error_never_both():
    assert orjson.loads(protocol.reply_ok("a", {"run_id": "r"})) == {
        "type": "reply",
        "id": "a",
        "ok": True,
        "result": {"run_id": "r"},
    }
    assert orjson.loads(protocol.reply_error("a", Refusal(ErrorCode.NOT_FOUND, "no such run"))) == {
        "type": "reply",
        "id": "a",
        "ok": False,
        "error": {"code": "not_found", "message": "no such run"},
    }


def test_an_error_has_details_and_a_time_to_wait_only_where_there_are_some():
    refusal = Refusal(ErrorCode.QUEUE_FULL, "full", {"limit": 3}, retry_after_s=0.0)
    assert orjson.loads(protocol.reply_error("a", refusal))["error"] == {
        "code": "queue_full",
        "message": "full",
        "details": {"limit": 3},
        "retry_after_s": 0.0,
    }


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.booleans()))
def test_a_reply_given_again_differs_by_its_mark_alone(result):
    first = protocol.reply_ok("a", result)
    again = protocol.replayed(first)
    assert orjson.loads(again) == orjson.loads(first) | {"replayed": True}
    assert again.startswith(first[:-1])


@pytest.mark.parametrize("reason", ["epoch_changed", "trimmed", "ahead", "forked"])
def test_a_reset_says_why_and_where_the_head_is(reason):
    frame = orjson.loads(protocol.reset(ResetReason(reason), HEAD))
    assert frame == {"type": "reset", "reason": reason, "head": str(HEAD)}


def test_pings_and_pongs_carry_the_number():
    assert orjson.loads(protocol.ping(12.5)) == {"type": "ping", "t": 12.5}
    assert orjson.loads(protocol.pong(3)) == {"type": "pong", "t": 3}


def test_a_bye_says_the_code_that_the_close_frame_has_too():
    frame = orjson.loads(protocol.bye(CloseCode.RESTARTING, "restarting", 750))
    assert frame == {"type": "bye", "code": 4012, "reason": "restarting", "retry_after_ms": 750}


def test_when_to_come_back_is_told_with_the_codes_after_which_a_client_does():
    told = {code.value for code in CloseCode if "retry_after_ms" in orjson.loads(protocol.bye(code, "x", 750))}
    assert told == {4001, 4012, 4013, 4408, 4429}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_deflated_frame_is_whole_by_itself(frame):
    assert zlib.decompress(protocol.deflated(frame), wbits=-zlib.MAX_WBITS).decode() == frame


@pytest.mark.parametrize("code", CloseCode)
def test_every_close_code_can_be_sent_by_daphne_and_says_what_it_means_and_what_to_do(code):
    assert 3000 <= code <= 4999
    assert code.meaning
    assert isinstance(code.duty, ClientDuty)
    assert CloseCode(int(code)) is code


def test_the_close_codes_are_those_of_the_contract():
    assert {int(code): code.duty.value for code in CloseCode} == {
        4001: "reconnect after retry_after_ms",
        4012: "reconnect after retry_after_ms",
        4013: "back off",
        4400: "fix the client",
        4401: "log in",
        4403: "do not reconnect",
        4408: "reconnect",
        4409: "do not reconnect by itself",
        4413: "fix the client",
        4429: "back off",
    }


def test_a_violation_says_its_code_and_what_was_wrong():
    violation = MalformedFrame(CloseCode.TOO_LARGE, "too long", "a")
    assert (violation.close_code, violation.message, violation.command_id) == (4413, "too long", "a")
    assert str(violation) == "too long"
