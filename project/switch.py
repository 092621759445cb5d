"""Old and new side by side: which path serves a run, what the guards learn of it, and what they may stop.

The composition root gives the rest of Turnout the methods of one `Switch`, and nothing else of the rollout
room. Once every seam is retired, `project/direct.py`, which has the same methods without any seam, takes the
place of this file.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from django.urls import URLPattern

from apps.agents.registry import AgentClassRegistry
from apps.agents.tools import Toolbox
from apps.chat.authentication import Principal
from apps.chat.handshake import Credentials
from apps.execution.context import UserExecutionContext
from apps.execution.engine import Engine
from apps.execution.factory import ExecutionEngineFactory
from apps.execution.observing import EndsObserved, RunEnd
from apps.realtime.bridge import RunBridge, WebSocketBridgeFactory
from apps.realtime.commit import Participant
from apps.realtime.database import DatabaseThreads
from apps.realtime.periodic import Periodic
from apps.realtime.values import RunLease
from apps.rollout.adapter import FactoryAdapter, Path
from apps.rollout.reach import reach_legacy
from apps.rollout.shadow import Shadow
from apps.rollout.watch import Watch
from apps.vocabulary import Identity, PinnedPath, PinnedPaths, UserId
from project import leak_live
from project.configuration import Configuration
from project.seams import BRIDGE_SEAM, ENGINE_SEAM, SEAMS
from project.shadowing import comparing_bridge, engine_replay, recording_engine, shadow_limits
from project.version import VERSION
from project.watching import count_starts, forget_old_ends, guard_limits, observe_ends

CLOSED = "new runs are refused until an operator has looked into a finding of the server's own; ask again later"
_OLD_ENDS_S = 600.0  # between two looks for observations beyond the newest of each seam


def switch_urls() -> list[URLPattern]:
    """Pages that stand before those of the admin."""
    return leak_live.urls()


class Switch:
    """See the module. Everything but the two `open_` methods is synchronous and belongs into a transaction."""

    def __init__(
        self,
        configuration: Configuration,
        database: DatabaseThreads,
        engines: ExecutionEngineFactory,
        bridges: WebSocketBridgeFactory,
        agents: AgentClassRegistry,
        toolbox: Toolbox,
    ) -> None:
        self._configuration = configuration
        self._database = database
        self._watch = Watch(guard_limits(configuration), VERSION, count_starts)
        self._adapter = FactoryAdapter(
            SEAMS,
            bind={ENGINE_SEAM.name: engines.open_engine, BRIDGE_SEAM.name: bridges.open_run_bridge},
            read_paths=lambda identity: database.call(self.choose_paths, identity),
            reach=lambda seam: database.call(reach_legacy, seam),
        )
        replay = engine_replay(ENGINE_SEAM, agents, toolbox, configuration)
        self._shadow = Shadow({ENGINE_SEAM.name: replay}, shadow_limits(configuration), self._is_busy, random.random)
        self._open_engine = recording_engine(
            ENGINE_SEAM, self._adapter, self._shadow, database, configuration.recording_bytes
        )
        self._open_bridge = comparing_bridge(BRIDGE_SEAM, self._adapter, self._shadow)

    def __repr__(self) -> str:
        return f"<Switch {self._adapter!r}>"

    def choose_paths(self, identity: Identity) -> dict[str, PinnedPath]:
        """The path of every seam for this user, to be pinned in the transaction that claims the run."""
        return self._adapter.choose_paths(identity)

    def open_engine(self, context: UserExecutionContext, paths: PinnedPaths) -> AbstractAsyncContextManager[Engine]:
        """The engine of a run, on the path that was pinned; legacy's is recorded while its seam is compared."""
        return self._open_engine(context, paths)

    def open_bridge(
        self, lease: RunLease, identity: Identity, paths: PinnedPaths
    ) -> AbstractAsyncContextManager[RunBridge]:
        """The bridge of a run, on the path that was pinned; legacy's is compared with the factory's."""
        return self._open_bridge(lease, identity, paths)

    def may_receive_leaks(self, users: frozenset[UserId]) -> frozenset[UserId]:
        """The old bridge may write to users who are on the old path themselves, and to nobody else."""
        return frozenset(
            user_id for user_id in users if self.choose_paths(Identity(user_id, ""))[BRIDGE_SEAM.name].path == "legacy"
        )

    def observed(self, participant: Participant) -> Participant:
        """The participant, after which the guards are told of what has ended."""
        return EndsObserved(participant, self._observe)

    def why_closed(self) -> str:
        """Why no new work may begin, for those who are refused; empty, and it may."""
        return CLOSED if self._watch.refusals([seam.name for seam in SEAMS]) else ""

    def jobs(self) -> tuple[AbstractAsyncContextManager[Any], ...]:
        """What is done beside the runs while the process is open."""
        forget = partial(self._database.call, forget_old_ends, self._configuration.observed_ends)
        return (self._shadow, Periodic("observed ends", _OLD_ENDS_S, forget))

    def sockets(self) -> Mapping[str, Callable[[Credentials], Principal | None]]:
        """Further sockets by address, with how credentials become a principal there."""
        return leak_live.sockets()

    def census(self) -> Mapping[str, int]:
        """Counts for the process report: of replays, and of each seam by path."""
        paths: tuple[Path, ...] = ("factory", "legacy")
        uses = {
            name: number
            for seam in SEAMS
            for path in paths
            for name, number in (
                (f"uses_{seam.name}.{path}", self._adapter.open(seam, path)),
                (f"calls_{seam.name}.{path}_total", self._adapter.calls(seam, path)),
            )
        }
        return {**self._shadow.census(), **uses}

    def _is_busy(self) -> bool:
        """Whether users need the process for themselves: then nothing is replayed."""
        runs = self._adapter.open(ENGINE_SEAM, "legacy") + self._adapter.open(ENGINE_SEAM, "factory")
        return 2 * runs > self._configuration.run_slots or self._database.waiting > self._database.threads

    def _observe(self, ends: Sequence[RunEnd]) -> None:
        observe_ends(self._watch, ends)
