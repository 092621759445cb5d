"""How entries become rows: numbering, cutting into segments, and the running checksum. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class SegmentLimits:
    """The largest ordinary segment; an event that is larger stands alone."""

    events: int = 64
    size: int = 65_536  # bytes


@dataclass(frozen=True, slots=True)
class NewSegment:
    """A row to insert. `size` is in bytes of UTF-8."""

    first_seq: int
    last_seq: int
    payload: str
    size: int
    tag: str


def next_tag(tag: str, payload: str) -> str:
    """The stream's checksum after a further segment: BLAKE2b over the one before and the payload, 16 hex digits."""
    return blake2b(payload.encode(), key=tag.encode(), digest_size=8).hexdigest()


def cut_segments(entries: Sequence[str], head: int, tag: str, limits: SegmentLimits) -> Iterator[NewSegment]:
    """Number `entries` (JSON text without seq, as `encode_entry` makes them) from `head` + 1 and cut them into rows."""
    waiting: list[str] = []
    size = 2
    first = head + 1
    for seq, entry in enumerate(entries, start=head + 1):
        numbered = f'{{"seq":{seq},{entry}}}'
        length = len(numbered.encode()) + 1
        if waiting and (len(waiting) >= limits.events or size + length > limits.size):
            segment = _segment(first, waiting, tag)
            yield segment
            tag, waiting, size, first = segment.tag, [], 2, seq
        waiting.append(numbered)
        size += length
    if waiting:
        yield _segment(first, waiting, tag)


def _segment(first: int, numbered: list[str], tag: str) -> NewSegment:
    payload = f"[{','.join(numbered)}]"
    return NewSegment(first, first + len(numbered) - 1, payload, len(payload.encode()), next_tag(tag, payload))
