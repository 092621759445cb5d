"""Server-Sent Events of one thread: what stands in a stream, and how a client goes on where it was. Pure.

`id:` is a position, or `position+n`, the n-th event behind it, because positions exist at the ends of pages only. A
client that comes back with it as `Last-Event-ID` goes on with the next event.
"""

import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from apps.chat.authentication import Principal
from apps.realtime.constructs import TERMINAL
from apps.vocabulary import ErrorCode, MalformedPosition, Position, Refusal, RunId, ThreadId

CONTENT_TYPE: Final = "text/event-stream"

_EVENT_ID: Final = re.compile(r"(?P<position>[^+]{1,50})(?:\+(?P<behind>[1-9][0-9]{0,5}))?", re.ASCII)


class Shape(enum.StrEnum):
    """What stands in `data`."""

    AGUI = "agui"  # the events of runs, one run after the other, as a stock AG-UI client takes them
    ENTRIES = "entries"  # every event of the thread with seq, run_id and time, as on the socket


class Until(enum.StrEnum):
    """When a stream ends by itself."""

    FOREVER = "forever"
    RUN_END = "run_end"  # with the terminal event of the run at hand, or of the next


class WhenLeft(enum.StrEnum):
    """What becomes of the run when the client that started it drops the stream."""

    CONTINUE = "continue"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """A stream that was asked for and granted.

    `after` and `behind` say where it begins. `run_id`: nothing before the beginning of this run, and with `rebuilt`
    nothing before the beginning of any. `rebuilt`: the first RUN_STARTED is followed by the messages before it.
    `recalled`: all that there is to tell, of a run that ended and whose events are trimmed.
    """

    principal: Principal
    thread_id: ThreadId
    after: Position
    behind: int = 0
    run_id: RunId | None = None
    shape: Shape = Shape.AGUI
    until: Until = Until.FOREVER
    rebuilt: bool = False
    echoes_input: bool = True
    when_left: WhenLeft = WhenLeft.CONTINUE
    recalled: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """One event for the client, and the place after it. `event` None: the place alone. `begins`: the run that does."""

    event: Mapping[str, Any] | None
    place: str
    begins: RunId | None = None


def parse_event_id(text: str) -> tuple[Position, int]:
    """A position and how many events behind it were seen. Raises Refusal(bad_request)."""
    match = _EVENT_ID.fullmatch(text)
    try:
        if match is not None:
            return Position.parse(match["position"]), int(match["behind"] or 0)
    except MalformedPosition:
        pass
    raise Refusal(ErrorCode.BAD_REQUEST, "`Last-Event-ID` is an `id` that this server sent, or is left out")


class ThreadEvents:
    """Turns pages of a user's stream into the events of one thread. Pure: frames in, bytes out."""

    def __init__(self, following: Following) -> None:
        self._asked = following
        self._base = following.after
        self._seen = following.after.seq + following.behind
        # Of a stream that begins anew nothing is shown before a run begins: a client could not place it.
        self._waits_for_start = following.shape is Shape.AGUI and (following.rebuilt or following.run_id is not None)
        self._current: RunId | None = None
        self.ended = False

    def take(self, frame: Mapping[str, Any]) -> Iterator[Told]:
        """The frame's part of the thread, in order."""
        position = Position.parse(frame["position"])
        told = False
        for entry in frame["events"]:
            told = False
            if entry["seq"] <= self._seen or self.ended or not self._wanted(entry):
                continue
            yield self._told(entry, position)
            told = True
            self.ended = self._asked.until is Until.RUN_END and entry["event"]["type"] in TERMINAL
        if not told and not self.ended and not self._waits_for_start:
            yield Told(None, str(position))
        self._base = position

    def _wanted(self, entry: Mapping[str, Any]) -> bool:
        if entry["thread_id"] != self._asked.thread_id:
            return False
        event, run_id = entry["event"], entry["run_id"]
        if self._asked.shape is Shape.ENTRIES:
            return True
        if run_id is None or (event["type"] == "CUSTOM" and event["name"].startswith("turnout.")):
            return False
        return self._in_turn(event["type"], RunId(run_id))

    def _in_turn(self, event_type: str, run_id: RunId) -> bool:
        """Whether this run is the one that is shown: a run that is cancelled in the queue begins inside another."""
        if self._waits_for_start:
            if event_type != "RUN_STARTED" or self._asked.run_id not in (None, run_id):
                return False
            self._waits_for_start = False
        if self._current is None:
            self._current = run_id
        if run_id != self._current:
            return False
        if event_type in TERMINAL:
            self._current = None
        return True

    def _told(self, entry: Mapping[str, Any], position: Position) -> Told:
        behind = entry["seq"] - self._base.seq
        place = str(position) if entry["seq"] == position.seq else f"{self._base}+{behind}"
        if self._asked.shape is Shape.ENTRIES:
            return Told(entry, place)
        event = entry["event"]
        if event["type"] != "RUN_STARTED":
            return Told(event, place)
        if not self._asked.echoes_input:
            # Whoever sent the message has it under an id of its own, and would show this one beside it.
            event = {key: value for key, value in event.items() if key != "input"}
        return Told(event, place, RunId(entry["run_id"]))


def block(data: Mapping[str, Any]) -> bytes:
    """One event of a stream. JSON holds no line break, so it is one `data:` line."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def placed(place: str, told: bytes = b"\n") -> bytes:
    """The `id:` of the event that follows, or of none."""
    return f"id: {place}\n".encode() + told
