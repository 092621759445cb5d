"""The client's half of the protocol: what is read, and what every kind of nonsense is answered with."""

import json

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apps.realtime.decoding import decode
from apps.realtime.protocol import (
    UNREADABLE_POSITION,
    Ack,
    CloseCode,
    IfBusy,
    Limits,
    MalformedFrame,
    Ping,
    Pong,
    Proof,
    RefusedCommand,
    RunCancel,
    RunStart,
    Subscribe,
    ToolDecide,
)
from apps.vocabulary import ErrorCode, Position

LIMITS = Limits(frame_bytes=65_536, event_bytes=65_536, text_bytes=32_768, attachments=3, runs=20)
POSITION = Position("0123456789abcdef", 7, "fedcba9876543210")
SHA256 = "ab" * 32

START = {"type": "run.start", "id": "c1", "thread_id": "t1", "text": "hello: you"}
FRAMES = [
    {"type": "subscribe", "after": str(POSITION), "compress": "deflate-raw"},
    {"type": "ack", "seq": 3, "proofs": [{"message_id": "m1", "sha256": SHA256}]},
    {"type": "ping", "t": 1.5},
    {"type": "pong", "t": 1.5, "acked": 3},
    START,
    {"type": "run.cancel", "id": "c2", "run_id": "r1"},
    {"type": "tool.decide", "id": "c3", "interrupt_id": "i1", "approve": True, "reason": "fine"},
]


def read(frame):
    return decode(json.dumps(frame), LIMITS)


def violation(text):
    with pytest.raises(MalformedFrame) as caught:
        decode(text, LIMITS)
    return caught.value


def refusal(frame):
    answer = read(frame)
    assert isinstance(answer, RefusedCommand), answer
    assert answer.id == frame["id"]
    return answer.refusal


def test_every_frame_of_the_contract_is_read_as_what_it_says():
    assert [read(frame) for frame in FRAMES] == [
        Subscribe(POSITION, "deflate-raw"),
        Ack(3, (Proof("m1", SHA256),)),
        Ping(1.5),
        Pong(1.5, 3),
        RunStart("c1", "t1", "hello: you"),
        RunCancel("c2", "r1"),
        ToolDecide("c3", "i1", True, "fine"),
    ]


def test_a_run_start_may_say_everything():
    frame = START | {
        "agent": "metronome",
        "attachments": ["a1", "a2"],
        "parent_message_id": "m1",
        "if_busy": "rollback",
    }
    assert read(frame) == RunStart("c1", "t1", "hello: you", "metronome", ("a1", "a2"), "m1", None, IfBusy.ROLLBACK)


def test_a_retry_names_a_run_and_has_no_text():
    frame = {"type": "run.start", "id": "c1", "thread_id": "t1", "retry_of": "r1"}
    assert read(frame) == RunStart("c1", "t1", None, retry_of="r1")
    assert refusal(frame | {"text": "again"}).code is ErrorCode.BAD_REQUEST
    assert refusal(frame | {"attachments": ["a1"]}).code is ErrorCode.BAD_REQUEST


def test_null_for_an_optional_field_is_the_same_as_leaving_it_out():
    nulls = dict.fromkeys(["agent", "attachments", "parent_message_id", "retry_of", "if_busy"])
    assert read(START | nulls) == read(START)
    assert read({"type": "subscribe", "after": None, "compress": None}) == read({"type": "subscribe"})
    assert read({"type": "ack", "seq": 0, "proofs": None}) == Ack(0)


def test_fields_of_a_newer_client_are_ignored():
    assert read(START | {"mood": {"x": [1]}, "__proto__": {}, "__class__": 1, "constructor": 2}) == read(START)


def test_a_command_of_a_newer_client_is_answered_and_the_connection_stays():
    assert refusal({"type": "run.fork", "id": "c1"}).code is ErrorCode.UNKNOWN_COMMAND


@pytest.mark.parametrize(
    "text",
    [
        *["", "{", "hello", "[]", "null", "3", '"text"', "true", '{"type":"ping","t":1,}'],
        '\ufeff{"type":"ping","t":1}',
        '{"type":"ping","t":1}{"type":"ping","t":2}',
        '{"type":"ping","t":NaN}',
        '{"type":"ping","t":Infinity}',
        '{"type":"ping","t":1e999}',
        '{"type":"ping","t":1,"x":' + "[" * 1100 + "]" * 1100 + "}",
        "[" * 30_000,
        '{"x":' * 5_000,
        '{"type":"ping","t":1,"x":"\\ud800"}',
        '{"type":"ping","t":1,"x":"\ud800"}',
        '{"type":"ping","t":1,"x":"\x00"}',
        '{"type":"ping","t":1}\x00',
    ],
    ids=lambda text: ascii(text[:40]),
)
def test_what_is_not_one_json_object_to_every_parser_is_a_violation(text):
    assert violation(text).close_code is CloseCode.VIOLATION


