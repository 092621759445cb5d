"""Where the code names a legacy path, outside of its seam: what must go before the old code can. Pure.

Found in the syntax tree, without importing: imports (relative ones and `*` too), attributes of imported modules,
and the dotted path as a string. Not found: a name that is put together at run time.
"""

import ast
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from apps.rollout.scopes import dotted
from apps.rollout.singletons import UnreadableSourceError, parse, python_files, read_source


@dataclass(frozen=True, slots=True)
class Reference:
    """One place that names the legacy path."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


def find_references(
    target: str,
    base: Path,
    folders: Iterable[Path],
    *,
    left_out: Collection[Path],
    on_unread: Callable[[str], None],
) -> list[Reference]:
    """Where files below `folders` name the dotted path `target`. `base` is where imports start.

    `left_out` are files that may name it: the one that defines it, and those that declare the seam. `on_unread`
    is told of what could not be read.
    """
    found: list[Reference] = []
    for folder in folders:
        for path in python_files(folder, lambda error: on_unread(str(error))):
            if path in left_out:
                continue
            name = path.relative_to(base).as_posix()
            try:
                source = read_source(path)
                if target.rpartition(".")[2].encode() in source or target.split(".")[-2].encode() in source:
                    module = _module_of(path, base)
                    found += [
                        Reference(name, line, text) for line, text in references_in(parse(source), module, target)
                    ]
            except UnreadableSourceError as why:
                on_unread(f"{name}: {why}")
    return sorted(found, key=lambda reference: (reference.path, reference.line))


def references_in(tree: ast.Module, module: str, target: str) -> Iterator[tuple[int, str]]:
    """Line and text of each place in one module that names `target`. `module` is its dotted name, with
    `.__init__` for a package.
    """
    names = _imported(tree, module)
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom():
                origin = _origin(node, module)
                for alias in node.names:
                    full = f"{origin}.{alias.name}"
                    if _names(full, target) or (alias.name == "*" and _names(target, origin) and origin != target):
                        yield node.lineno, f"from {origin} import {alias.name}"
            case ast.Attribute():
                written = dotted(node)
                first, _, rest = written.partition(".")
                if first in names and rest and f"{names[first]}.{rest}" == target:
                    yield node.lineno, written
            case ast.Constant(value=str(text)) if text == target:
                yield node.lineno, repr(text)


def _imported(tree: ast.Module, module: str) -> dict[str, str]:
    """What each imported name stands for; `import a.b` makes `a` known."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, module)
            for alias in node.names:
                names[alias.asname or alias.name] = f"{origin}.{alias.name}"
    return names


def _origin(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".")[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def _names(full: str, target: str) -> bool:
    """Whether importing `full` imports the target, or something in it."""
    return full == target or full.startswith(f"{target}.")


def _module_of(path: Path, base: Path) -> str:
    return ".".join(path.relative_to(base).with_suffix("").parts)
