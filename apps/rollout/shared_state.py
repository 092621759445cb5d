"""Shared state in one syntax tree: the eyes of the search for singletons. Pure.

A name of the module is followed into the functions below it, so that a container that is filled there is told
from a table that is only read, and a local variable of the same name from the module's.
"""

import ast
import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator

from apps.rollout.scopes import Scope, bindings, called, dotted, scopes_of

type Found = tuple["Shared", int, str, str]

CONTAINERS = frozenset(
    {"dict", "list", "set", "deque", "defaultdict", "Counter", "OrderedDict", "bytearray", "ChainMap"}
    | {"WeakSet", "WeakValueDictionary", "WeakKeyDictionary", "Queue", "LifoQueue", "SimpleQueue", "PriorityQueue"}
)
CONTEXTS = frozenset({"ContextVar", "local", "Local"})
CACHES = frozenset({"cache", "lru_cache", "memoize", "cached"})
CHANGING = frozenset(
    {"append", "add", "update", "pop", "popitem", "clear", "setdefault", "extend", "remove", "discard", "insert"}
    | {"appendleft", "popleft", "put", "put_nowait", "sort", "reverse"}
)
# Made at import and never changed, or made to be declared there: no user's data lives in them.
HARMLESS = frozenset(
    {"getLogger", "get_logger", "compile", "TypeVar", "ParamSpec", "NewType", "namedtuple", "NamedTuple", "Enum"}
    | {"frozenset", "tuple", "MappingProxyType", "Path", "PurePath", "Decimal", "Fraction", "object", "TypedDict"}
    | {"str", "int", "float", "bool", "bytes", "len", "min", "max", "sum", "sorted", "range", "getattr", "timedelta"}
    | {"date", "datetime", "Struct", "attrgetter", "itemgetter", "partial", "gettext_lazy", "_", "gettext", "environ"}
    | {"get", "join", "format", "dirname", "abspath", "import_module", "find_spec", "version", "Signal", "Library"}
    | {"TypeAliasType", "TypeVarTuple", "Literal", "Union", "Optional", "cast", "id", "isinstance", "callable", "type"}
)
# Functions that make what lives on: `engine = create_engine(...)`, `client = redis.from_url(...)`.
MAKERS = frozenset({"create", "make", "build", "connect", "open", "new", "from_url", "session", "client", "start"})
INSTANCE_NAMES = frozenset({"_instance", "__instance", "instance", "_singleton", "_shared", "_shared_state", "_inst"})
GETTERS = frozenset({"get_instance", "getInstance", "instance", "shared", "get_singleton", "default_instance"})
DECLARED = frozenset({"__all__", "__slots__", "__match_args__", "urlpatterns", "app_name"})
COPIED_DEFAULTS = frozenset({"BaseModel", "BaseSettings", "Schema", "ModelSchema", "TypedDict", "NamedTuple", "Struct"})


class Shared(enum.StrEnum):
    """The kinds of shared state."""

    SINGLETON = "singleton"
    GLOBAL_REBOUND = "global-rebound"
    MODULE_CHANGED = "module-state-changed"
    CLASS_CHANGED = "class-state-changed"
    DEFAULT_CHANGED = "mutable-default-changed"
    CACHED_METHOD = "cached-method"
    CACHED_FUNCTION = "cached-function"
    MODULE_INSTANCE = "module-instance"
    MODULE_EMPTY = "module-container-empty"
    CONTEXT = "context-variable"
    CONSTANT_INSTANCE = "module-constant-instance"
    CLASS_CONTAINER = "class-container"
    MODULE_CONTAINER = "module-container"
    DEFAULT = "mutable-default"


