"""Secrets of users, and the search for those that came to where they do not belong.

A canary is 128 random bits, planted in one place of one user. Whatever a sink did to it on the way, one of its forms is
found: its beginning alone, base64 at any alignment, percent-escaped, JSON-escaped, or its bytes in hex.
"""

import base64
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

PLACES = ("name", "text", "title", "token", "reply", "error")
BEGINNING = 20  # characters: what a log, a cache key or a column that cuts off would keep


def forms_of(canary: str) -> tuple[str, ...]:
    """How a canary may look in a sink. All of it is ASCII."""
    start = canary[:BEGINNING]
    shifted = []
    for shift in range(3):
        # Only the characters that depend on the canary alone, whatever stands before and behind it.
        coded = base64.b64encode(b"\0" * shift + start.encode()).decode()
        whole = (shift + len(start)) // 3 * 4
        shifted.append(coded[4 if shift else 0 : whole])
    percent = "".join(f"%{ord(letter):02x}" for letter in start)
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in start)
    return (start, *shifted, percent, percent.upper(), escaped, start.encode().hex())


@dataclass(frozen=True)
class Canaries:
    """One user's, one for each place."""

    owner: str
    planted: dict[str, str] = field(default_factory=lambda: {place: secrets.token_hex(16) for place in PLACES})

    def __getattr__(self, place: str) -> str:
        try:
            return self.planted[place]
        except KeyError:
            raise AttributeError(place) from None


@dataclass(frozen=True)
class Find:
    """A canary that stands in a sink: in whose piece of it, whose it is, and where it had been planted."""

    sink: str
    holder: str | None  # None: the piece belongs to nobody, and may hold nothing of anyone
    owner: str
    place: str
    around: str


class Search:
    """All canaries of all users, and what of them was found. `look` at every piece of every sink once."""

    def __init__(self, everyone: Iterable[Canaries]) -> None:
        self.everyone = list(everyone)
        self.finds: list[Find] = []
        self.looked_at: dict[str, int] = {}  # characters by sink: a sink that was empty proves nothing
        self.met: set[str] = set()  # sinks in which users' own canaries stood where they may be

    @cached_property
    def _known(self) -> dict[str, tuple[str, str]]:
        return {
            form: (user.owner, place)
            for user in self.everyone
            for place, canary in user.planted.items()
            for form in forms_of(canary)
        }

    @cached_property
    def _any(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(form) for form in self._known))

    def owners_in(self, text: str) -> set[tuple[str, str]]:
        """Owner and place of every canary that stands in the text."""
        return {self._known[found] for found in self._any.findall(text)}

    def look(self, sink: str, text: str, holder: str | None = None, *, may: Iterable[str] = ()) -> None:
        """Note what of others than `holder` stands in this piece of a sink. Places that `may` be there pass."""
        self.looked_at[sink] = self.looked_at.get(sink, 0) + len(text)
        for match in self._any.finditer(text):
            owner, place = self._known[match[0]]
            if owner != holder and place not in may:
                around = text[max(0, match.start() - 60) : match.end() + 20]
                self.finds.append(Find(sink, holder, owner, place, around))
            else:
                self.met.add(sink)

    def look_for_mixtures(self, sink: str, text: str, may: Iterable[str] = ()) -> None:
        """A piece of nobody in particular, such as a log record: of one user at most, and only what `may` be there."""
        found = {owner for owner, place in self.owners_in(text) if place in may}
        self.look(sink, text, next(iter(found)) if len(found) == 1 else None)
        for owner, place in self.owners_in(text):
            if place not in may:
                self.finds.append(Find(sink, owner, owner, place, text[:200]))

    def sinks_with_finds(self) -> set[str]:
        return {find.sink for find in self.finds}
