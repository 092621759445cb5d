"""What a client's text means: any text becomes one of the protocol's frames or raises MalformedFrame. Pure.

This is the first code that a stranger's bytes meet, so what JSON leaves open is closed here. A key that
stands twice is refused, at every depth (some parsers take the first, some the last, and two that disagree
are a hole); `true` and `1.0` are no whole numbers; NaN, numbers beyond a double, lone surrogates, a byte
order mark, a second document and nesting beyond 1024 are refused. Sizes are counted in bytes of UTF-8.

What a newer client may send to an older server, as happens during a deploy, is not punished: an unknown
field is ignored, an unknown command is answered with an error. `null` for an optional field is the same as
leaving it out.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Never

import orjson

from apps.realtime.protocol import (
    UNREADABLE_POSITION,
    Ack,
    ClientFrame,
    CloseCode,
    Command,
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
from apps.vocabulary import (
    MAX_SEQ,
    ErrorCode,
    MalformedPosition,
    MessageId,
    Position,
    Refusal,
    RunId,
    ThreadId,
)

_COMMAND_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_OPAQUE_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NAME_LENGTH = 100  # characters of an agent's name; which ones exist is for the registry to say
_MESSAGE_ID_LENGTH = 1024  # characters
_PROOFS = 64  # of one ack
_REASON_LENGTH = 1000  # characters


def decode(text: str, limits: Limits) -> ClientFrame:
    """Read one text frame of a client. Raises MalformedFrame, and nothing else; it ends the connection."""
    if _longer_than(text, limits.frame_bytes):
        raise MalformedFrame(CloseCode.TOO_LARGE, f"a frame is at most {limits.frame_bytes} bytes of UTF-8")
    fields = _object(text)
    kind = fields.get("type")
    command_id = _command_id(fields)
    if not isinstance(kind, str):
        raise MalformedFrame(CloseCode.VIOLATION, "`type` is missing or no text", command_id)
    try:
        match kind:
            case "ack":
                return Ack(_seq(fields, "seq"), _proofs(fields))
            case "pong":
                return Pong(_number(fields, "t"), _seq(fields, "acked"))
            case "ping":
                return Ping(_number(fields, "t"))
            case "subscribe":
                return _subscribe(fields)
    except _Unfit as unfit:
        raise MalformedFrame(CloseCode.VIOLATION, f"{kind}: {unfit}") from None
    if command_id is None:
        raise MalformedFrame(CloseCode.VIOLATION, "a command needs an `id` of 1 to 64 characters of A-Za-z0-9_-")
    return _command(kind, command_id, fields, limits)


def _command(kind: str, command_id: str, fields: Mapping[str, Any], limits: Limits) -> Command | RefusedCommand:
    try:
        match kind:
            case "run.start":
                return _run_start(command_id, fields, limits)
            case "run.cancel":
                return RunCancel(command_id, _id(fields, "run_id", RunId))
            case "tool.decide":
                approve = fields.get("approve")
                if not isinstance(approve, bool):
                    _unfit("`approve` is true or false")
                reason = _optional_text(fields, "reason", _REASON_LENGTH)
                return ToolDecide(command_id, _id(fields, "interrupt_id", str), approve, reason)
    except _Unfit as unfit:
        return RefusedCommand(command_id, Refusal(unfit.code, f"{kind}: {unfit}"))
    message = "this server knows the commands run.start, run.cancel and tool.decide"
    return RefusedCommand(command_id, Refusal(ErrorCode.UNKNOWN_COMMAND, message))


def _run_start(command_id: str, fields: Mapping[str, Any], limits: Limits) -> RunStart:
    attachments = _ids(fields, "attachments", limits.attachments)
    retry_of = _optional_id(fields, "retry_of", RunId)
    text = fields.get("text")
    if retry_of is not None:
        if text is not None or attachments:
            _unfit("with `retry_of` there is no `text` and no `attachments`: the run is repeated as it was")
    elif not isinstance(text, str):
        _unfit("`text` is missing or no text")
    elif "\0" in text:
        _unfit("`text` holds the character U+0000, which cannot be stored")
    elif not text.strip() and not attachments:
        _unfit("`text` is empty; without attachments it must say something")
    elif (size := len(orjson.dumps(text))) > limits.text_bytes:
        _unfit(f"`text` has {size} bytes as JSON; at most {limits.text_bytes}", ErrorCode.INPUT_TOO_LARGE)
    choice = fields.get("if_busy")
    try:
        if_busy = IfBusy.REJECT if choice is None else IfBusy(choice)
    except ValueError:
        _unfit(f"`if_busy` is one of {', '.join(IfBusy)}")
    return RunStart(
        id=command_id,
        thread_id=_id(fields, "thread_id", ThreadId),
        text=text,
        agent=_optional_text(fields, "agent", _NAME_LENGTH),
        attachments=attachments,
        parent_message_id=_optional_id(fields, "parent_message_id", MessageId),
        retry_of=retry_of,
        if_busy=if_busy,
    )


def _subscribe(fields: Mapping[str, Any]) -> Subscribe:
    after, compress = fields.get("after"), fields.get("compress")
    if not (after is None or isinstance(after, str)):
        _unfit("`after` is a position as this server sent it, or left out")
    if not (compress is None or isinstance(compress, str)):
        _unfit("`compress` is `deflate-raw`, or left out")
    position = None
    if after is not None:
        try:
            position = Position.parse(after)
        except MalformedPosition:
            position = UNREADABLE_POSITION
    # Compression is an offer: one that this server does not know is not taken, as with Accept-Encoding.
    return Subscribe(position, "deflate-raw" if compress == "deflate-raw" else None)


class _Unfit(Exception):  # noqa: N818 - becomes one of the named errors above
    """A field does not hold what it must."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.BAD_REQUEST) -> None:
        super().__init__(message)
        self.code = code


