"""The end of a migration: `python -m tools.removal legacy`, then `python -m tools.removal rollout`, in a clone.

Deletes a room with every line that names it, and nothing else; look at the diff, run the tests, commit. An edit that
finds nothing to edit is an error, so that this list cannot go stale: the tests rehearse both steps on a copy.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EMPTY_SEAMS = '''"""The seams of this project: what is being replaced, by what. At this moment nothing is."""

from apps.rollout.seams import Seam

SEAMS: tuple[Seam, ...] = ()
'''

type Edit = Callable[[Path], None]


class NothingToRemoveError(RuntimeError):
    """A file, or a line in it, that should go is not there; the text says which."""


def delete(name: str, root: Path) -> None:
    """A file or a folder. Raises NothingToRemoveError."""
    path = root / name
    if not path.exists():
        raise NothingToRemoveError(f"{name} is not there")
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def drop_lines(name: str, pattern: str, root: Path) -> None:
    """Every line that matches the pattern as a whole. Raises NothingToRemoveError."""
    path = root / name
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not re.fullmatch(pattern, line.rstrip("\n"))]
    if len(kept) == len(lines):
        raise NothingToRemoveError(f"{name} has no line {pattern!r}")
    path.write_text("".join(kept), encoding="utf-8")


def drop_text(name: str, pattern: str, root: Path, instead: str = "") -> None:
    """Every match of the pattern, over lines. Raises NothingToRemoveError."""
    path = root / name
    text, found = re.subn(pattern, instead, path.read_text(encoding="utf-8"), flags=re.DOTALL)
    if not found:
        raise NothingToRemoveError(f"{name} holds nothing like {pattern!r}")
    path.write_text(text, encoding="utf-8")


def write(name: str, text: str, root: Path) -> None:
    """A file anew."""
    (root / name).write_text(text, encoding="utf-8")


def move(name: str, to: str, root: Path) -> None:
    """A file into another's place. Raises NothingToRemoveError."""
    if not (root / name).exists():
        raise NothingToRemoveError(f"{name} is not there")
    (root / name).replace(root / to)


CONTRACT = r'\[\[tool\.importlinter\.contracts\]\]\nname = "{}.*?\n\n'
WITHOUT_LEGACY: tuple[Edit, ...] = (
    partial(delete, "apps/legacy"),
    partial(delete, "tests/legacy"),
    partial(drop_lines, "project/settings.py", r"TURNOUT_LEGACY_\w+: str = .*"),
    partial(drop_text, "pyproject.toml", CONTRACT.format("Nobody imports the legacy room")),
    partial(drop_text, "pyproject.toml", CONTRACT.format("The legacy room knows")),
    partial(drop_lines, "pyproject.toml", r"exhaustive_ignores = \[\"legacy\"\].*"),
    # Its two seams go with it, and with them what the process did for them.
    partial(write, "project/seams.py", EMPTY_SEAMS),
    partial(move, "project/direct.py", "project/switch.py"),
    partial(delete, "project/watching.py"),
    partial(delete, "project/shadowing.py"),
    partial(delete, "project/pinned_work.py"),
    partial(delete, "project/leak_live.py"),
    partial(delete, "project/templates/project/leak_live.html"),
    partial(delete, "project/static/project/leak_live.js"),
    partial(delete, "project/static/project/leak_live.css"),
    partial(delete, "benchmarks/switch.py"),
    partial(delete, "tests/browser/test_leak_live.py"),
    partial(delete, "tests/project/test_leak_live.py"),
    partial(delete, "tests/promises/test_moves.py"),
    partial(drop_lines, "project/settings.py", r"TURNOUT_JUDGEMENT: str = .*"),
    partial(delete, "tests/project/test_watching.py"),
    partial(delete, "tests/project/test_shadowing.py"),
    partial(drop_lines, "tests/contracts/test_postgresql.py", r'    "tests/project/test_watching\.py",'),
)
WITHOUT_ROLLOUT: tuple[Edit, ...] = (
    partial(delete, "apps/rollout"),
    partial(delete, "tests/rollout"),
    partial(delete, "tests/removal"),
    partial(delete, "project/seams.py"),
    partial(delete, "benchmarks/guardrails.py"),
    partial(drop_lines, "project/settings.py", r'    "(waffle|apps\.rollout)",'),
    partial(drop_lines, "project/settings.py", r"(WAFFLE_FLAG_MODEL|TURNOUT_SEAMS)\b.*"),
    partial(drop_text, "pyproject.toml", r" \| rollout", instead=""),
    partial(drop_lines, "pyproject.toml", r'    "django-waffle.*'),
    partial(drop_lines, "tests/contracts/test_postgresql.py", r'    "tests/rollout/.*'),
    # Bounds that nothing reads any more, with what holds them to each other.
    partial(drop_text, "project/configuration.py", r"    # rollout\n.*?(?=    # agents\n)"),
    partial(drop_lines, "project/configuration.py", r" +\(self\.(shadow_share|guard_baseline_runs) .*"),
    partial(drop_text, "project/configuration.py", r" {12}\(\n {16}self\.guard_failure_limit .*?\n {12}\),\n"),
)
STEPS: dict[str, Sequence[Edit]] = {"legacy": WITHOUT_LEGACY, "rollout": WITHOUT_ROLLOUT}


def remove(room: str, root: Path) -> None:
    """Take one room out of the clone at `root`. Raises NothingToRemoveError, half-way then: look at the diff."""
    for edit in STEPS[room]:
        edit(root)


def main() -> int:
    """0 removed, 1 something was not where it should be."""
    parser = argparse.ArgumentParser(prog="tools.removal", description=__doc__)
    parser.add_argument("room", choices=list(STEPS), help="legacy first, then rollout")
    parser.add_argument("--root", type=Path, default=ROOT, help="the clone (default: this one)")
    arguments = parser.parse_args()
    try:
        remove(arguments.room, arguments.root)
    except NothingToRemoveError as error:
        print(f"stopped: {error}; `git diff` shows what was done until here", file=sys.stderr)
        return 1
    print(f"{arguments.room} is gone; look at `git diff`, run `make test`, commit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