NO_NUMBER, TWICE = "NaN, Infinity and numbers beyond a double", "a key stands twice in an object"
DIAGNOSES = [
    *[('{"id":"a","x":' + x + "}", NO_NUMBER, "a") for x in ("NaN", "-Infinity", "1e999", "9" * 5000)],
    ('{"id":"a","text":"\\ud800"}', "a lone surrogate is no character", "a"),
    *[(f'{{"id":"a b","x":NaN,"t":{t}}}', NO_NUMBER, None) for t in (1, '{"id":"a"}')],
    *[('{"id":"a","x":' + x, TWICE, None) for x in ('1,"id":"b"}', 'NaN,"x":1}')],
    *[(text, "at most 1024 deep", None) for text in ('{"x":' + "[" * 1100 + "]" * 1100 + "}", "[" * 60_000)],
]


@pytest.mark.parametrize(("text", "reason", "command_id"), DIAGNOSES, ids=lambda value: str(value)[:30])
def test_what_is_no_json_is_named_for_what_it_is_with_the_id_where_it_can_be_read(text, reason, command_id):
    assert reason in violation(text).message
    assert violation(text).command_id == command_id


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"run.cancel","id":"a","id":"b","run_id":"r"}',
        '{"type":"run.cancel","id":"a","\\u0069d":"b","run_id":"r"}',
        '{"type":"ping","type":"pong","t":1,"acked":1}',
        '{"type":"run.start","id":"a","thread_id":"t","text":"x","mood":{"a":1,"a":2}}',
        '{"type":"ack","seq":1,"proofs":[{"message_id":"m","message_id":"n","sha256":"x"}]}',
        '{"type":"ack" , "seq" : 1 , "seq"\n:\t2}',
    ],
)
def test_a_key_that_stands_twice_is_a_violation_at_every_depth(text):
    refused = violation(text)
    assert refused.close_code is CloseCode.VIOLATION
    assert refused.command_id is None, "of two ids neither is the readable one"


def test_colons_in_texts_and_names_are_no_second_key():
    assert read(START | {"text": '::::{"a":1,"a":2}', "x:y": {":": ":"}}).text == '::::{"a":1,"a":2}'


