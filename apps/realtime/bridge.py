"""Who receives a run's events, and the opening of a user's connections."""

from typing import Protocol

from apps.realtime.values import RunLease
from apps.vocabulary import UserId


class RunBridge(Protocol):
    """Names the users whose streams an event of one run is written to."""

    def recipients(self, event_type: str) -> frozenset[UserId]:
        """The users who receive an event of this type, asked once for each event."""
        ...


class OwnerBridge:
    """The factory's answer: the owner of the run, and nobody else, whatever happens around it."""

    def __init__(self, lease: RunLease) -> None:
        self._owner = frozenset({lease.user_id})

    def recipients(self, event_type: str) -> frozenset[UserId]:  # noqa: ARG002 - the answer never depends on it
        """The run's owner."""
        return self._owner
