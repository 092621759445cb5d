"""What goes over the socket: the frames of the subprotocol `turnout.v1` as values and as text. Pure.

A client's frame is one of the dataclasses below, made by `decoding.decode`. A server's frame is the text
that one of the functions at the end returns. They join strings around a page's events, which are JSON
already: encoding those again for each tab would cost more than sending them.
"""

import enum
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import orjson

from apps.realtime.values import Page
from apps.vocabulary import ConnectionId, Identity, MessageId, Position, Refusal, RunId, ThreadId

SUBPROTOCOL: Final = "turnout.v1"
COMPRESS_ABOVE_BYTES: Final = 4096  # below this, deflate costs more than it saves
_EVENTS_AROUND: Final = '{"type":"events","events":[],"position":""}'
_DEFLATE_LEVEL: Final = 1  # 64 KiB of deltas: 0.5 ms and a 17th of their size; level 6 takes 1.4 ms for a 20th
# Belongs to no stream (an epoch is random), so that it is answered by `reset epoch_changed`.
UNREADABLE_POSITION: Final = Position("0" * 16, 0, "0" * 16)


class ClientDuty(enum.StrEnum):
    """What a client does after a close code."""

    RECONNECT = "reconnect"
    RECONNECT_LATER = "reconnect after retry_after_ms"
    BACK_OFF = "back off"
    LOG_IN = "log in"
    FIX_THE_CLIENT = "fix the client"
    NOT_BY_ITSELF = "do not reconnect by itself"
    STAY_AWAY = "do not reconnect"


_COMES_BACK = frozenset({ClientDuty.RECONNECT, ClientDuty.RECONNECT_LATER, ClientDuty.BACK_OFF})


class CloseCode(enum.IntEnum):
    """Why the server closes, and what the client does then. Daphne can send none below 3000 but 1000."""

    meaning: str
    duty: ClientDuty

    def __new__(cls, code: int, meaning: str, duty: ClientDuty) -> Self:
        """A row of the table: the number is the member's value."""
        row = int.__new__(cls, code)
        row._value_ = code
        row.meaning = meaning
        row.duty = duty
        return row

    GOING_AWAY = 4001, "the server is going away", ClientDuty.RECONNECT_LATER
    RESTARTING = 4012, "the server is restarting", ClientDuty.RECONNECT_LATER
    OVERLOADED = 4013, "the server has no room for another connection", ClientDuty.BACK_OFF
    VIOLATION = 4400, "a malformed frame, or one that is not allowed now", ClientDuty.FIX_THE_CLIENT
    NO_USER = 4401, "no valid user: logged out, disabled, or the token ended", ClientDuty.LOG_IN
    FORBIDDEN = 4403, "not allowed", ClientDuty.STAY_AWAY
    NO_PROGRESS = 4408, "no ack and no pong in time", ClientDuty.RECONNECT
    REPLACED = 4409, "over this user's connection limit; the oldest is closed", ClientDuty.NOT_BY_ITSELF
    TOO_LARGE = 4413, "a frame over limits.frame_bytes", ClientDuty.FIX_THE_CLIENT
    TOO_FAST = 4429, "far over the command rate, or the inbox is full", ClientDuty.BACK_OFF


class ResetReason(enum.StrEnum):
    """Why a position cannot be served."""

    EPOCH_CHANGED = "epoch_changed"
    TRIMMED = "trimmed"
    AHEAD = "ahead"
    FORKED = "forked"


class IfBusy(enum.StrEnum):
    """What a `run.start` does when its thread already has a run."""

    REJECT = "reject"
    ENQUEUE = "enqueue"
    INTERRUPT = "interrupt"
    ROLLBACK = "rollback"


class ProtocolViolation(Exception):  # noqa: N818 - the protocol's word
    """The client broke the protocol: the connection is closed with `close_code`.

    Where the frame was a command with a readable id, `command_id` has it, and a `bad_request` reply goes
    first.
    """

    def __init__(self, close_code: CloseCode, message: str, command_id: str | None = None) -> None:
        super().__init__(message)
        self.close_code = close_code
        self.message = message
        self.command_id = command_id


class MalformedFrame(ProtocolViolation):
    """A frame that cannot be read."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What `hello` tells every client. Bytes are UTF-8; `text_bytes` counts a text as JSON, with quotes."""

    frame_bytes: int
    event_bytes: int
    text_bytes: int
    attachments: int
    runs: int


