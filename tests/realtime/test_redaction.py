"""What nobody thought of stays inside, and what is stored can always be stored."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from apps.realtime.redaction import VISIBLE, ToolRedaction, storable_event, storable_text, visible_event

JSON = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(-(2**53), 2**53),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(st.characters()))
def test_every_text_becomes_storable_and_a_storable_one_is_untouched(text):
    stored = storable_text(text)
    assert "\0" not in stored
    stored.encode()
    assert storable_text(stored) is stored or storable_text(stored) == stored
    if "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text):
        assert stored == text


@given(st.dictionaries(st.text(st.characters(), max_size=4), JSON, max_size=4))
def test_every_event_becomes_json_without_nul(event):
    assert b"\\u0000" not in orjson.dumps(storable_event(event)).replace(b"\\\\", b"")


def test_types_that_are_not_on_the_list_stay_inside():
    for hidden in ("RAW", "STATE_SNAPSHOT", "ACTIVITY_DELTA", "REASONING_ENCRYPTED_VALUE", "TOMORROWS_EVENT"):
        assert hidden not in VISIBLE
        assert visible_event({"type": hidden, "secret": 1}) is None


def test_the_providers_raw_event_and_the_agents_metadata_are_taken_off():
    event = {"type": "TEXT_MESSAGE_START", "messageId": "m", "rawEvent": {"key": 1}, "metadata": {"prompt": "p"}}
    assert visible_event(event) == {"type": "TEXT_MESSAGE_START", "messageId": "m"}


PUBLIC = {"clock": frozenset({"zone", "result"}), "mail": frozenset({"subject"})}


def call(redaction, tool, arguments, pieces=3):
    redaction.started("c", tool)
    size = max(len(arguments) // pieces, 1)
    for start in range(0, len(arguments), size):
        redaction.argued("c", arguments[start : start + size])
    return redaction.ended("c"), redaction.result({"type": "TOOL_CALL_RESULT", "toolCallId": "c", "content": "secret"})


def test_only_the_fields_that_a_tool_declares_are_shown_of_its_call():
    arguments = orjson.dumps({"zone": "UTC", "key": "s3cret"}).decode()
    shown, result = call(ToolRedaction(PUBLIC), "clock", arguments)
    assert orjson.loads(shown) == {"zone": "UTC"}
    assert result["content"] == "secret"
    shown, result = call(ToolRedaction(PUBLIC), "mail", '{"subject":"hi","body":"private"}')
    assert orjson.loads(shown) == {"subject": "hi"}
    assert result["content"] == ""


def test_a_tool_that_nobody_declared_shows_that_it_was_called_and_no_more():
    shown, result = call(ToolRedaction(PUBLIC), "internal", '{"zone":"UTC"}')
    assert shown is None
    assert result == {"type": "TOOL_CALL_RESULT", "toolCallId": "c", "content": ""}


@given(JSON.map(lambda value: orjson.dumps(value).decode()) | st.text(), st.sampled_from(["clock", "mail", "internal"]))
def test_whatever_a_model_writes_as_arguments_only_declared_names_get_out(arguments, tool):
    shown, _ = call(ToolRedaction(PUBLIC), tool, arguments)
    assert shown is None or set(orjson.loads(shown)) <= set(PUBLIC.get(tool, ())) - {"result"}


def test_arguments_too_long_to_be_shown_are_not_kept_either():
    redaction = ToolRedaction(PUBLIC)
    redaction.started("c", "clock")
    for _ in range(100):
        redaction.argued("c", '{"zone":"' + "x" * 1_000)
    assert redaction._held["c"].pieces == []
    assert redaction.ended("c") is None
