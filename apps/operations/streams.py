"""Is a stream whole? Every `seq` is there once, and the running checksum leads from its tail to its head.

A position is believed because of the checksum: where it does not hold, a tab could be served another history.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from apps.realtime.erasing import REMOVED
from apps.realtime.models import Segment, Stream
from apps.realtime.segments import next_tag

CHUNK = 500  # rows read at once
LOOKS = 3  # a stream that is trimmed while it is read is read again, this many times at most


@dataclass(frozen=True, slots=True)
class Ends:
    """Where a stream begins and ends, as its row says it: the events after `tail`, up to and with `head`."""

    epoch: str
    tail: int
    tail_tag: str
    head: int
    tag: str


@dataclass(frozen=True, slots=True)
class Link:
    """One segment, as far as the chain is concerned."""

    first_seq: int
    last_seq: int
    payload: str
    tag: str


def first_fault(ends: Ends, links: Iterable[Link]) -> str | None:
    """The first place where the chain breaks, or None. Pure; `links` are in order and end at the head.

    Blanked segments keep their tag while their text is gone: the chain is taken up again behind them.
    """
    seq, tag = ends.tail, ends.tail_tag
    for link in links:
        if link.first_seq != seq + 1:
            return f"seq {seq + 1} is missing or doubled"
        if next_tag(tag, link.payload) != link.tag and not _blanked(link.payload):
            return f"the checksum breaks at seq {link.first_seq}"
        entries = [entry["seq"] for entry in orjson.loads(link.payload)]
        if entries != list(range(link.first_seq, link.last_seq + 1)):
            return f"the row at seq {link.first_seq} holds other events than it says"
        seq, tag = link.last_seq, link.tag
    if seq != ends.head:
        return f"seq {seq + 1} to {ends.head} are missing"
    return None if tag == ends.tag else "the checksum at the head is another one"


def chain_fault(user_id: int) -> str | None:
    """What breaks the chain of this user's stream as it is stored, or None. Takes no lock: it may grow."""
    for _ in range(LOOKS):
        before = _ends(user_id)
        if before is None:
            return None  # deleted since
        fault = first_fault(before, _links(user_id, before.head))
        after = _ends(user_id)
        if fault is None or after is None:
            return None
        if (before.epoch, before.tail) == (after.epoch, after.tail):
            return fault
    return None  # its tail moves at each look: it is being trimmed, and whole up to there


def _ends(user_id: int) -> Ends | None:
    row = Stream.objects.filter(pk=user_id).values_list("epoch", "tail", "tail_tag", "head", "tag").first()
    return None if row is None else Ends(*row)


def _links(user_id: int, head: int) -> Iterable[Link]:
    rows = Segment.objects.filter(user_id=user_id, last_seq__lte=head).order_by("first_seq")
    for row in rows.values_list("first_seq", "last_seq", "payload", "tag").iterator(chunk_size=CHUNK):
        yield Link(*row)


def _blanked(payload: str) -> bool:
    return any(entry["event"] == REMOVED for entry in orjson.loads(payload))
