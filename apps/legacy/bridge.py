"""The old WebSocket bridge: one object that sends every run's events to whoever connected a run last. Flaws
kept.

Like the engine beside it, this is the positive control of the isolation tests and is deleted whole at the
end. What is wrong with it:

- the bridge itself is a module's global; - it knows one `current_thread` for the process, the one that was
bound last. A run that is still streaming when another user starts one sends the rest of its answer to that
user, and its own user sees nothing more of it; - `thread_registry` is one table from threads to users,
without a bound; ids of threads are taken on trust, so that who binds a thread last owns it; - nothing is
unbound when a run ends.

It no longer holds sockets: it names the users whose streams an event is written to. The terminal event of a
run goes to its owner on every path, so that no run is left open in anyone's tab.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from apps.realtime.values import RunLease
from apps.vocabulary import ThreadId, UserId


class AgentWebSocketBridge:
    """Everybody's bridge. See the top of this file before you use it for anything."""

    def __init__(self) -> None:
        self.thread_registry: dict[ThreadId, UserId] = {}
        self.current_thread: ThreadId | None = None

    def __repr__(self) -> str:
        return f"<AgentWebSocketBridge threads={len(self.thread_registry)}>"

    def bind(self, lease: RunLease) -> None:
        """Make the thread of this run the current one, for every run of the process."""
        self.thread_registry[lease.thread_id] = lease.user_id
        self.current_thread = lease.thread_id

    def recipients(self, event_type: str) -> frozenset[UserId]:  # noqa: ARG002 - it never looked at the event
        """The user of the thread that was bound last, whosever event this is."""
        return frozenset({self.thread_registry[self.current_thread]} if self.current_thread else ())


_bridge = AgentWebSocketBridge()  # the flaw itself: one for the process, reachable from everywhere


@asynccontextmanager
async def get_agent_websocket_bridge(lease: RunLease) -> AsyncIterator[AgentWebSocketBridge]:
    """The process's bridge, bound to this run until the next one is bound."""
    _bridge.bind(lease)
    yield _bridge
