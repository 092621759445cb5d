"""The switch itself: which path serves a user, and the call of that path.

A path is chosen once for a run, in the transaction that claims it, and pinned there; `use` only obeys the
pin. So a stage that moves in the middle of a run disturbs nothing, and holds from the next claim on in
every process.
"""

import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal, NamedTuple

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.utils.module_loading import import_string
from waffle import get_waffle_flag_model

from apps.rollout.audit import DeniedUser
from apps.rollout.models import AbstractSeamFlag
from apps.rollout.reach import reach_legacy
from apps.rollout.seams import Scope, Seam, UnknownSeam
from apps.rollout.shims import behind_shim
from apps.rollout.stages import Placement, Stage, Standing, bucket_of, path_for
from apps.vocabulary import Identity, PinnedPath, UserId

__all__ = ["FactoryAdapter", "Scope", "Seam"]

Path = Literal["legacy", "factory"]
ReadPaths = Callable[[Identity], Awaitable[Mapping[str, PinnedPath]]]
Reach = Callable[[Seam], Awaitable[None]]


class _Row(NamedTuple):
    """What a choice reads of a flag: columns that every database gives as Python has them, without conversion."""

    name: str
    stage: str
    share_buckets: int
    version: int
    salt: str


class FactoryAdapter:
    """Serves each seam by its old or its new path, and counts which.

    `bind` replaces a seam's dotted factory by a callable that the composition root has made, by seam name.
    Dotted paths are imported here, once: a path that is missing fails at start-up, not in a user's run.
    `read_paths` is how the stage is read outside of a claim, and `reach` the gate before legacy: by default
    `choose_paths` and `reach_legacy` in Django's own thread for the ORM.
    """

    def __init__(
        self,
        seams: Iterable[Seam],
        bind: Mapping[str, Callable[..., Any]] | None = None,
        read_paths: ReadPaths | None = None,
        reach: Reach | None = None,
    ) -> None:
        self._seams = {seam.name: seam for seam in _by_requirement(tuple(seams))}
        unknown = (bind or {}).keys() - self._seams.keys()
        if unknown:
            raise UnknownSeam(f"bind names {', '.join(sorted(unknown))}, which no seam is called")
        self._targets: dict[tuple[str, Path], Callable[..., Any]] = {}
        for seam in self._seams.values():
            self._targets[seam.name, "legacy"] = resolve(seam.legacy)
            self._targets[seam.name, "factory"] = (bind or {}).get(seam.name) or resolve(seam.factory)
        self._read_paths: ReadPaths = read_paths or sync_to_async(self.choose_paths)
        self._reach: Reach = reach or sync_to_async(reach_legacy)
        self._calls: Counter[tuple[str, Path]] = Counter()
        self._open: Counter[tuple[str, Path]] = Counter()
        self._statements: dict[tuple[type[AbstractSeamFlag], str], tuple[str, str]] = {}

    def __repr__(self) -> str:
        counts = ", ".join(f"{seam}.{path}={calls}" for (seam, path), calls in sorted(self._calls.items()))
        return f"<FactoryAdapter seams={len(self._seams)} open={self._open.total()} calls: {counts or 'none'}>"

    def calls(self, seam: Seam, path: Path) -> int:
        """How often this path was taken in this process."""
        return self._calls[seam.name, path]

    def open(self, seam: Seam, path: Path) -> int:
        """How many uses of this path are open in this process."""
        return self._open[seam.name, path]

    def choose_paths(self, identity: Identity) -> dict[str, PinnedPath]:
        """The path of every seam for this user, with the version of the stage that says so.

        Synchronous, two queries, three while a seam is at ramp, in the caller's transaction: call it in the one
        that claims the run. The rows themselves are read, never a cache. A seam without a row is at its declared
        default, version 0.
        """
        if not self._seams:
            return {}
        model: type[AbstractSeamFlag] = get_waffle_flag_model()
        alias = router.db_for_write(model)
        flags, denied = self._read_rows(model, alias, identity.user_id)
        # Whom a flag names counts at ramp alone; to put that query together costs more than the rest, so not before.
        ramps = [name for name, row in flags.items() if row.stage == Stage.RAMP]
        chosen_by: set[str] = set()
        if ramps:
            named = model.objects.using(alias).with_chosen(identity.user_id).filter(name__in=ramps, chosen=True)
            chosen_by = set(named.values_list("name", flat=True))
        chosen: dict[str, PinnedPath] = {}
        for name, seam in self._seams.items():
            row = flags.get(name)
            placement = Placement(Stage(row.stage), row.share_buckets) if row and row.stage else seam.default
            standing = Standing(
                bucket=bucket_of(name, row.salt, identity.user_id) if row else None,
                denied=name in denied,
                chosen=name in chosen_by,
            )
            path = path_for(placement, standing)
            if any(chosen[required].path == "legacy" for required in seam.requires):
                path = "factory" if placement.stage is Stage.RETIRED else "legacy"
            chosen[name] = PinnedPath(path, row.version if row else 0)
        return chosen

    def _read_rows(
        self, model: type[AbstractSeamFlag], alias: str, user_id: UserId
    ) -> tuple[dict[str, "_Row"], set[str]]:
        """The rows of the seams by name, and the seams that deny this user."""
        names = tuple(self._seams)
        if (model, alias) not in self._statements:
            # Django takes ten times as long to put these together as the database to answer them, and they are the
            # same for every run: only the text is kept, never an answer. Two threads that both make it make the same.
            rows = model.objects.using(alias).order_by().filter(name__in=names).values_list(*_Row._fields)
            seams = DeniedUser.objects.using(alias).filter(seam__in=names).filter(user_id=user_id).values_list("seam")
            self._statements[model, alias] = (
                rows.query.get_compiler(alias).as_sql()[0],
                seams.query.get_compiler(alias).as_sql()[0],
            )
        of_rows, of_denied = self._statements[model, alias]
        with connections[alias].cursor() as cursor:
            cursor.execute(of_rows, names)
            flags = {row.name: row for row in map(_Row._make, cursor.fetchall())}
            cursor.execute(of_denied, (*names, user_id))
            return flags, {seam for (seam,) in cursor.fetchall()}

    def use(
        self, seam: Seam, identity: Identity, pinned: PinnedPath | None, *args: Any
    ) -> AbstractAsyncContextManager[Any]:
        """Call the pinned path with `args`, and give what it made for the length of the block.

        What the path returns may be an async context manager (it is entered, and closed at the end), an
        awaitable or a plain object. Without a pin the stage is read now. What the path raises is not
        caught. Raises LegacyRetired where legacy is pinned and the seam is retired by now.
        """
        if seam.name not in self._seams:
            raise UnknownSeam(f"this adapter does not know the seam {seam.name!r}")
        return self._use(seam, identity, pinned, args)

    @asynccontextmanager
    async def _use(
        self, seam: Seam, identity: Identity, pinned: PinnedPath | None, args: tuple[Any, ...]
    ) -> AsyncIterator[Any]:
        chosen = pinned or (await self._read_paths(identity))[seam.name]
        key = (seam.name, chosen.path)
        if chosen.path == "legacy":
            await self._reach(seam)
        self._calls[key] += 1
        self._open[key] += 1
        try:
            made = self._targets[key](*args)
            if inspect.isawaitable(made):
                made = await made
            if isinstance(made, AbstractAsyncContextManager):
                async with made as entered:
                    yield entered
            else:
                yield made
        finally:
            self._open[key] -= 1