def _unfit(message: str, code: ErrorCode = ErrorCode.BAD_REQUEST) -> Never:
    raise _Unfit(message, code)


def _longer_than(text: str, limit_bytes: int) -> bool:
    # A character has 1 to 4 bytes: almost every frame is decided without encoding it.
    if len(text) > limit_bytes:
        return True
    return len(text) * 4 > limit_bytes and len(text.encode(errors="surrogatepass")) > limit_bytes


def _object(text: str) -> dict[str, Any]:
    try:
        fields = orjson.loads(text)
        # orjson keeps the last of two equal keys. Every key has a colon, so as many colons as keys means that
        # none came twice; a frame with more colons pays for a second look (30 us for 32 KB).
        if isinstance(fields, dict) and text.count(":") > len(fields):
            _KEYS_ONCE.decode(text)
    except (ValueError, RecursionError, _Unfit):
        raise _diagnosed(text) from None
    if not isinstance(fields, dict):
        raise MalformedFrame(CloseCode.VIOLATION, "a frame is one JSON object")
    return fields


def _diagnosed(text: str) -> MalformedFrame:
    """Why a text is no frame, found by a reader that takes more than JSON allows; with the command's id if it has one.

    Slow, and called once a connection: it is closed for this.
    """
    no_numbers: list[str] = []

    def number(digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            no_numbers.append(digits)
        return value

    lenient = json.JSONDecoder(
        object_pairs_hook=_once, parse_int=number, parse_float=number, parse_constant=no_numbers.append
    )
    try:
        fields = lenient.decode(text)
        if not isinstance(fields, dict):
            _unfit("a frame is one JSON object")
        if no_numbers:
            reason = "NaN, Infinity and numbers beyond a double are no JSON numbers"
        elif _LONE_SURROGATE.search(json.dumps(fields, ensure_ascii=False)):
            reason = "a lone surrogate is no character"
        else:
            _unfit("a frame is one JSON object, nested at most 1024 deep")
    except RecursionError:
        return MalformedFrame(CloseCode.VIOLATION, "a frame is nested at most 1024 deep")
    except _Unfit as unfit:
        return MalformedFrame(CloseCode.VIOLATION, str(unfit))
    except ValueError:
        return MalformedFrame(CloseCode.VIOLATION, "a frame is one JSON object; this text is none")
    return MalformedFrame(CloseCode.VIOLATION, reason, _command_id(fields))


def _command_id(fields: Mapping[str, Any]) -> str | None:
    command_id = fields.get("id")
    return command_id if isinstance(command_id, str) and _COMMAND_ID.fullmatch(command_id) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _Unfit("a key stands twice in an object")
    return fields


# The numbers were read before; reading them again would only bring back Python's limit on digits.
_KEYS_ONCE: Final = json.JSONDecoder(object_pairs_hook=_once, parse_int=len, parse_float=len)


def _seq(fields: Mapping[str, Any], name: str) -> int:
    seq = fields.get(name)
    if type(seq) is not int or not 0 <= seq <= MAX_SEQ:  # bool is an int in Python, and none in JSON
        _unfit(f"`{name}` is a whole number from 0 to 2^53-1")
    return seq


def _number(fields: Mapping[str, Any], name: str) -> float:
    number = fields.get(name)
    if type(number) is not int and type(number) is not float:
        _unfit(f"`{name}` is a number")
    return number


def _proofs(fields: Mapping[str, Any]) -> tuple[Proof, ...]:
    rows = fields.get("proofs")
    if rows is None:
        return ()
    if not isinstance(rows, list) or len(rows) > _PROOFS:
        _unfit(f"`proofs` is a list of at most {_PROOFS} {{message_id, sha256}}")
    return tuple(_proof(row) for row in rows)


def _proof(row: object) -> Proof:
    if not isinstance(row, dict):
        _unfit("`proofs` is a list of {message_id, sha256}")
    digest = row.get("sha256")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        _unfit("`sha256` is 64 hexadecimal digits in lower case")
    # Ids of messages are an agent's words, not ours: `_id` would be too strict.
    message_id = _optional_text(row, "message_id", _MESSAGE_ID_LENGTH)
    if message_id is None:
        _unfit(f"`message_id` is a text of 1 to {_MESSAGE_ID_LENGTH} characters")
    return Proof(MessageId(message_id), digest)


def _id[Id](fields: Mapping[str, Any], name: str, kind: Callable[[str], Id]) -> Id:
    value = fields.get(name)
    if not isinstance(value, str) or not _OPAQUE_ID.fullmatch(value):
        _unfit(f"`{name}` is an id as this server sent it")
    return kind(value)


def _optional_id[Id](fields: Mapping[str, Any], name: str, kind: Callable[[str], Id]) -> Id | None:
    return None if fields.get(name) is None else _id(fields, name, kind)


def _ids(fields: Mapping[str, Any], name: str, most: int) -> tuple[str, ...]:
    values = fields.get(name)
    if values is None:
        return ()
    if not isinstance(values, list) or len(values) > most:
        _unfit(f"`{name}` is a list of at most {most} ids")
    ids = tuple(_id({name: value}, name, str) for value in values)
    if len(set(ids)) < len(ids):
        _unfit(f"`{name}` names one id twice")
    return ids


def _optional_text(fields: Mapping[str, Any], name: str, most_characters: int) -> str | None:
    text = fields.get(name)
    if text is None:
        return None
    if not isinstance(text, str) or not 1 <= len(text) <= most_characters or "\0" in text:
        _unfit(f"`{name}` is a text of 1 to {most_characters} characters")
    return text