class StateFinder:
    """Finds what one module shares; made for one tree and used once."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._scopes = tuple(scopes_of(tree))
        self._module = {name: value for statement in _top(tree.body) for name, value in bindings(statement)}
        self._changed: dict[str, int] = {}  # names of the module that a function changes, with the first line
        self._rebound: dict[str, int] = {}
        self._returned: dict[str, str] = {}  # names of the module that a function hands out, with the function
        for scope in self._scopes:
            self._look_into(scope)

    def found(self) -> Iterator[Found]:
        """Everything, in no order."""
        yield from self._of_module()
        methods: defaultdict[int, list[Scope]] = defaultdict(list)
        for scope in self._scopes:
            yield from _of_function(scope)
            if scope.owner is not None:
                methods[id(scope.owner)].append(scope)
        for node in ast.walk(self._tree):
            if isinstance(node, ast.ClassDef):
                yield from _of_class(node, methods[id(node)])

    def _look_into(self, scope: Scope) -> None:
        declared = scope.declared_global()
        hidden = scope.local_names()
        for node in scope.nodes:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del) and node.id in declared:
                self._rebound.setdefault(node.id, node.lineno)
            name, line = _changed_by(node)
            if name in self._module and name not in hidden:
                self._changed.setdefault(name, line)
            if isinstance(node, ast.Return | ast.Yield) and (name := _root_name(node.value)) and name not in hidden:
                self._returned.setdefault(name, scope.function.name)

    def _of_module(self) -> Iterator[Found]:
        for name, line in self._rebound.items():
            yield Shared.GLOBAL_REBOUND, line, name, f"set by a function{self._handed_out(name)}"
        seen: set[str] = set()
        for statement in _top(self._tree.body):
            for name, value in bindings(statement):
                if name in seen or name in self._rebound or name in DECLARED:
                    continue
                seen.add(name)
                if kind := self._kind_of(name, value):
                    yield kind, statement.lineno, name, self._detail(name)

    def _kind_of(self, name: str, value: ast.expr) -> Shared | None:
        if called(value) in CONTEXTS:
            return Shared.CONTEXT
        if is_container(value):
            if name in self._changed:
                return Shared.MODULE_CHANGED
            if is_empty(value):
                return Shared.MODULE_EMPTY
            return None if name.isupper() or name.startswith("__") else Shared.MODULE_CONTAINER
        return self._kind_of_instance(name) if isinstance(value, ast.Call) and _makes_an_instance(value) else None

    def _kind_of_instance(self, name: str) -> Shared:
        if name.isupper():
            return Shared.CONSTANT_INSTANCE
        handed_out = name in self._returned or name in INSTANCE_NAMES
        return Shared.SINGLETON if handed_out else Shared.MODULE_INSTANCE

    def _detail(self, name: str) -> str:
        if name in self._changed:
            return f"changed in line {self._changed[name]}{self._handed_out(name)}"
        return self._handed_out(name).removeprefix(", ")

    def _handed_out(self, name: str) -> str:
        return f", handed out by {self._returned[name]}()" if name in self._returned else ""


def is_container(value: ast.expr) -> bool:
    """Whether the expression makes something that can be filled."""
    displays = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
    return isinstance(value, displays) or (isinstance(value, ast.Call) and called(value) in CONTAINERS)


def is_empty(value: ast.expr) -> bool:
    """Whether the container that the expression makes has nothing in it."""
    match value:
        case ast.List(elts=elements) | ast.Set(elts=elements):
            return not elements
        case ast.Dict(keys=keys):
            return not keys
        case ast.Call(args=arguments):
            filled = [each for each in arguments if not (is_container(each) and is_empty(each))]
            return not filled or called(value) == "defaultdict"
    return False


def _of_function(scope: Scope) -> Iterator[Found]:
    arguments, line = scope.function.args, scope.function.lineno
    if scope.decorators & CACHES:
        names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        if scope.owner and "staticmethod" not in scope.decorators:
            yield Shared.CACHED_METHOD, line, scope.name, ""
        elif not names and not arguments.vararg and not arguments.kwarg:
            yield Shared.SINGLETON, line, scope.name, "made once by a cache without arguments"
        else:
            yield Shared.CACHED_FUNCTION, line, scope.name, f"by {', '.join(names) or 'any arguments'}"
    for name, default in _defaults(arguments):
        if is_container(default):
            changes = any(_changed_by(node)[0] == name for node in scope.nodes)
            kind = Shared.DEFAULT_CHANGED if changes else Shared.DEFAULT
            yield kind, default.lineno, f"{scope.name}({name})", ""


def _defaults(arguments: ast.arguments) -> Iterator[tuple[str, ast.expr]]:
    positional = [*arguments.posonlyargs, *arguments.args]
    for argument, default in zip(reversed(positional), reversed(arguments.defaults), strict=False):
        yield argument.arg, default
    for argument, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if value is not None:
            yield argument.arg, value


def _of_class(node: ast.ClassDef, methods: list[Scope]) -> Iterator[Found]:
    own = {name for each in methods if each.function.name == "__init__" for name in _set_on(each, {"self"})}
    on_class = {"cls", node.name, "type()", "self.__class__"}
    changed = {name for each in methods for name in _changed_on(each, {"self", *on_class})} - own
    rebound = {name for each in methods for name in _set_on(each, on_class)}
    for statement in node.body:
        for name, value in bindings(statement):
            if kind := _kind_of_attribute(node, name, value, changed, rebound, own):
                yield kind, statement.lineno, f"{node.name}.{name}", ""
    for each in methods:
        if each.function.name in GETTERS and each.decorators & {"classmethod", "staticmethod"}:
            yield Shared.SINGLETON, each.function.lineno, each.name, "hands out the one instance"
        if each.function.name == "__new__" and _set_on(each, on_class):
            yield Shared.SINGLETON, each.function.lineno, each.name, "keeps the instance on the class"


def _kind_of_attribute(
    node: ast.ClassDef, name: str, value: ast.expr, changed: set[str], rebound: set[str], own: set[str]
) -> Shared | None:
    if name in INSTANCE_NAMES and (name in rebound or _is_none(value) or is_container(value)):
        return Shared.SINGLETON
    copied = bool({called(base) for base in node.bases} & COPIED_DEFAULTS)
    if not is_container(value) or name in DECLARED or name in own or copied:
        return None
    if name in changed:
        return Shared.CLASS_CHANGED
    constant = name.isupper() or node.name == "Meta" or not is_empty(value)
    return None if constant else Shared.CLASS_CONTAINER


def _top(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those below `if` and `try` too."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            parts = [statement.body, getattr(statement, "orelse", []), getattr(statement, "finalbody", [])]
            parts += [handler.body for handler in getattr(statement, "handlers", [])]
            for part in parts:
                yield from _top(part)


def _makes_an_instance(value: ast.Call) -> bool:
    name = called(value)
    if name in HARMLESS or not name:
        return False
    if name in MAKERS or name.partition("_")[0] in MAKERS:
        return True
    return name.lstrip("_")[:1].isupper()  # a class, by the convention that nearly everybody keeps


def _root_name(value: ast.expr | None) -> str:
    """`a` for `a`, `a.b` and `a.b(...)`: whose object is given away. Not for `a(...)`: what it makes is new."""
    while isinstance(value, ast.Attribute | ast.Call):
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            return ""
        value = value.func if isinstance(value, ast.Call) else value.value
    return value.id if isinstance(value, ast.Name) else ""


def _changed_by(node: ast.AST) -> tuple[str, int]:
    """The variable whose content this node changes, with the line; empty for none."""
    match node:
        case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del(), lineno=line):
            return name, line
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=verb), lineno=line) if verb in CHANGING:
            return name, line
    return "", 0


def _set_on(scope: Scope, owners: set[str]) -> set[str]:
    """Attributes of these owners that the function gives a value."""
    return {
        node.attr
        for node in scope.nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and dotted(node.value) in owners
    }


def _changed_on(scope: Scope, owners: set[str]) -> Iterator[str]:
    """Attributes of these owners whose content the function changes."""
    for node in scope.nodes:
        match node:
            case ast.Subscript(value=ast.Attribute(value=owner, attr=name), ctx=ast.Store() | ast.Del()):
                if dotted(owner) in owners:
                    yield name
            case ast.Call(func=ast.Attribute(value=ast.Attribute(value=owner, attr=name), attr=verb)):
                if verb in CHANGING and dotted(owner) in owners:
                    yield name


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None