def resolve(path: str) -> Callable[..., Any]:
    """The callable at a dotted path: a function of a module, or a method of a class; behind its shim, if it has
    one. Raises ImproperlyConfigured.
    """
    owner, _, attribute = path.rpartition(".")
    try:
        found = import_string(path)
    except ImportError as error:
        try:
            found = getattr(import_string(owner), attribute)
        except (ImportError, AttributeError):
            raise ImproperlyConfigured(f"{path} cannot be imported: {error}") from error
    if not callable(found):
        raise ImproperlyConfigured(f"{path} is a {type(found).__name__}; a path is something to call")
    return behind_shim(found)  # type: ignore[no-any-return]


def _by_requirement(seams: tuple[Seam, ...]) -> list[Seam]:
    """The seams, each after those it requires. Raises ImproperlyConfigured on an unknown or circular
    requirement.
    """
    ordered: list[Seam] = []
    waiting = list(seams)
    while waiting:
        placed = {seam.name for seam in ordered}
        ready = [seam for seam in waiting if placed.issuperset(seam.requires)]
        if not ready:
            names = ", ".join(f"{seam.name} requires {', '.join(seam.requires)}" for seam in waiting)
            raise ImproperlyConfigured(f"requirements that cannot be met, unknown or circular: {names}")
        ordered += ready
        waiting = [seam for seam in waiting if seam not in ready]
    return ordered