@dataclass(frozen=True, slots=True)
class Window:
    """How much may be on its way to a tab beyond its last ack."""

    events: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Send events after `after`; None: from the head. A text that is no position is UNREADABLE_POSITION."""

    after: Position | None
    compress: Literal["deflate-raw"] | None


@dataclass(frozen=True, slots=True)
class Proof:
    """The SHA-256, in hex, of the UTF-8 text that a tab assembled for a message."""

    message_id: MessageId
    sha256: str


@dataclass(frozen=True, slots=True)
class Ack:
    """The tab has applied everything up to and including `seq`."""

    seq: int
    proofs: tuple[Proof, ...] = ()


@dataclass(frozen=True, slots=True)
class Ping:
    """The client asks for a `pong` with the same number."""

    t: float


@dataclass(frozen=True, slots=True)
class Pong:
    """The client's answer to `ping`; `acked` acts as an ack."""

    t: float
    acked: int


@dataclass(frozen=True, slots=True)
class RunStart:
    """Say `text` in a thread and run an agent on it, or run again (`retry_of`, then `text` is None)."""

    id: str
    thread_id: ThreadId
    text: str | None
    agent: str | None = None
    attachments: tuple[str, ...] = ()
    parent_message_id: MessageId | None = None
    retry_of: RunId | None = None
    if_busy: IfBusy = IfBusy.REJECT


@dataclass(frozen=True, slots=True)
class RunCancel:
    """Stop a run."""

    id: str
    run_id: RunId


@dataclass(frozen=True, slots=True)
class ToolDecide:
    """Approve or refuse a tool call that waits for it."""

    id: str
    interrupt_id: str
    approve: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RefusedCommand:
    """A command with a readable id that cannot be carried out as sent: answered by `refusal`, no more."""

    id: str
    refusal: Refusal


Command = RunStart | RunCancel | ToolDecide
ClientFrame = Subscribe | Ack | Ping | Pong | Command | RefusedCommand


def hello(
    connection_id: ConnectionId,
    identity: Identity,
    head: Position,
    heartbeat_s: float,
    window: Window,
    limits: Limits,
) -> str:
    """The first frame of a connection: who the server takes this tab for, and what it accepts."""
    return _text(
        {
            "type": "hello",
            "protocol": SUBPROTOCOL,
            "connection_id": connection_id,
            "user": {"id": str(identity.user_id), "name": identity.name},
            "head": str(head),
            "heartbeat_s": heartbeat_s,
            "window": window,
            "limits": limits,
        }
    )


def events(page: Page) -> str:
    """The events of a page, and the position after the last of them."""
    return f'{{"type":"events","events":[{page.events}],"position":"{page.position}"}}'


def is_worth_deflating(page: Page) -> bool:
    """Whether the page's frame is larger than COMPRESS_ABOVE_BYTES."""
    return page.size + len(_EVENTS_AROUND) + len(str(page.position)) > COMPRESS_ABOVE_BYTES


def reply_ok(command_id: str, result: Mapping[str, Any]) -> str:
    """The answer to a command that was carried out."""
    return _text({"type": "reply", "id": command_id, "ok": True, "result": result})


def reply_error(command_id: str, refusal: Refusal) -> str:
    """The answer to a command that was not carried out."""
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.details:
        error["details"] = dict(refusal.details)
    if refusal.retry_after_s is not None:
        error["retry_after_s"] = refusal.retry_after_s
    return _text({"type": "reply", "id": command_id, "ok": False, "error": error})


def replayed(reply: str) -> str:
    """The same reply again, byte for byte, marked as one given before. `reply` is what reply_* returned."""
    return reply[:-1] + ',"replayed":true}'


def reset(reason: ResetReason, head: Position) -> str:
    """The position cannot be served; the stream's head is at `head`."""
    return _text({"type": "reset", "reason": reason, "head": str(head)})


def ping(t: float) -> str:
    """Ask the tab for a `pong` with the same `t`."""
    return _text({"type": "ping", "t": t})


def pong(t: float) -> str:
    """Answer a tab's `ping`."""
    return _text({"type": "pong", "t": t})


def bye(code: CloseCode, reason: str, retry_after_ms: int) -> str:
    """Say why the server closes, for Daphne's close frame carries no reason.

    When to come back is told only with a code after which a client comes back by itself.
    """
    frame: dict[str, Any] = {"type": "bye", "code": code.value, "reason": reason}
    if code.duty in _COMES_BACK:
        frame["retry_after_ms"] = retry_after_ms
    return _text(frame)


def deflated(frame: str) -> bytes:
    """A frame as raw deflate, by itself: what a browser's `DecompressionStream("deflate-raw")` reads."""
    packer = zlib.compressobj(_DEFLATE_LEVEL, wbits=-zlib.MAX_WBITS)
    return packer.compress(frame.encode()) + packer.flush()


def _text(frame: Mapping[str, Any]) -> str:
    return orjson.dumps(frame).decode()
