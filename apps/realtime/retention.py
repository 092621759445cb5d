"""Taking content out of the log while its history stays provable: `seq` and tag are kept, the event is blanked.

A blanked event is `CUSTOM turnout.removed`. A tab that is connected, or comes back with an old position, still finds
every `seq`; what it says is gone. All functions are synchronous and belong into the caller's transaction.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from apps.realtime.models import Segment
from apps.vocabulary import ThreadId, UserId

REMOVED = {"type": "CUSTOM", "name": "turnout.removed", "value": None}


def says_something(entry: Mapping[str, Any]) -> bool:
    """Whether an entry holds content: it is neither blanked nor the notice that its thread was deleted."""
    event = entry["event"]
    return event != REMOVED and not (event["type"] == "CUSTOM" and event["name"] == "turnout.thread.deleted")


def blank_segments(segments: Iterable[Segment], chosen: Callable[[Mapping[str, Any]], bool] = lambda _: True) -> int:
    """Blank the chosen entries of these rows, all by default; returns how many events lost their content."""
    blanked = 0
    changed: list[Segment] = []
    for segment in segments:
        entries = orjson.loads(segment.payload)
        to_blank = [entry for entry in entries if chosen(entry) and says_something(entry)]
        if not to_blank:
            continue
        for entry in to_blank:
            entry["event"] = REMOVED
            if segment.leaked_from is not None:
                entry["thread_id"] = entry["run_id"] = None  # a stranger keeps not even the ids
        segment.payload = orjson.dumps(entries).decode()
        segment.size = len(segment.payload.encode())
        blanked += len(to_blank)
        changed.append(segment)
    Segment.objects.bulk_update(changed, ["payload", "size"])
    return blanked


def blank_thread(user_id: UserId, thread_id: ThreadId) -> int:
    """Blank all of one thread's events in its owner's stream; returns how many."""
    rows = Segment.objects.filter(user_id=user_id, payload__contains=thread_id).order_by("first_seq")
    return blank_segments(rows.iterator(chunk_size=64), lambda entry: entry["thread_id"] == thread_id)
