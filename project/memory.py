"""The most that users can make one process hold, computed from its bounds. Pure.

A sum of products, each a bound times a bound, so that an operator sees which one to lower. It counts what is held for
users at once; what the database and the kernel hold is theirs.
"""

from dataclasses import dataclass
from typing import Final

from project.configuration import Configuration

BASE_BYTES: Final = 192 * 2**20  # interpreter, libraries and pools of an idle process, rounded up
OVERHEAD: Final = 2  # of Python objects over the bytes that they hold; measured below that in the soak test


@dataclass(frozen=True, slots=True)
class Share:
    """What one kind of thing can hold: so many of them, so many bytes each."""

    what: str
    number: int
    bytes_each: int

    @property
    def bytes(self) -> int:
        """All of them."""
        return self.number * self.bytes_each


def shares(bounds: Configuration) -> tuple[Share, ...]:
    """The worst case of one process, part by part."""
    run = bounds.publisher_bytes + bounds.event_bytes + bounds.history_bytes + bounds.text_bytes
    return (
        Share("an idle process", 1, BASE_BYTES),
        Share("events sent and not acknowledged, by connection", bounds.connections, OVERHEAD * bounds.window_bytes),
        Share(
            "commands that wait, by connection",
            bounds.connections,
            OVERHEAD * bounds.inbox_bytes,
        ),
        Share("runs: events on their way, history and question", bounds.run_slots, OVERHEAD * run),
        Share("runs that end: what is folded into messages", bounds.run_slots, OVERHEAD * bounds.run_bytes),
        Share("the commit at work, by run", bounds.run_slots, OVERHEAD * bounds.commit_bytes_per_user),
    )


def worst_case_bytes(bounds: Configuration) -> int:
    """The sum of all shares."""
    return sum(share.bytes for share in shares(bounds))


def in_words(bounds: Configuration) -> str:
    """One line for a start: the sum, and the share that is the largest."""
    largest = max(shares(bounds), key=lambda share: share.bytes)
    product = f"{largest.number} times {readable(largest.bytes_each)}"
    return f"at worst {readable(worst_case_bytes(bounds))} of memory, most of it for {largest.what} ({product})"


def readable(size: int) -> str:
    """A number of bytes, for people."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
