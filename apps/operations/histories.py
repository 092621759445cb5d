"""Judges afterwards what clients were sent against what the log holds. Pure: lines in, a report out.

A client writes down, as JSON objects, what it did and what it was sent; the log says what there was to send. Then every
promise of delivery is a comparison: no gap, no repeat, the right order, nobody else's event, every event byte for byte
what was logged, everything to the end, one terminal event a run. A test, a drill and an operator use the same judge.

| line of a client | fields beside `client` and `user` |
| --- | --- |
| `{"what": "subscribed"}` | `after`: the position that it began behind; the head, where it named none |
| `{"what": "events"}` | `events`, `position`: as in the frame |
| `{"what": "acked"}` | `seq` |
| `{"what": "reset"}` | `head`: where it went on after it had loaded a snapshot |
| `{"what": "done"}` | it waits for nothing more |

A line of the log is `{"user", "seq", "thread_id", "run_id", "event"}`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson

from apps.findings import Line, Report, examples
from apps.realtime.constructs import TERMINAL
from apps.realtime.erasing import is_blanked
from apps.vocabulary import MalformedPosition, Position

LOOK = "replay it with the seed of the run that wrote the history, and keep the rows of the log"

Json = Mapping[str, Any]


class MalformedHistory(ValueError):  # noqa: N818 - names what was met
    """A line is not what a client or a log writes; the message says which line and what is wrong."""


@dataclass(slots=True)
class _Logged:
    """What the log holds of one user: a digest an event, since a long history does not fit into memory as text."""

    digests: dict[int, bytes | None] = field(default_factory=dict)  # None: blanked, so that any text is right
    first: int = 0
    head: int = 0


@dataclass(slots=True)
class _Client:
    user: str
    expected: int | None = None
    received: int = 0  # highest seq
    done: bool = False


class HistoryCheck:
    """Feed it the log first (`logged`), then each client's lines in their order (`said`), then ask for the `report`."""

    def __init__(self) -> None:
        self._log: defaultdict[str, _Logged] = defaultdict(_Logged)
        self._owners: dict[str, str] = {}
        self._ends: Counter[str] = Counter()
        self._clients: dict[str, _Client] = {}
        self._found: dict[str, list[str]] = {name: [] for name in _PROMISES}
        self.delivered = 0
        self.unproven = 0  # delivered, and no longer in the log
        self.resets = 0
        self.connections = 0

    # -- the log

    def logged(self, user: str, entry: Json) -> None:
        """One entry of a user's stream, in order."""
        stream, seq, event = self._log[user], entry["seq"], entry["event"]
        if stream.head and seq != stream.head + 1:
            self._found["The log has no gap"].append(f"seq {stream.head + 1} of user {user}")
        stream.first = stream.first or seq
        stream.head = seq
        stream.digests[seq] = None if is_blanked(entry) else _digest(entry)
        if (run_id := entry["run_id"]) is not None:
            self._owners.setdefault(run_id, user)
            self._ends[run_id] += event["type"] in TERMINAL

    # -- the clients

    def said(self, line: Json) -> None:
        """One line of a client. Raises MalformedHistory."""
        try:
            name, what = str(line["client"]), line["what"]
            client = self._clients.setdefault(name, _Client(str(line["user"])))
            match what:
                case "subscribed":
                    self.connections += 1
                    client.expected = Position.parse(line["after"]).seq + 1
                case "events":
                    for entry in line["events"]:
                        self._received(name, client, entry)
                    if Position.parse(line["position"]).seq != client.received:
                        self._found["In order"].append(f"{name} was told {line['position']} after {client.received}")
                case "acked":
                    if line["seq"] > client.received:
                        self._found["Acks are of what was sent"].append(f"{name} acknowledged {line['seq']}")
                case "reset":
                    self.resets += 1
                    client.received = Position.parse(line["head"]).seq
                    client.expected = client.received + 1
                case "done":
                    client.done = True
                case _:
                    raise MalformedHistory(f"a client says {what!r}, which is none of its words")
        except (KeyError, TypeError, MalformedPosition) as error:
            raise MalformedHistory(f"{type(error).__name__}: {error} in {str(line)[:200]}") from error

    def _received(self, name: str, client: _Client, entry: Json) -> None:
        self.delivered += 1
        seq, place = entry["seq"], f"seq {entry['seq']} at {name}"
        expected = client.expected
        if expected is None:
            self._found["In order"].append(f"{place} before it subscribed")
        elif seq > expected:
            self._found["No event is lost"].append(f"{expected}..{seq - 1} at {name}")
        elif seq < expected:
            self._found["No event comes twice"].append(place)
        client.expected = seq + 1
        client.received = seq
        self._compare(client.user, entry, place)

    def _compare(self, user: str, entry: Json, place: str) -> None:
        owner = self._owners.get(entry["run_id"]) if entry["run_id"] is not None else None
        if owner is not None and owner != user:
            self._found["Nobody else's event"].append(f"{place} is of user {owner}'s run")
            return
        stream = self._log[user]
        if entry["seq"] not in stream.digests:
            if entry["seq"] < stream.first or not stream.first:
                self.unproven += 1
            else:
                self._found["Nothing that is not logged"].append(place)
            return
        logged = stream.digests[entry["seq"]]
        if logged is not None and not is_blanked(entry) and logged != _digest(entry):
            self._found["Byte for byte as logged"].append(place)

    # -- the judgement

    def report(self) -> Report:
        """What was found, one line a promise."""
        lost = self._found["No event is lost"]
        for name, client in self._clients.items():
            if client.done and client.received < (head := self._log[client.user].head):
                lost.append(f"{client.received + 1}..{head} at {name}, which waits for nothing more")
        ends = self._found["One end a run"]
        ends.extend(f"run {run_id} has {number}" for run_id, number in sorted(self._ends.items()) if number > 1)
        if self._clients and all(client.done for client in self._clients.values()):
            ends.extend(f"run {run_id} has none" for run_id, number in sorted(self._ends.items()) if not number)
        return Report("History", tuple(self._line(name) for name in _PROMISES))

    def _line(self, name: str) -> Line:
        found = self._found[name]
        if found:
            return Line(name, kept=False, detail=f"{len(found)}: {examples(found)}", next_step=LOOK)
        match name:
            case "One end a run":
                detail = f"{len(self._ends)} runs"
            case "Byte for byte as logged" if self.unproven:
                detail = f"{self.unproven} of {self.delivered} events are no longer in the log"
            case "No event is lost":
                detail = f"{self.delivered} events to {len(self._clients)} clients, {self.connections} connections"
            case _:
                detail = "0"
        return Line(name, kept=True, detail=detail)


_PROMISES = (
    "The log has no gap",
    "No event is lost",
    "No event comes twice",
    "In order",
    "Nobody else's event",
    "Nothing that is not logged",
    "Byte for byte as logged",
    "Acks are of what was sent",
    "One end a run",
)


def check_lines(logged: Iterable[tuple[str, Json]], said: Iterable[Json]) -> Report:
    """Judge whole histories at once."""
    check = HistoryCheck()
    for user, entry in logged:
        check.logged(user, entry)
    for line in said:
        check.said(line)
    return check.report()


def _digest(entry: Json) -> bytes:
    return blake2b(orjson.dumps([entry["thread_id"], entry["run_id"], entry["event"]]), digest_size=12).digest()
