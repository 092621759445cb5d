"""The words that every room shares: ids, identity, position, refusal. Pure; imports nothing of Turnout.

Ids are opaque text (ours are UUIDv7, so they sort by creation). They are distinct types, because a thread id where a
run id belongs is the kind of mistake that reaches another user.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NewType, Self

from uuid_utils import uuid7

UserId = NewType("UserId", int)
RunId = NewType("RunId", str)
ThreadId = NewType("ThreadId", str)
MessageId = NewType("MessageId", str)
ConnectionId = NewType("ConnectionId", str)

ID_LENGTH = 36  # characters of a UUID in its hyphenated form
MAX_SEQ = 2**53 - 1  # what a JavaScript number holds exactly
POSITION_LENGTH = 50  # characters; the longest text of a position: 16 + 1 + 16 + 1 + 16

_POSITION = re.compile(r"([0-9a-f]{16})\.(0|[1-9][0-9]{0,15})\.([0-9a-f]{16})", re.ASCII)


def new_id() -> str:
    """A new UUIDv7 as 36 characters of text: unique, and ordered by its creation time in milliseconds."""
    return str(uuid7())


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose data a call may touch. There is no default identity: a call without one cannot be written."""

    user_id: UserId
    name: str


class MalformedPosition(ValueError):  # noqa: N818 - names what was met
    """A position is the text `epoch.seq.tag` that this server handed out; this one is not."""


@dataclass(frozen=True, slots=True)
class Position:
    """A point in one user's stream.

    `seq` alone would be a trap: after a restore from a backup the same numbers are given again to other events, and a
    tab at seq 900 would silently skip them. The random `epoch` names the history, and `tag`, a running checksum, tells
    two histories apart that forked under one epoch.
    """

    epoch: str
    seq: int
    tag: str

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}.{self.tag}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str()` wrote. Raises MalformedPosition."""
        match = _POSITION.fullmatch(text) if len(text) <= POSITION_LENGTH else None
        if match is None or int(match[2]) > MAX_SEQ:
            raise MalformedPosition("a position is the text epoch.seq.tag as this server sent it")
        return cls(match[1], int(match[2]), match[3])


@dataclass(frozen=True, slots=True)
class PinnedPath:
    """Which path serves a run at one seam, and the version of the stage that said so."""

    path: Literal["legacy", "factory"]
    version: int


PinnedPaths = Mapping[str, PinnedPath]


class ErrorCode(enum.StrEnum):
    """Why a command was refused. `remembered` refusals are the answer of that command id for good."""

    BAD_REQUEST = "bad_request"
    UNKNOWN_COMMAND = "unknown_command"
    NOT_FOUND = "not_found"
    ID_REUSED = "id_reused"
    THREAD_BUSY = "thread_busy"
    QUEUE_FULL = "queue_full"
    TOO_MANY_RUNS = "too_many_runs"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    AGENT_UNKNOWN = "agent_unknown"
    INPUT_TOO_LARGE = "input_too_large"
    RUN_FINISHED = "run_finished"
    ALREADY_DECIDED = "already_decided"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"

    @property
    def remembered(self) -> bool:
        """False for the transient refusals: the same command may succeed when it is sent again."""
        return self not in {
            ErrorCode.RATE_LIMITED,
            ErrorCode.UNAVAILABLE,
            ErrorCode.INTERNAL,
            ErrorCode.QUEUE_FULL,
        }


@dataclass(eq=False)  # not frozen: raising an exception through a context manager sets its traceback
class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not a fault
    """A command that is not carried out, with what was wrong and what is accepted, and nobody else's data."""

    code: ErrorCode
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
