"""The log as `simulation` sees it: rows with real checksums, and reads that answer as the real reader does."""

from dataclasses import dataclass, field
from typing import NamedTuple

from apps.realtime.cursor import ReadLog
from apps.realtime.models import GENESIS_TAG
from apps.realtime.segments import next_tag
from apps.realtime.values import Page
from apps.vocabulary import Position, UserId

USER = UserId(1)


class Segment(NamedTuple):
    first: int
    last: int
    size: int
    tag: str
    values: tuple[int, ...]


@dataclass
class Log:
    """The database. `values` are the contents of the present history from its first event on, trimmed or not."""

    epoch: str
    segments: list[Segment] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    tag: str = GENESIS_TAG
    tail: int = 0
    tail_tag: str = GENESIS_TAG

    @property
    def head(self) -> int:
        return len(self.values)

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.head, self.tag)

    def append(self, values: tuple[int, ...], size: int) -> Page:
        first = self.head + 1
        self.values += values
        self.tag = next_tag(self.tag, str(values))
        self.segments.append(Segment(first, self.head, size, self.tag, values))
        return page_of(self.epoch, self.segments[-1:])

    def trim(self, rows: int) -> None:
        if rows:
            last = self.segments[rows - 1]
            self.tail, self.tail_tag = last.last, last.tag
            del self.segments[:rows]

    def copy(self) -> "Log":
        return Log(self.epoch, self.segments[:], self.values[:], self.tag, self.tail, self.tail_tag)

    def tag_at(self, seq: int) -> str | None:
        if seq == 0 and self.tail == 0:
            return GENESIS_TAG
        if seq == self.tail:
            return self.tail_tag
        return next((row.tag for row in self.segments if row.last == seq), None)

    def read(self, request: ReadLog) -> tuple[Page | None, Position | None]:
        """As `reader._read_page`: whole segments behind `after`; the head when they are trimmed."""
        taken: list[Segment] = []
        size = 0
        for row in self.segments:
            if row.first <= request.after:
                continue
            if row.first != (taken[-1].last if taken else request.after) + 1:
                break
            if taken and (row.last - request.after > request.max_events or size + row.size > request.max_bytes):
                break
            taken.append(row)
            size += row.size
        if taken:
            return page_of(self.epoch, taken), None
        return None, self.position if self.tail > request.after else None


def page_of(epoch: str, rows: list[Segment]) -> Page:
    events = ",".join(",".join(map(str, row.values)) for row in rows)
    return Page(
        USER, rows[0].first, Position(epoch, rows[-1].last, rows[-1].tag), events, sum(row.size for row in rows)
    )
