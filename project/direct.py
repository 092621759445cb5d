"""What `project/switch.py` becomes when the last seam is retired: the factories, and nothing beside them.

Nobody imports this file before. The rehearsal of the end puts it in the other's place, and runs the tests.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from django.urls import URLPattern

from apps.agents.registry import AgentClassRegistry
from apps.agents.tools import Toolbox
from apps.chat.authentication import Principal
from apps.chat.handshake import Credentials
from apps.execution.context import UserExecutionContext
from apps.execution.engine import Engine
from apps.execution.factory import ExecutionEngineFactory
from apps.realtime.bridge import RunBridge, WebSocketBridgeFactory
from apps.realtime.commit import Participant
from apps.realtime.database import DatabaseThreads
from apps.realtime.values import RunLease
from apps.vocabulary import Identity, PinnedPath, PinnedPaths, UserId
from project.configuration import Configuration


def switch_urls() -> list[URLPattern]:
    """None."""
    return []


class Switch:
    """The methods that the composition root gives to the rest; there is one path, and it needs no pin."""

    def __init__(
        self,
        configuration: Configuration,  # noqa: ARG002 - as the other
        database: DatabaseThreads,  # noqa: ARG002 - as the other
        engines: ExecutionEngineFactory,
        bridges: WebSocketBridgeFactory,
        agents: AgentClassRegistry,  # noqa: ARG002 - as the other
        toolbox: Toolbox,  # noqa: ARG002 - as the other
    ) -> None:
        self._engines = engines
        self._bridges = bridges

    def choose_paths(self, identity: Identity) -> Mapping[str, PinnedPath]:  # noqa: ARG002 - as the other
        """Nothing is pinned."""
        return {}

    def open_engine(
        self,
        context: UserExecutionContext,
        paths: PinnedPaths,  # noqa: ARG002 - as the other
    ) -> AbstractAsyncContextManager[Engine]:
        """The engine of a run."""
        return self._engines.open_engine(context)

    def open_bridge(
        self,
        lease: RunLease,
        identity: Identity,  # noqa: ARG002 - as the other
        paths: PinnedPaths,  # noqa: ARG002 - as the other
    ) -> AbstractAsyncContextManager[RunBridge]:
        """The bridge of a run."""
        return self._bridges.open_run_bridge(lease)

    def may_receive_leaks(self, users: frozenset[UserId]) -> frozenset[UserId]:  # noqa: ARG002 - as the other
        """Nobody."""
        return frozenset()

    def observed(self, participant: Participant) -> Participant:
        """The participant itself: nobody compares paths any more."""
        return participant

    def why_closed(self) -> str:
        """Nothing keeps work from beginning."""
        return ""

    def jobs(self) -> tuple[AbstractAsyncContextManager[Any], ...]:
        """None."""
        return ()

    def sockets(self) -> Mapping[str, Callable[[Credentials], Principal | None]]:
        """None."""
        return {}

    def census(self) -> Mapping[str, int]:
        """Nothing is counted."""
        return {}
