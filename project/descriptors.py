"""How many sockets a process can really hold: each takes a file descriptor, whatever the list of bounds allows.

When descriptors run out nothing works any more: no page, no health check, no database connection, and a tab hears
nothing of why. So a process raises its own limit as far as it may, and where that is not enough takes fewer sockets:
those that come then are told 4013, and when to come back. And since a flood of TCP connections takes descriptors before
it says a word, none is left open that would take one of the last.
"""

import logging
import resource
from dataclasses import replace

from project.configuration import Configuration

logger = logging.getLogger(__name__)

_FOR_SOCKETS = 5, 8  # the others are for pages, handshakes, the database, the log, and sockets that close
_NOT_FOR_CLIENTS = 8  # one of so many, the last ones, is for the database and the log alone


def within_descriptors(bounds: Configuration) -> Configuration:
    """The same bounds, with as many sockets at most as this process has descriptors for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    part, whole = _FOR_SOCKETS
    wanted = bounds.connections * whole // part + 1
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == unlimited or soft >= wanted:
        return bounds
    room = max(1, soft * part // whole)
    logger.warning(
        "TURNOUT_CONNECTIONS is %d, but this process may open %d files: it takes %d sockets (see ulimit -n)",
        bounds.connections,
        soft,
        room,
    )
    return replace(
        bounds,
        connections=room,
        connections_per_address=min(bounds.connections_per_address, room),
        connections_per_user=min(bounds.connections_per_user, room),
    )


def is_for_clients(descriptor: int) -> bool:
    """Whether a client's TCP connection may keep this descriptor.

    The system gives the lowest number that is free, so the number of a new one says how many are taken.
    """
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft == resource.RLIM_INFINITY or descriptor < soft - soft // _NOT_FOR_CLIENTS
