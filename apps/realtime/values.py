"""The small frozen values that pass between the publisher, the log and those who run and fold. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ag_ui.core import BaseEvent, RunErrorEvent

from apps.vocabulary import Position, RunId, ThreadId, UserId


@dataclass(frozen=True, slots=True)
class RunLease:
    """The right to append to one run: every commit compares `fence`, `logged` is how many events the run has."""

    run_id: RunId
    thread_id: ThreadId
    user_id: UserId
    fence: int
    logged: int = 0


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One event to append to a user's stream outside of a run's lease (admission, thread changes)."""

    event: BaseEvent
    thread_id: ThreadId | None = None
    run_id: RunId | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What the books tell a user about a run that ended: appended behind its terminal event, in its transaction."""

    user_id: UserId
    entry: LogEntry


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ends: the terminal AG-UI event, the run's final status, and the tokens to settle."""

    event: BaseEvent
    status: str
    usage: Mapping[str, int]
    error_code: str | None = None
    waits_for: object | None = None  # what an `interrupt` outcome asks; whoever keeps the books knows it

    @property
    def error_message(self) -> str:
        """What the user is told of a failure; empty where there was none."""
        return self.event.message if isinstance(self.event, RunErrorEvent) else ""


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run whose terminal event is being committed, handed to `settle` and `fold` in that transaction."""

    run_id: RunId
    thread_id: ThreadId
    user_id: UserId
    fence: int
    status: str
    usage: Mapping[str, int]
    error_code: str | None
    prepared: object | None = field(default=None, compare=False)  # what `Preparation` brought; its maker knows it
    error_message: str = ""
    waits_for: object | None = None  # as in `Ending`


@dataclass(frozen=True, slots=True)
class LoggedPart:
    """Entries {seq, thread_id, run_id, at, event} of one thread up to the seq `upto`, in order, as far as retained."""

    entries: Sequence[Mapping[str, Any]]
    upto: int


@dataclass(slots=True)
class PageFrames:
    """A page as it goes over the wire, made when the first tab needs it and shared by all tabs of its user.

    `text` is UTF-8 where it is not ASCII, `deflated` the frame as raw deflate.
    """

    text: str | bytes | None = None
    deflated: bytes | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Whole segments of one user's stream, contiguous: events `first`..`position.seq`.

    `events` is the JSON text of the entries joined by commas, without the brackets, as it goes into a frame, and `size`
    its length in bytes of UTF-8.
    """

    user_id: UserId
    first: int
    position: Position
    events: str
    size: int
    frames: PageFrames = field(default_factory=PageFrames, compare=False, repr=False)

    @property
    def count(self) -> int:
        return self.position.seq - self.first + 1
