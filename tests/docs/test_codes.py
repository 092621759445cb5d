"""The pages on codes, frames and events, and the enums that stand behind them, say the same."""

import dataclasses

from apps.chat.problems import STATUS
from apps.execution.lifecycle import RunErrorCode
from apps.realtime.protocol import (
    SUBPROTOCOL,
    Ack,
    CloseCode,
    IfBusy,
    Limits,
    Ping,
    Pong,
    Proof,
    ResetReason,
    RunCancel,
    RunStart,
    Subscribe,
    ToolDecide,
    Window,
)
from apps.realtime.redaction import VISIBLE
from apps.vocabulary import ErrorCode
from tests.docs.pages import code, page

CODES = page("reference/codes.md")
SOCKET = page("reference/socket.md")
EVENTS = page("reference/events.md")

FRAMES = {
    "subscribe": Subscribe,
    "ack": Ack,
    "ping": Ping,
    "pong": Pong,
    "run.start": RunStart,
    "run.cancel": RunCancel,
    "tool.decide": ToolDecide,
}


def test_every_close_code_is_documented_with_its_meaning_and_the_clients_duty():
    assert CODES.rows("Close codes") == [[str(close.value), close.meaning, str(close.duty)] for close in CloseCode]


def test_every_error_code_is_documented_with_its_status_and_whether_it_is_remembered():
    documented = [(code(row[0])[0], int(row[1]), row[3]) for row in CODES.rows("Error codes")]
    assert documented == [
        (error.value, STATUS[error].value, "yes" if error.remembered else "no") for error in ErrorCode
    ]


def test_every_close_code_that_the_socket_page_names_exists():
    named = {word.strip(".,;:()") for word in SOCKET.prose.split()}
    numbers = {int(word) for word in named if word.isdigit() and len(word) == 4 and word.startswith("4")}
    assert numbers <= {close.value for close in CloseCode}


def test_the_socket_page_is_about_this_subprotocol():
    assert f"`{SUBPROTOCOL}`" in SOCKET.prose


def test_every_client_frame_is_documented_with_all_its_fields():
    documented = {code(row[0])[0]: set(code(row[1])) for row in SOCKET.rows("Client to server")}
    assert documented.keys() == FRAMES.keys()
    proof = {field.name for field in dataclasses.fields(Proof)}
    for name, frame in FRAMES.items():
        fields = {field.name for field in dataclasses.fields(frame)}
        assert documented[name] - proof - {"deflate-raw"} == fields, name


def test_every_server_frame_is_documented():
    documented = [code(row[0])[0] for row in SOCKET.rows("Server to client")]
    assert documented == ["hello", "events", "reply", "reset", "ping", "pong", "bye"]


def test_hello_is_documented_with_all_limits():
    hello = next(row for row in SOCKET.rows("Server to client") if row[0] == "`hello`")
    fields = {field.name for limits in (Limits, Window) for field in dataclasses.fields(limits)}
    assert fields <= set(code(hello[1]))


def wrapped(enum):
    return {f"`{member.value}`" for member in enum}


def test_every_reason_of_a_reset_and_every_way_to_treat_a_busy_thread_is_documented():
    cells = [row[0] for row in SOCKET.rows()]
    assert wrapped(ResetReason) | wrapped(IfBusy) <= set(cells)


def test_every_code_of_a_failed_run_is_documented_with_the_status_it_leads_to():
    documented = {code(row[0])[0]: code(row[1])[0] for row in EVENTS.rows("Codes of a failed run")}
    assert documented == {error.value: error.status.value for error in RunErrorCode}


def test_every_event_type_that_the_page_names_can_be_seen_by_a_tab():
    named = {name.rstrip("*_") for row in EVENTS.rows("Events") for name in code(row[1]) if name.isupper()}
    assert named
    assert all(any(visible.startswith(name) for visible in VISIBLE) for name in named)


def test_every_event_type_that_a_tab_can_see_is_named():
    text = EVENTS.prose
    missing = [
        visible
        for visible in VISIBLE
        if f"`{visible}`" not in text and not any(f"`{visible[:cut]}*`" in text for cut in range(4, len(visible)))
    ]
    assert missing == []
