"""How many sockets a process can really hold: each takes a file descriptor, whatever the list of bounds allows.

When descriptors run out nothing works any more: no page, no health check, no database connection, and a tab hears
nothing of why. So a process raises its own limit as far as it may, and where that is not enough takes fewer sockets:
those that come then are told 4013, and when to come back.
"""

import logging
import resource
from dataclasses import replace

from project.configuration import Configuration

logger = logging.getLogger(__name__)

_FOR_OTHERS = 4  # one of so many descriptors is for pages, handshakes, the database, the log, and sockets that close


def within_descriptors(bounds: Configuration) -> Configuration:
    """The same bounds, with as many sockets at most as this process has descriptors for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = bounds.connections * _FOR_OTHERS // (_FOR_OTHERS - 1) + 1
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == unlimited or soft >= wanted:
        return bounds
    room = max(1, soft - soft // _FOR_OTHERS)
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
