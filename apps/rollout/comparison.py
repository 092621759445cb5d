"""Do two paths say the same? Streams are brought into one form, compared, and told apart by three votes. Pure.

The votes: A, what legacy said to the user; A', legacy again in an instance of its own; B, the factory. A = A' and not
B: the factory differs. A' = B and not A: what legacy keeps for everyone reached this user, a leak found. All three
differ: noise, of a clock or of chance.

The form. Ids are drawn anew in each run, so they are renamed by their first appearance. Where deltas are cut is
nobody's promise, so they are joined. Sub-agents may speak at the same time, so the order counts within each of them
only.
"""

import difflib
import enum
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

MAIN = "main"
SHAPE_CHARACTERS = 200
DIFF_LINES = 60
LINE_CHARACTERS = 160

_IDS: Mapping[str, str] = {
    "messageId": "message",
    "parentMessageId": "message",
    "toolCallId": "call",
    "subagentRunId": "subagent",
    "parentSubagentRunId": "subagent",
    "runId": "run",
    "threadId": "thread",
    "interruptId": "interrupt",
}
_LEFT_OUT = frozenset({"type", "timestamp", "rawEvent", "metadata", "subagentRunId"})
_SECRET = re.compile(r"[A-Za-z0-9_+/=-]{20,}|[^\s@]{1,64}@[^\s@]{1,255}")


class Result(enum.StrEnum):
    """What one comparison came to."""

    MATCHED = "matched"
    MISMATCHED = "mismatched"
    IGNORED = "ignored"  # a known difference, or noise
    DIVERGED = "diverged"  # the factory asked for something that was not recorded
    LEGACY_WRONG = "legacy_wrong"  # legacy told the user what it should not have


@dataclass(frozen=True, slots=True)
class Vote:
    """What one path said, how it ended, and the first call that it made and nobody had recorded.

    `conversation_differs` says that this call was recorded, but for the conversation that it was made in. `value` is
    what a seam without a stream returned.
    """

    events: Sequence[Mapping[str, Any]] = ()
    ending: str = ""
    diverged: str = ""
    conversation_differs: bool = False
    value: Any = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A result; its shape groups what differs in the same way, and `diff` shows one example to people."""

    result: Result
    shape: str = ""
    diff: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One event in the common form: fields are sorted by name."""

    kind: str
    fields: tuple[tuple[str, str], ...]

    def lines(self) -> list[str]:
        """As people read it."""
        return [self.kind, *(f"  {name}: {value}" for name, value in self.fields)]


def normalised(vote: Vote) -> dict[str, tuple[Item, ...]]:
    """The stream by branch: `main`, and each sub-agent by its name and how many of that name came before it."""
    form = _Form()
    for event in vote.events:
        form.take(event)
    ending = [("how", vote.ending or "returned")] + ([("asked", vote.diverged)] if vote.diverged else [])
    form.items.setdefault(MAIN, []).append(Item("END", tuple(ending)))
    return {branch: tuple(items) for branch, items in form.items.items()}


def same(one: Vote, other: Vote, compare: Callable[[Any, Any], bool] | None = None) -> bool:
    """Whether two votes mean the same. With `compare`, of their values; without, of their streams."""
    if compare is None:
        return normalised(one) == normalised(other)
    return (one.ending, one.diverged) == (other.ending, other.diverged) and compare(one.value, other.value)


def decide(
    live: Vote, private: Vote | None, factory: Vote, compare: Callable[[Any, Any], bool] | None = None
) -> Comparison:
    """What three votes say; `private` is None where legacy cannot be had in an instance of its own.

    Raises nothing: a comparison that raises is a mismatch whose shape says so.
    """
    try:
        return _decide(live, private, factory, compare)
    except Exception as error:  # noqa: BLE001 - whatever a team's comparison raises, it is a result and no error of a run
        return Comparison(Result.MISMATCHED, f"the comparison raised {type(error).__name__}")


def _decide(live: Vote, private: Vote | None, factory: Vote, compare: Callable[[Any, Any], bool] | None) -> Comparison:
    if same(live, factory, compare):
        return Comparison(Result.MATCHED)
    alone_differs = private is not None and not same(live, private, compare)
    # Where both replays asked what was never asked, it is legacy's fault if nothing but the conversation differs.
    explained = not factory.diverged or factory.conversation_differs
    if private is not None and alone_differs and explained and same(private, factory, compare):
        return _differing(Result.LEGACY_WRONG, live, factory)
    if diverged := factory.diverged or (private.diverged if private is not None else ""):
        called = " ".join(diverged.split()[:2])
        return Comparison(Result.DIVERGED, f"not recorded: {called}"[:SHAPE_CHARACTERS], diff_of(live, factory))
    if alone_differs:
        return Comparison(Result.IGNORED, "noise: all three differ", diff_of(live, factory))
    return _differing(Result.MISMATCHED, live, factory)


