"""Credentials in what agents say: removed before the log sees them, also where one is split over deltas. Pure.

A model repeats what it has read, and a prompt, a file or a page of a tool may hold a key. The formats that issuers made
recognisable are removed: a text is read once, in time linear in its length, in runs of the characters that keys are
made of. A run can only be judged when it ends, so one that may yet become a key is held back until then; all else
passes at once. A private key is removed from its first line to its last. This guards against accidents: whoever wants
to smuggle a secret past it can spell it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

REMOVED: Final = "[removed]"
HELD_CHARACTERS: Final = 512  # of a run: a longer one is cut there, and its rest removed with it

# How a key begins, and how many characters of it there are at least. Words do not begin like this.
_KEYS: Final[Mapping[str, int]] = {
    "AKIA": 20,
    "ASIA": 20,
    "AIza": 39,
    "eyJ": 24,  # a JSON Web Token: each of its parts but the last
    "ghp_": 40,
    "gho_": 40,
    "ghs_": 40,
    "ghu_": 40,
    "ghr_": 40,
    "github_pat_": 40,
    "glpat-": 26,
    "hf_": 34,
    "npm_": 36,
    "pypi-": 40,
    "rk_live_": 24,
    "sk-": 24,
    "sk_live_": 24,
    "turnout_": 43,  # ours
    "xoxb-": 24,
    "xoxp-": 24,
}
_LINE_BEGINS: Final = "-----BEGIN"
_RUN: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_PRIVATE: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_END: Final = "-----END"


class SecretFilter:
    """One message's text. `feed` returns what may pass so far, `finish` the rest."""

    def __init__(self, known: Sequence[str] = ()) -> None:
        self._keys = {**_KEYS, **{secret: len(secret) for secret in known}}
        self._starts = re.compile("|".join(map(re.escape, (*self._keys, _LINE_BEGINS))))
        self._beginnings = frozenset(
            start[:length] for start in (*self._keys, _LINE_BEGINS) for length in range(1, len(start) + 1)
        )
        self._held = ""
        self._in_key = False  # inside a private key, which goes on to its last line
        self._in_run = False  # inside a run that was removed, which goes on to its end

    @property
    def holds(self) -> bool:
        """Whether something is held back."""
        return bool(self._held)

    def feed(self, text: str) -> str:
        """Take the next piece, and return what may be shown."""
        if not self._held and not self._in_key and not self._in_run and self._is_plain(text):
            return text
        return self._through(self._held + text, at_end=False)

    def finish(self) -> str:
        """The text has ended: what is still to be shown."""
        return self._through(self._held, at_end=True)

    def _is_plain(self, text: str) -> bool:
        """Whether nothing in it begins a key, nor may when more comes."""
        if self._starts.search(text):
            return False
        tail = text[-HELD_CHARACTERS:]
        run = _last_run(tail)
        return run not in self._beginnings

    def _through(self, text: str, *, at_end: bool) -> str:
        self._held = ""
        shown: list[str] = []
        place = 0
        while place < len(text):
            if self._in_key:
                place = self._skip_key(text, place, at_end=at_end)
                continue
            run = _RUN.search(text, place)
            if run is None:
                self._in_run = False
                shown.append(text[place:])
                break
            if run.start() > place:
                self._in_run = False
            shown.append(text[place : run.start()])
            place = self._take_run(text, run, shown, at_end=at_end)
        return "".join(shown)

    def _take_run(self, text: str, run: re.Match[str], shown: list[str], *, at_end: bool) -> int:
        """Show, remove or hold back one run; returns where to go on."""
        word, open_ended = run[0], run.end() == len(text) and not at_end
        if self._in_run:
            return run.end()
        if word.startswith(_LINE_BEGINS):
            return self._take_line(text, run.start(), shown, at_end=at_end)
        if open_ended and (word in self._beginnings or self._begins_key(word)) and len(word) < HELD_CHARACTERS:
            self._held = word
            return len(text)
        if self._is_key(word):
            shown.append(REMOVED)
            self._in_run = open_ended
        else:
            shown.append(word)
        return run.end()

    def _take_line(self, text: str, start: int, shown: list[str], *, at_end: bool) -> int:
        if _PRIVATE.match(text, start):
            shown.append(REMOVED)
            self._in_key = True
            return start + len(_LINE_BEGINS)
        if not at_end and len(text) - start < HELD_CHARACTERS and "\n" not in text[start:]:
            self._held = text[start:]
            return len(text)
        shown.append(_LINE_BEGINS)
        return start + len(_LINE_BEGINS)

    def _skip_key(self, text: str, place: int, *, at_end: bool) -> int:
        end = text.find(_END, place)
        if end < 0:
            self._held = "" if at_end else _beginning_of(_END, text[place:])
            return len(text)
        line = text.find("-----", end + len(_END))
        if line < 0:
            if not at_end and len(text) - end < HELD_CHARACTERS:
                self._held = text[end:]
            return len(text)
        self._in_key = False
        return line + len("-----")

    def _begins_key(self, word: str) -> bool:
        return any(word.startswith(start) for start in self._keys)

    def _is_key(self, word: str) -> bool:
        return any(word.startswith(start) and len(word) >= least for start, least in self._keys.items())


class RunSecrets:
    """The filters of one run's open messages, each by its id."""

    def __init__(self, known: Sequence[str] = ()) -> None:
        self._known = tuple(known)
        self._filters: dict[str, tuple[SecretFilter, str, str | None]] = {}

    def feed(self, event_type: str, construct_id: str, subagent: str | None, text: str) -> str:
        """What of a delta may be shown now."""
        if construct_id not in self._filters:
            self._filters[construct_id] = (SecretFilter(self._known), event_type, subagent)
        return self._filters[construct_id][0].feed(text)

    def ended(self, construct_id: str) -> tuple[str, str, str | None] | None:
        """The rest of a message that ends: its text, and type and sub-agent of its deltas; None where there is none."""
        found = self._filters.pop(construct_id, None)
        if found is None:
            return None
        rest = found[0].finish()
        return (rest, found[1], found[2]) if rest else None

    def open_ids(self) -> list[str]:
        """Messages that hold something back."""
        return [construct_id for construct_id, (one, _, _) in self._filters.items() if one.holds]

    def forget(self) -> None:
        """What is held back belongs to what was refused."""
        self._filters.clear()

    def whole(self, value: Any) -> Any:
        """A value that comes at once, without the secrets in its texts; the same object where there are none."""
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return {key: self.whole(item) for key, item in value.items()}
            case list() | tuple():
                return [self.whole(item) for item in value]
            case _:
                return value

    def text(self, text: str) -> str:
        """A whole text without its secrets."""
        one = SecretFilter(self._known)
        return one.feed(text) + one.finish()


def _last_run(text: str) -> str:
    end = len(text)
    start = end
    while start and (text[start - 1].isascii() and (text[start - 1].isalnum() or text[start - 1] in "_-")):
        start -= 1
    return text[start:end]


def _beginning_of(mark: str, text: str) -> str:
    """The end of `text` that may yet become `mark`."""
    for length in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:length]):
            return mark[:length]
    return ""
