"""Names and scopes of a syntax tree, as far as the audits of this room need them. Pure."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

type Function = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def called(node: ast.expr) -> str:
    """The last name of what is called, or of what stands there without a call; empty where there is none."""
    target = node.func if isinstance(node, ast.Call) else node
    if isinstance(target, ast.Subscript):
        target = target.value
    return str(getattr(target, "attr", getattr(target, "id", "")))


def dotted(node: ast.expr) -> str:
    """`a.b.c` for an attribute of an attribute of a name; `type()` for a call of type; else empty."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return "type()" if isinstance(node, ast.Call) and called(node) == "type" else ""


def bindings(statement: ast.stmt) -> list[tuple[str, ast.expr]]:
    """The plain names that a statement gives a value, with that value."""
    if isinstance(statement, ast.Assign):
        return [(target.id, statement.value) for target in statement.targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        return [(statement.target.id, statement.value)]
    return []


@dataclass(frozen=True, slots=True)
class Scope:
    """One function, the class whose body it stands in, and its own nodes: without those of functions and
    classes within it.
    """

    function: Function
    owner: ast.ClassDef | None
    nodes: tuple[ast.AST, ...]

    @property
    def name(self) -> str:
        """The function's name, behind its class's."""
        return f"{self.owner.name}.{self.function.name}" if self.owner else self.function.name

    @property
    def decorators(self) -> set[str]:
        """The last names of its decorators."""
        return {called(decorator) for decorator in self.function.decorator_list}

    def declared_global(self) -> set[str]:
        """The names that it declares to be the module's."""
        return {name for node in self.nodes if isinstance(node, ast.Global) for name in node.names}

    def local_names(self) -> set[str]:
        """The names that belong to the function itself: its arguments, and what it binds."""
        arguments = self.function.args
        every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
        names = {argument.arg for argument in every if argument is not None}
        for node in self.nodes:
            match node:
                case ast.Name(id=name, ctx=ast.Store()):
                    names.add(name)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    names.add(name)
                case ast.ExceptHandler(name=str(name)):
                    names.add(name)
                case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                    names.update((alias.asname or alias.name).partition(".")[0] for alias in aliases)
        return names - self.declared_global()


def scopes_of(node: ast.AST, owner: ast.ClassDef | None = None) -> Iterator[Scope]:
    """Every function below `node`, with what belongs to it alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Scope(child, owner, tuple(_own_nodes(child)))
            yield from scopes_of(child)
        elif isinstance(child, ast.ClassDef):
            yield from scopes_of(child, child)
        elif not isinstance(child, ast.expr):  # a lambda holds no statement, and no other expression a function
            yield from scopes_of(child, owner)


def _own_nodes(function: Function) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _SCOPES):
            waiting.extend(ast.iter_child_nodes(node))