def _differing(result: Result, live: Vote, factory: Vote) -> Comparison:
    return Comparison(result, shape_of(live, factory), diff_of(live, factory))


def shape_of(one: Vote, other: Vote) -> str:
    """Where and how two streams begin to differ, without what was said: `main: TEXT_MESSAGE_CONTENT.delta differs`."""
    left, right = normalised(one), normalised(other)
    for branch in sorted(left.keys() | right.keys(), key=lambda name: (name != MAIN, name)):
        name = branch.rpartition(" ")[0] or branch
        for mine, theirs in zip_longest(left.get(branch, ()), right.get(branch, ())):
            if mine != theirs:
                return f"{name}: {_difference(mine, theirs)}"[:SHAPE_CHARACTERS]
    return "the values differ"


def diff_of(one: Vote, other: Vote) -> str:
    """A readable, redacted and bounded diff of two streams: `-` is legacy, `+` the factory."""
    left, right = (_lines(normalised(vote)) for vote in (one, other))
    lines = list(difflib.unified_diff(left, right, "legacy", "factory", lineterm="", n=1))
    shown = [redacted(line)[:LINE_CHARACTERS] for line in lines[:DIFF_LINES]]
    return "\n".join(shown + ([f"({len(lines) - DIFF_LINES} more lines)"] if len(lines) > DIFF_LINES else []))


def redacted(text: str) -> str:
    """`text` without what looks like a key, a token or an address. Linear in its length."""
    return _SECRET.sub("[hidden]", text)


def _difference(mine: Item | None, theirs: Item | None) -> str:
    if mine is None or theirs is None:
        present = mine or theirs
        assert present is not None
        return f"{present.kind} {'is extra' if mine is None else 'is missing'}"
    if mine.kind != theirs.kind:
        return f"{theirs.kind} instead of {mine.kind}"
    left, right = dict(mine.fields), dict(theirs.fields)
    field = next(name for name in sorted(left.keys() | right.keys()) if left.get(name) != right.get(name))
    return f"{mine.kind}.{field} differs"


def _lines(form: Mapping[str, Sequence[Item]]) -> list[str]:
    lines: list[str] = []
    for branch in sorted(form, key=lambda name: (name != MAIN, name)):
        lines.append(f"[{branch}]")
        for item in form[branch]:
            lines += item.lines()
    return lines


class _Form:
    """The common form of one stream while it is read."""

    def __init__(self) -> None:
        self.items: dict[str, list[Item]] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._branches: dict[str, str] = {}
        self._open: dict[tuple[str, str, str], int] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        kind = str(event.get("type", ""))
        if kind == "SUBAGENT_STARTED":
            self._begin_branch(event)
        branch = self._branch_of(event, kind)
        if not self._joined(branch, kind, event):
            fields = tuple(
                (name, self._text(branch, name, value))
                for name, value in sorted(event.items())
                if name not in _LEFT_OUT and value is not None
            )
            self.items.setdefault(branch, []).append(Item(kind, fields))

    def _begin_branch(self, event: Mapping[str, Any]) -> None:
        name = str(event.get("name", "subagent"))
        parent = self._branches.get(str(event.get("parentSubagentRunId")), MAIN)
        self._counts["branch", f"{parent}/{name}"] += 1
        number = self._counts["branch", f"{parent}/{name}"]
        self._branches[str(event.get("subagentRunId"))] = f"{parent}/{name} {number}"

    def _branch_of(self, event: Mapping[str, Any], kind: str) -> str:
        branch = self._branches.get(str(event.get("subagentRunId")), MAIN)
        # Who begins and ends whom is told by the one who delegates.
        return branch.rpartition("/")[0] or MAIN if kind.startswith("SUBAGENT_") else branch

    def _joined(self, branch: str, kind: str, event: Mapping[str, Any]) -> bool:
        delta = event.get("delta")
        if not isinstance(delta, str):
            return False
        construct = str(event.get("messageId") or event.get("toolCallId") or "")
        place = self._open.get((branch, kind, construct))
        items = self.items.setdefault(branch, [])
        if place is None:
            self._open[branch, kind, construct] = len(items)
            return False
        fields = dict(items[place].fields)
        items[place] = Item(kind, tuple(sorted((fields | {"delta": fields.get("delta", "") + delta}).items())))
        return True

    def _text(self, branch: str, name: str, value: Any) -> str:
        if name not in _IDS or not isinstance(value, str):
            return value if isinstance(value, str) else repr(value)
        key = (_IDS[name], value)
        if key not in self._names:
            self._counts[branch, _IDS[name]] += 1
            self._names[key] = f"{branch} {_IDS[name]} {self._counts[branch, _IDS[name]]}"
        return self._names[key]
