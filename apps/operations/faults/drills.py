"""The drills: each does one thing to the copy while tabs run agents, and says how often it did so.

A drill only does harm. Whether a promise broke is judged afterwards, from the histories of the tabs and the log.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from apps.operations.faults.disposable import DisposableCopy, Server
from apps.operations.faults.tab import Tab

_FAKETIME: Final = ("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")
_TERM_MARGIN_S = 10.0


class DrillFailed(AssertionError):  # noqa: N818 - says what happened
    """What the server did during the drill breaks a promise by itself, whatever the tabs saw."""


@dataclass(slots=True)
class Scene:
    """What a drill works with. It must end when all tabs are done."""

    copy: DisposableCopy
    tabs: Sequence[Tab]
    chance: Random
    faults: int  # how often, at most
    gap_s: float  # longest time between two
    drain_timeout_s: float
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether there is nobody left to be disturbed."""
        return all(tab.done for tab in self.tabs)

    async def pause(self) -> bool:
        """Let the load begin, and go on for a random time; False when it is over."""
        for tab in self.tabs:
            await tab.begun.wait()
        await asyncio.sleep(self.chance.uniform(0.1, 1.0) * self.gap_s)
        return not self.done

    def some_server(self) -> Server:
        return self.chance.choice(self.copy.servers)


Drill = Callable[[Scene], Coroutine[Any, Any, None]]


async def kill_web(scene: Scene) -> None:
    """A web process is killed, and started again."""
    while scene.figures.get("kills", 0) < scene.faults and await scene.pause():
        server = scene.some_server()
        await server.kill()
        _count(scene, "kills")
        await server.start()


async def dropped_sockets(scene: Scene) -> None:
    """Sockets break, without a close frame, with whatever is under way on them."""
    while scene.figures.get("sockets broken", 0) < scene.faults * len(scene.tabs) and await scene.pause():
        for tab in scene.tabs:
            if scene.chance.random() < 0.5 and tab.cut():  # noqa: PLR2004 - every second one
                _count(scene, "sockets broken")


async def slow_client(scene: Scene) -> None:
    """One tab stops reading until all others are done; what the server holds for it is measured."""
    slow, *others = scene.tabs
    if not await scene.pause():
        return
    before = _memory(scene)
    slow.paused.clear()
    _count(scene, "tabs that do not read")
    most = before
    try:
        while not all(tab.done for tab in others):
            await asyncio.sleep(scene.gap_s / 4)
            most = max(most, _memory(scene))
    finally:
        slow.paused.set()
    scene.figures["MB more at most"] = round((most - before) / 1e6, 1)
    latencies = sorted(latency for tab in others for latency in tab.latencies)
    scene.figures["p99 ms of the others"] = round(1000 * percentile(latencies, 99), 1)


async def sigterm_under_load(scene: Scene) -> None:
    """A web process is told to stop, as a deploy does, and started again."""
    while scene.figures.get("drains", 0) < scene.faults and await scene.pause():
        server = scene.some_server()
        began = time.monotonic()
        code = await server.terminate(scene.drain_timeout_s + _TERM_MARGIN_S)
        took = time.monotonic() - began
        scene.figures["longest drain s"] = round(max(scene.figures.get("longest drain s", 0), took), 2)
        if code != 0:
            raise DrillFailed(f"a server that was told to stop ended with {code}, after {took:.1f} s")
        _count(scene, "drains")
        await server.start()


async def redis_outage(scene: Scene) -> None:
    """Redis is killed, stays away for a while, and comes back empty."""
    redis = scene.copy.redis
    assert redis is not None
    while scene.figures.get("outages", 0) < scene.faults and await scene.pause():
        await redis.kill()
        _count(scene, "outages")
        await scene.pause()
        await redis.start()


async def clock_jump(scene: Scene) -> None:
    """The clock of the servers is two days ahead after one restart, and an hour behind after the next."""
    library = faketime()
    assert library is not None
    for jump in ("+2d", "-1h"):
        if not await scene.pause():
            return
        for server in scene.copy.servers:
            await server.terminate(scene.drain_timeout_s + _TERM_MARGIN_S)
            await server.start({"LD_PRELOAD": library, "FAKETIME": jump, "DONT_FAKE_MONOTONIC": "1"})
        _count(scene, "jumps")


DRILLS: Final[Mapping[str, Drill]] = {
    "kill_web": kill_web,
    "dropped_sockets": dropped_sockets,
    "slow_client": slow_client,
    "sigterm_under_load": sigterm_under_load,
    "redis_outage": redis_outage,
    "clock_jump": clock_jump,
}
# What this command leaves to those who run the machines, and says so.
NOT_DRILLED: Final[Mapping[str, str]] = {
    "database_outage": "it would need to stop your database server: restart it while the drills run",
    "network_partition": "it needs a network namespace of its own, and root: cut the link while the drills run",
    "disk_full": "it needs a file system of its own: name a database on a small one with --database-url",
}


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The value that so many percent of the ordered values do not exceed; 0 of none."""
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] if ordered else 0.0


def missing(name: str, copy: DisposableCopy) -> str | None:
    """Why the drill of this name cannot be done with this copy, on this machine; None when it can."""
    match name:
        case "redis_outage" if copy.redis is None:
            return "neither valkey-server nor redis-server is on the path"
        case "clock_jump" if faketime() is None:
            return "libfaketime is not installed, and no process may set the clock of the machine"
    return None


def faketime() -> str | None:
    """The library that gives a process another clock."""
    return next((path for path in _FAKETIME if Path(path).exists()), None)


def _count(scene: Scene, what: str) -> None:
    scene.figures[what] = scene.figures.get(what, 0) + 1


def _memory(scene: Scene) -> int:
    return sum(server.resident_bytes() or 0 for server in scene.copy.servers)