@pytest.mark.parametrize("length", [65_536, 65_537])
@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
def test_a_frame_is_measured_in_bytes_of_utf8(letter, length):
    head, tail = '{"type":"ping","t":1,"x":"', '"}'
    room = length - len(head) - len(tail)
    size = len(letter.encode())
    text = head + letter * (room // size) + "x" * (room % size) + tail
    assert len(text.encode()) == length
    if length <= LIMITS.frame_bytes:
        assert decode(text, LIMITS) == Ping(1)
    else:
        assert violation(text).close_code is CloseCode.TOO_LARGE


def test_a_frame_far_too_large_is_told_so_and_not_parsed():
    assert violation('{"type":"' + "x" * 1_048_576).close_code is CloseCode.TOO_LARGE
    assert violation("😀" * 65_536).close_code is CloseCode.TOO_LARGE
    assert violation("\ud800" * 30_000).close_code is CloseCode.TOO_LARGE


@pytest.mark.parametrize("letter", ["x", "é", "😀", '"', "\\", "\x01"])
def test_a_text_is_measured_in_bytes_of_its_json(letter):
    quotes = 2
    most = (LIMITS.text_bytes - quotes) // (len(orjson.dumps(letter)) - quotes)
    fits, too_long = (json.dumps(START | {"text": letter * n}, ensure_ascii=False) for n in (most, most + 1))
    assert isinstance(decode(fits, LIMITS), RunStart)
    refused = decode(too_long, LIMITS)
    assert isinstance(refused, RefusedCommand)
    assert refused.refusal.code is ErrorCode.INPUT_TOO_LARGE


@pytest.mark.parametrize("text", ["\u202egnp.exe", "a\u200bb", "e" + "\u0301" * 10_000, "a\u0085\u2028", "\x7f"])
def test_a_text_may_hold_whatever_unicode_allows(text):
    assert decode(json.dumps(START | {"text": text}, ensure_ascii=False), LIMITS).text == text


@pytest.mark.parametrize("seq", [True, False, 1.0, -0.0, -1, 2**53, 2**64, 10**30, "1", None, [1], {}])
def test_a_seq_is_a_whole_number_and_nothing_like_one(seq):
    assert violation(json.dumps({"type": "ack", "seq": seq})).close_code is CloseCode.VIOLATION
    assert violation(json.dumps({"type": "pong", "t": 1, "acked": seq})).close_code is CloseCode.VIOLATION


def test_a_seq_reaches_to_what_a_browser_can_count():
    assert read({"type": "ack", "seq": 2**53 - 1}) == Ack(2**53 - 1)
    assert decode('{"type":"ack","seq":-0}', LIMITS) == Ack(0)


@pytest.mark.parametrize("t", [True, "1", None, {"x": "y" * 60_000}, [1]])
def test_a_ping_echoes_numbers_only(t):
    assert violation(json.dumps({"type": "ping", "t": t})).close_code is CloseCode.VIOLATION
    assert violation(json.dumps({"type": "pong", "t": t, "acked": 1})).close_code is CloseCode.VIOLATION


@pytest.mark.parametrize(
    "proofs",
    [
        {},
        "x",
        [1],
        [[]],
        [{}],
        [{"message_id": "m"}],
        [{"sha256": SHA256}],
        [{"message_id": "m", "sha256": SHA256.upper()}],
        [{"message_id": "m", "sha256": SHA256[1:]}],
        [{"message_id": 1, "sha256": SHA256}],
        [{"message_id": "m", "sha256": SHA256 + "\n"}],
    ],
)
def test_a_proof_names_a_message_and_a_digest(proofs):
    assert violation(json.dumps({"type": "ack", "seq": 1, "proofs": proofs})).close_code is CloseCode.VIOLATION


@pytest.mark.parametrize("after", [-1, 0, 2**53, 2**64, True, 1.5, [], {}])
def test_a_position_that_is_no_text_is_a_violation(after):
    assert violation(json.dumps({"type": "subscribe", "after": after})).close_code is CloseCode.VIOLATION


@pytest.mark.parametrize(
    "after",
    [
        "",
        "1",
        "-1",
        "x.1.y",
        f"{POSITION} ",
        f"{POSITION}\n",
        "0123456789abcdef.9007199254740992.fedcba9876543210",
        "0123456789abcdef.07.fedcba9876543210",
        "0123456789ABCDEF.7.fedcba9876543210",
        "a" * 60_000,
    ],
)
def test_a_text_that_is_no_position_belongs_to_no_stream_and_so_is_answered_by_a_reset(after):
    assert read({"type": "subscribe", "after": after}) == Subscribe(UNREADABLE_POSITION, None)


def test_a_compression_that_this_server_does_not_know_is_not_used():
    assert read({"type": "subscribe", "compress": "zstd"}) == Subscribe(None, None)
    assert violation('{"type":"subscribe","compress":true}').close_code is CloseCode.VIOLATION


@pytest.mark.parametrize("frame", [frame for frame in FRAMES if "id" in frame], ids=lambda frame: frame["type"])
@pytest.mark.parametrize("bad", [None, "", "x" * 65, ["c1"], 1, "a b", "a\n", "é", "c1\x00", {"id": "c1"}])
def test_a_command_without_a_readable_id_is_a_violation(frame, bad):
    without = {name: value for name, value in frame.items() if name != "id"}
    for text in (json.dumps(without), json.dumps(without | {"id": bad})):
        refused = violation(text)
        assert (refused.close_code, refused.command_id) == (CloseCode.VIOLATION, None)


@pytest.mark.parametrize("kind", [None, 1, ["ping"], {}, True])
def test_a_frame_without_a_type_is_a_violation_that_can_be_replied_to_where_there_is_an_id(kind):
    assert violation(json.dumps({"type": kind, "id": "c1"})).command_id == "c1"
    assert violation('{"id":"c1"}').command_id == "c1"
    assert violation("{}").command_id is None


def test_an_unknown_type_without_an_id_is_a_violation():
    assert violation('{"type":"hello"}').close_code is CloseCode.VIOLATION
    assert violation(json.dumps({"type": "x" * 60_000})).message.count("x") < 10, "it is not echoed"


@pytest.mark.parametrize(
    "change",
    [
        {"thread_id": None},
        {"thread_id": ""},
        {"thread_id": "t" * 65},
        {"thread_id": "t\x00"},
        {"thread_id": "../t"},
        {"thread_id": 7},
        {"text": None},
        {"text": ""},
        {"text": " \n"},
        {"text": ["hello"]},
        {"text": "nul\x00"},
        {"agent": ""},
        {"agent": "a" * 101},
        {"agent": "a\x00"},
        {"agent": 1},
        {"attachments": "a1"},
        {"attachments": ["a", "b", "c", "d"]},
        {"attachments": ["a", "a"]},
        {"attachments": [1]},
        {"attachments": ["../a"]},
        {"parent_message_id": 1},
        {"parent_message_id": "m n"},
        {"retry_of": ["r"]},
        {"if_busy": "wait"},
        {"if_busy": "REJECT"},
        {"if_busy": 1},
        {"if_busy": ["reject"]},
        {"if_busy": {}},
    ],
    ids=str,
)
def test_a_run_start_with_a_bad_field_is_answered_with_what_is_accepted(change):
    refused = refusal(START | change)
    assert refused.code is ErrorCode.BAD_REQUEST
    (name,) = change
    assert f"`{name}`" in refused.message


def test_a_text_may_be_empty_beside_an_attachment():
    assert read(START | {"text": "", "attachments": ["a1"]}).text == ""


@pytest.mark.parametrize("agent", ["../../x", "__class__", "unregistered", "a" * 100])
def test_which_agents_exist_is_for_the_registry_to_say(agent):
    assert read(START | {"agent": agent}).agent == agent


@pytest.mark.parametrize(
    "change", [{"approve": 1}, {"approve": "true"}, {"approve": None}, {"interrupt_id": 3}, {"reason": "x" * 1001}]
)
def test_a_decision_is_yes_or_no_about_one_interrupt(change):
    assert refusal(FRAMES[-1] | change).code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize("run_id", [None, 1, "", "r" * 65, "r\x00"])
def test_a_cancel_names_a_run(run_id):
    assert refusal({"type": "run.cancel", "id": "c1", "run_id": run_id}).code is ErrorCode.BAD_REQUEST


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELD = st.sampled_from(sorted({name for frame in FRAMES for name in frame} | {"if_busy", "retry_of", "agent"}))


@given(st.text(st.characters()))
@example("{}")
def test_any_text_at_all_is_a_frame_or_one_named_error(text):
    is_frame_or_named_error(text)


@settings(max_examples=500)
@given(st.sampled_from(FRAMES), st.dictionaries(FIELD, JSON, max_size=3))
def test_any_value_in_any_field_is_a_frame_or_one_named_error(frame, changes):
    is_frame_or_named_error(json.dumps(frame | changes))


@settings(max_examples=500)
@given(st.sampled_from(FRAMES), st.data())
def test_a_frame_that_was_damaged_on_its_way_is_a_frame_or_one_named_error(frame, data):
    whole = json.dumps(frame).encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.integers(0, 4))
    damaged = whole[:at] + data.draw(st.binary(max_size=4)) + whole[at + cut :]
    is_frame_or_named_error(damaged.decode(errors="surrogateescape"))


@given(st.builds(dict, text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)))
def test_a_text_arrives_as_it_was_written(said):
    if said["text"].strip():
        assert decode(json.dumps(START | said), LIMITS).text == said["text"]
        assert decode(json.dumps(START | said, ensure_ascii=False), LIMITS).text == said["text"]


@given(st.integers(0, 2**53 - 1), st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), max_size=4))
def test_an_ack_arrives_as_it_was_written(seq, messages):
    frame = {"type": "ack", "seq": seq, "proofs": [{"message_id": m, "sha256": SHA256} for m in messages]}
    assert read(frame) == Ack(seq, tuple(Proof(m, SHA256) for m in messages))


def is_frame_or_named_error(text):
    try:
        answer = decode(text, LIMITS)
    except MalformedFrame as refused:
        answer = refused.close_code
    named = Subscribe | Ack | Ping | Pong | RunStart | RunCancel | ToolDecide | RefusedCommand
    assert isinstance(answer, named) or answer in (CloseCode.VIOLATION, CloseCode.TOO_LARGE)
