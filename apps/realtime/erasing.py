"""Taking content out of the log while its history stays provable: `seq` and tag are kept, the event is blanked.

A blanked event is `CUSTOM turnout.removed`. A tab that is connected, or comes back with an old position, still finds
every `seq`; what it says is gone. A thread may fill a stream, so it is erased in steps: the first commit leaves an
`Erasure` behind, and each step is a short transaction that anybody may take, in any process, at any later time.
All functions are synchronous.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
from django.db import transaction
from django.db.models import F

from apps.realtime.models import Erasure, RunLedger, Segment, Stream
from apps.vocabulary import ThreadId, UserId

REMOVED = {"type": "CUSTOM", "name": "turnout.removed", "value": None}


def is_blanked(entry: Mapping[str, Any]) -> bool:
    """Whether this entry's content was taken out."""
    return bool(entry["event"] == REMOVED)


def says_something(entry: Mapping[str, Any]) -> bool:
    """Whether an entry holds content: it is neither blanked nor the notice that its thread was deleted."""
    event = entry["event"]
    return not is_blanked(entry) and not (event["type"] == "CUSTOM" and event["name"] == "turnout.thread.deleted")


def blank_segments(keys: Iterable[int], chosen: Callable[[Mapping[str, Any]], bool] = lambda _: True) -> int:
    """Blank the chosen entries of the rows with these keys, all by default; returns how many lost their content.

    Belongs into the caller's transaction. Locks the streams, in the order of user ids, before it reads a row: who trims
    takes the same locks, and what was trimmed meanwhile is passed over.
    """
    rows = Segment.objects.filter(pk__in=list(keys))
    owners = sorted(set(rows.values_list("user_id", flat=True)))
    list(Stream.objects.select_for_update(no_key=True).filter(pk__in=owners).order_by("pk"))
    blanked = 0
    changed: list[Segment] = []
    shrunk: Counter[int] = Counter()
    for segment in rows.order_by("user_id", "first_seq"):
        entries = orjson.loads(segment.payload)
        to_blank = [entry for entry in entries if chosen(entry) and says_something(entry)]
        if not to_blank:
            continue
        for entry in to_blank:
            entry["event"] = REMOVED
            if segment.leaked_from is not None:
                entry["thread_id"] = entry["run_id"] = None  # a stranger keeps not even the ids
        before = segment.size
        segment.payload = orjson.dumps(entries).decode()
        segment.size = len(segment.payload.encode())
        shrunk[segment.user_id] += before - segment.size
        blanked += len(to_blank)
        changed.append(segment)
    Segment.objects.bulk_update(changed, ["payload", "size"])
    for user_id, size in sorted(shrunk.items()):
        Stream.objects.filter(pk=user_id).update(kept_bytes=F("kept_bytes") - size)
    return blanked


def begin_erasure(user_id: UserId, thread_id: ThreadId) -> None:
    """Have all of one thread's events blanked, from the tail on. Belongs into the transaction that deletes it."""
    tail = Stream.objects.filter(pk=user_id).values_list("tail", flat=True).first() or 0
    Erasure.objects.update_or_create(user_id=user_id, thread_id=thread_id, defaults={"next_seq": tail + 1})


def erase_step(user_id: UserId, thread_id: ThreadId, rows: int) -> bool:
    """Look at the next `rows` rows of the stream and blank what is the thread's. True while more is to be done now.

    False when nothing is left, and also while a run of the thread has not ended: what it still says comes behind, and a
    later step finds it.
    """
    with transaction.atomic():
        stream = Stream.objects.select_for_update(no_key=True).filter(pk=user_id).first()
        erasure = Erasure.objects.filter(user_id=user_id, thread_id=thread_id).first()
        if erasure is None:
            return False
        head = 0 if stream is None else stream.head
        next_rows = Segment.objects.filter(user_id=user_id, first_seq__gte=erasure.next_seq).order_by("first_seq")
        places = list(next_rows.values_list("pk", "last_seq")[:rows])
        if places:
            keys = Segment.objects.filter(pk__in=[key for key, _ in places], payload__contains=thread_id)
            blank_segments(keys.values_list("pk", flat=True), lambda entry: entry["thread_id"] == thread_id)
            erasure.next_seq = places[-1][1] + 1
        if erasure.next_seq <= head:
            erasure.save(update_fields=["next_seq"])
            return bool(places)
        if RunLedger.objects.filter(user_id=user_id, thread_id=thread_id, is_open=True).exists():
            erasure.save(update_fields=["next_seq"])
        else:
            erasure.delete()
        return False
