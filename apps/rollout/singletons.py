"""What a code base shares between all of its users: module state, class state, singletons, caches. Pure.

Only the syntax tree is read; nothing is imported or run. So it finds what is written down as shared, and not
what becomes shared at run time: an instance passed around, a registry behind a C extension, an attribute set
on a module from outside. `RISKS` says for each kind why it matters, and how much.
"""

import ast
import enum
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from apps.rollout.shared_state import Shared, StateFinder

LARGEST_FILE_BYTES = 2_000_000
NEVER_SEARCHED = frozenset({".git", ".venv", "venv", "node_modules", "__pycache__", "site-packages", ".tox", ".nox"})


class Risk(enum.IntEnum):
    """How likely it is that one user meets another one's data there."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of shared state: how dangerous it is, why, and what to do about it."""

    risk: Risk
    why: str
    instead: str


RULES: dict[Shared, Rule] = {
    Shared.SINGLETON: Rule(
        Risk.HIGH, "one object for all users, whatever it holds", "build it by a factory, for one user's work"
    ),
    Shared.GLOBAL_REBOUND: Rule(
        Risk.HIGH, "the last who sets it decides for everyone", "pass it as an argument, or keep it in an object"
    ),
    Shared.MODULE_CHANGED: Rule(
        Risk.HIGH, "filled while users are served, and read by all of them", "keep it in an object that one user owns"
    ),
    Shared.CLASS_CHANGED: Rule(
        Risk.HIGH, "every instance changes the same one", "make it in __init__, so that each instance has its own"
    ),
    Shared.DEFAULT_CHANGED: Rule(
        Risk.HIGH, "what one call puts in, the next one finds", "default to None, and make a new one in the call"
    ),
    Shared.CACHED_METHOD: Rule(
        Risk.HIGH, "keeps every instance alive, and answers for all of them", "cache in the instance, or not at all"
    ),
    Shared.MODULE_INSTANCE: Rule(
        Risk.MEDIUM, "an object that is made at import and lives for everyone", "make it at start-up and pass it on"
    ),
    Shared.CACHED_FUNCTION: Rule(
        Risk.MEDIUM, "remembers answers for all users, by its arguments alone", "name the user in the arguments"
    ),
    Shared.MODULE_EMPTY: Rule(
        Risk.MEDIUM, "an empty container at import only waits to be filled", "keep it in an object that one user owns"
    ),
    Shared.CONTEXT: Rule(
        Risk.MEDIUM, "outlives the work that set it where a task or thread goes on", "pass it as an argument"
    ),
    Shared.CONSTANT_INSTANCE: Rule(
        Risk.LOW, "called a constant; nothing here says that it cannot change", "make sure that its class is frozen"
    ),
    Shared.CLASS_CONTAINER: Rule(
        Risk.LOW,
        "shared by all instances; nobody changes it in this file",
        "make it a tuple, frozenset or mapping proxy",
    ),
    Shared.MODULE_CONTAINER: Rule(
        Risk.LOW,
        "can be changed from anywhere; nobody does in this file",
        "make it a tuple, frozenset or mapping proxy",
    ),
    Shared.DEFAULT: Rule(
        Risk.LOW, "one default for all calls; nobody changes it here", "default to None, or to something immutable"
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is shared."""

    kind: Shared
    path: str
    line: int
    name: str
    detail: str = ""

    @property
    def rule(self) -> Rule:
        """What is known of this kind."""
        return RULES[self.kind]

    @property
    def risk(self) -> Risk:
        """How dangerous it is."""
        return self.rule.risk


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that could not be judged, and why."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class SingletonReport:
    """What was found below one path: the most dangerous first, then by place."""

    root: str
    files: int
    findings: tuple[Finding, ...] = ()
    unread: tuple[Unread, ...] = field(default=())

    def at_least(self, risk: Risk) -> "SingletonReport":
        """The same report without what is less dangerous."""
        return SingletonReport(
            self.root, self.files, tuple(found for found in self.findings if found.risk >= risk), self.unread
        )

    def count(self, risk: Risk) -> int:
        """How many findings are of this risk."""
        return sum(found.risk is risk for found in self.findings)


def search(root: Path) -> SingletonReport:
    """Judge the Python files at or below `root`. Raises FileNotFoundError where there are none."""
    closed: list[OSError] = []
    files = list(python_files(root, closed.append)) if root.exists() else []
    if not files:
        raise FileNotFoundError(f"{root} holds no Python file" + (f": {closed[0]}" if closed else ""))
    base = root if root.is_dir() else root.parent
    findings: list[Finding] = []
    unread = [Unread(str(error.filename), error.strerror or "cannot be opened") for error in closed]
    for path in files:
        name = path.relative_to(base).as_posix()
        try:
            findings += findings_in(read_source(path), name)
        except UnreadableSourceError as why:
            unread.append(Unread(name, str(why)))
    findings.sort(key=lambda found: (-found.risk, found.path, found.line, found.name))
    return SingletonReport(str(root), len(files), tuple(findings), tuple(unread))


def findings_in(source: bytes, name: str) -> list[Finding]:
    """What one file shares. Raises UnreadableSourceError for what is no Python."""
    return [Finding(kind, name, line, what, detail) for kind, line, what, detail in StateFinder(parse(source)).found()]


class UnreadableSourceError(ValueError):
    """A file that cannot be read as Python; the text says why."""


def parse(source: bytes) -> ast.Module:
    """The syntax tree; the encoding is the one that the file declares. Raises UnreadableSourceError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape is its author's concern
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError) as error:
            raise UnreadableSourceError(f"no Python that this version reads: {error}") from error
        except (RecursionError, MemoryError) as error:
            raise UnreadableSourceError("nested too deeply to be read") from error


def read_source(path: Path) -> bytes:
    """The file's bytes. Raises UnreadableSourceError for one that is too large or cannot be opened."""
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise UnreadableSourceError(f"larger than {LARGEST_FILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableSourceError(error.strerror or type(error).__name__) from error


def python_files(root: Path, on_closed: Callable[[OSError], None]) -> Iterator[Path]:
    """The Python files at or below `root`, in a stable order; links are not followed. `on_closed` is told of
    folders that cannot be opened.
    """
    if root.is_file():
        if root.suffix == ".py":
            yield root
        return
    for folder, folders, names in root.walk(on_error=on_closed):
        folders[:] = sorted(name for name in folders if name not in NEVER_SEARCHED and not name.endswith(".egg-info"))
        yield from (folder / name for name in sorted(names) if name.endswith(".py"))
