"""One output for all audits: a line a promise, KEPT or BROKEN, one sum line, and what to do next. Pure.

An audit gathers a frozen `Report` and renders it afterwards: people, machines and tests read the same facts.
"""

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass


class Exit(enum.IntEnum):
    """The exit status of an audit command. Silence about a thing that could not be seen is never status 0."""

    KEPT = 0
    BROKEN = 1
    COULD_NOT_LOOK = 2


class CouldNotLook(Exception):  # noqa: N818 - it names what happened, as the exit status does
    """The audit could not see what it judges; the message says what was missing and what would help."""


@dataclass(frozen=True, slots=True)
class Line:
    """One promise and what was found. A broken line must say what to do about it (`next_step`)."""

    name: str
    kept: bool
    detail: str
    next_step: str = ""

    def __post_init__(self) -> None:
        if not self.kept and not self.next_step:
            raise ValueError(f"the broken line {self.name!r} does not say what to do next")


@dataclass(frozen=True, slots=True)
class Report:
    """What one audit found; `title` opens the sum line."""

    title: str
    lines: tuple[Line, ...]

    @property
    def broken(self) -> tuple[Line, ...]:
        """The lines that do not hold."""
        return tuple(line for line in self.lines if not line.kept)

    @property
    def exit(self) -> Exit:
        """The exit status of the command that prints this report."""
        return Exit.BROKEN if self.broken else Exit.KEPT

    def as_text(self) -> str:
        """One row a line and the sum line, in columns that hold for this report."""
        width = max((len(line.name) for line in self.lines), default=0)
        rows = [f"{line.name:<{width}}  {_verdict(line):<6}  {line.detail}".rstrip() for line in self.lines]
        return "\n".join([*rows, self._sum()])

    def as_json(self) -> str:
        """The same facts as one JSON object."""
        return json.dumps(
            {
                "title": self.title,
                "exit": int(self.exit),
                "kept": len(self.lines) - len(self.broken),
                "broken": len(self.broken),
                "lines": [
                    {
                        "name": line.name,
                        "kept": line.kept,
                        "detail": line.detail,
                        "next_step": line.next_step,
                    }
                    for line in self.lines
                ],
            }
        )

    def _sum(self) -> str:
        broken = self.broken
        counts = f"{self.title}: {len(self.lines) - len(broken)} kept, {len(broken)} broken."
        steps = list(dict.fromkeys(line.next_step for line in broken))
        return f"{counts}  Next: {'; '.join(steps)}." if steps else counts


def blind_text(title: str, why: CouldNotLook) -> str:
    """What an audit that could not look prints."""
    return f"{title}: could not look: {why}"


def blind_json(title: str, why: CouldNotLook) -> str:
    """The JSON object of an audit that could not look; it has no lines, because nothing is known."""
    return json.dumps({"title": title, "exit": int(Exit.COULD_NOT_LOOK), "error": str(why), "lines": []})


def examples(found: Sequence[str], shown: int = 3) -> str:
    """The first few of `found`, and how many more there are: `a, b, c and 4 more`."""
    more = len(found) - shown
    text = ", ".join(found[:shown])
    return f"{text} and {more} more" if more > 0 else text


def _verdict(line: Line) -> str:
    return "KEPT" if line.kept else "BROKEN"
