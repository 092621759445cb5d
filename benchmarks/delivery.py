"""From the publisher to the client, for 10, 100 and 300 users: the factory's path, the singletons', and a bare sender.

All on the same Daphne, one after the other in one run, so that the ratios mean something on any machine; then what
1,000 idle sockets cost in memory. `make bench` prints a table; `--json FILE` writes the figures too, `--quick` takes
a tenth of the time.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from benchmarks.load import Heard, listen_bare, open_sockets, run_and_listen
from tests.serving import ROOT, ServerProcess, migrated_database

INTERVAL_MS = 20  # 50 deltas a second and user
START_SPREAD_S = 2.0  # the runs of all users begin within this time
IDLE_SOCKETS = 1_000
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SLOTS = {
    "TURNOUT_RUN_SLOTS": "400",
    "LOG_LEVEL": "WARNING",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One path under one load. Times in the unit that the name says."""

    path: str
    users: int
    events_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms_per_1000_events: float
    run_s: float
    frames_per_1000_events: float
    foreign_events: int


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def measure_turnout(server: ServerProcess, path: str, tokens: list[str], count: int) -> Figure:
    """Every user runs the metronome once; all run at the same time."""
    threads = await new_threads(server.url, tokens)
    sockets = await open_sockets(server.ws_url, tokens)
    heard = Heard()
    assert server.process is not None
    cpu, started = cpu_seconds(server.process.pid), time.monotonic()
    pause_s = START_SPREAD_S / len(tokens)
    await asyncio.gather(
        *(
            run_and_listen(socket, thread, count, INTERVAL_MS, heard, start_after_s=number * pause_s)
            for number, (socket, thread) in enumerate(zip(sockets, threads, strict=True))
        )
    )
    figure = summarise(path, len(tokens), heard, started, cpu_seconds(server.process.pid) - cpu)
    await asyncio.gather(*(socket.close() for socket in sockets))
    return figure


async def measure_bare(port: int, pid: int, users: int, count: int) -> Figure:
    """As many sockets of the bare sender."""
    cpu, started = cpu_seconds(pid), time.monotonic()
    sockets = await open_sockets(f"ws://127.0.0.1:{port}/?count={count}&interval_ms={INTERVAL_MS}", [""] * users)
    heard = Heard()
    await asyncio.gather(*(listen_bare(socket, count, heard) for socket in sockets))
    figure = summarise("bare", users, heard, started, cpu_seconds(pid) - cpu)
    await asyncio.gather(*(socket.close() for socket in sockets))
    return figure


def summarise(path: str, users: int, heard: Heard, started: float, cpu_s: float) -> Figure:
    """The row of the table."""
    seconds = time.monotonic() - started
    runs = heard.run_seconds or [seconds]
    return Figure(
        path=path,
        users=users,
        events_per_s=round(heard.deltas / seconds),
        p50_ms=round(heard.percentile_ms(0.5), 1),
        p99_ms=round(heard.percentile_ms(0.99), 1),
        cpu_ms_per_1000_events=round(1e6 * cpu_s / max(heard.deltas, 1), 1),
        run_s=round(sum(runs) / len(runs), 2),
        frames_per_1000_events=round(1000 * heard.frames / max(heard.deltas, 1)),
        foreign_events=heard.foreign_deltas,
    )


async def new_threads(url: str, tokens: list[str]) -> list[str]:
    """One new thread for each user."""
    gate = asyncio.Semaphore(8)
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:

        async def one(token: str) -> str:
            async with gate:
                answer = await http.post("/api/threads", json={}, headers={"Authorization": f"Bearer {token}"})
                answer.raise_for_status()
                return str(answer.json()["id"])

        return list(await asyncio.gather(*(one(token) for token in tokens)))


async def idle_memory(url: str, pid: int, tokens: list[str]) -> float:
    """KiB of resident memory that one idle, subscribed socket costs."""
    before = resident_bytes(pid)
    sockets = await open_sockets(url, tokens)
    await asyncio.sleep(2)  # let the server settle: what is measured is a state, not a moment
    cost = (resident_bytes(pid) - before) / len(tokens) / 1024
    await asyncio.gather(*(socket.close() for socket in sockets))
    return cost


@contextmanager
def bare_server(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Daphne with the bare sender."""
    command = [sys.executable, "-m", "daphne", "-v", "0", "-p", str(port), "benchmarks.bare_sender:application"]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        for _ in range(100):
            try:
                httpx.get(f"http://127.0.0.1:{port}/", timeout=1)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait()


def set_stages(server: ServerProcess, stage: str) -> None:
    """Move both seams."""
    for seam in ("execution_engine", "websocket_bridge"):
        moved = server.manage("move_stage", seam, stage, "--reason", "benchmark")
        assert moved.returncode == 0, moved.stderr


def benchmark(loads: list[int], count: int, idle: int, port: int) -> tuple[list[Figure], dict[str, float]]:
    """All figures, each load on each path, one after the other."""
    figures: list[Figure] = []
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = ServerProcess(folder, migrated_database(folder), _SLOTS)
        tokens = list(server.tokens(f"user{n}" for n in range(max(*loads, idle))).values())
        server.start()
        assert server.process is not None
        try:
            memory["turnout"] = asyncio.run(idle_memory(server.ws_url, server.process.pid, tokens[:idle]))
            for path, stage in (("factory", None), ("singletons", "off")):
                if stage:
                    set_stages(server, stage)
                for users in loads:
                    figures.append(asyncio.run(measure_turnout(server, path, tokens[:users], count)))
                    say(figures[-1])
        finally:
            server.stop()
        with bare_server(port) as bare:
            memory["bare"] = asyncio.run(
                idle_memory(f"ws://127.0.0.1:{port}/?count=0&interval_ms=0", bare.pid, [""] * idle)
            )
            for users in loads:
                figures.append(asyncio.run(measure_bare(port, bare.pid, users, count)))
                say(figures[-1])
    return figures, memory


def say(figure: Figure) -> None:
    """One row, as soon as it is known."""
    print(
        f"{figure.path:<11}{figure.users:>6}{figure.events_per_s:>10}{figure.p50_ms:>9}{figure.p99_ms:>10}"
        f"{figure.cpu_ms_per_1000_events:>12}{figure.run_s:>9}{figure.frames_per_1000_events:>10}"
        f"{figure.foreign_events:>10}",
        flush=True,
    )


def main() -> None:
    """Run, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="a tenth of the deltas and sockets")
    parser.add_argument("--port", type=int, default=8809, help="port of the bare sender")
    options = parser.parse_args()
    count, idle = (50, 100) if options.quick else (200, IDLE_SOCKETS)
    print(f"{count} deltas a user, one every {INTERVAL_MS} ms; {platform.python_version()}, {os.cpu_count()} cores")
    print(
        f"{'path':<11}{'users':>6}{'events/s':>10}{'p50 ms':>9}{'p99 ms':>10}{'CPU ms/1000':>12}{'run s':>9}"
        f"{'frm/1000':>10}{'foreign':>10}"
    )
    figures, memory = benchmark([10, 100, 300], count, idle, options.port)
    print(f"memory of an idle socket: {memory['turnout']:.1f} KiB, bare {memory['bare']:.1f} KiB")
    print(ratios(figures, memory))
    if options.json:
        options.json.write_text(json.dumps({"figures": [asdict(row) for row in figures], "idle_kib": memory}, indent=1))


def ratios(figures: list[Figure], memory: dict[str, float]) -> str:
    """What counts: the factory's path divided by the singletons', in the same run."""
    by_place = {(figure.path, figure.users): figure for figure in figures}
    lines = [f"idle socket, Turnout to bare: {memory['turnout'] / memory['bare']:.2f}"]
    for users in sorted({figure.users for figure in figures}):
        new, old = by_place["factory", users], by_place["singletons", users]
        cpu = new.cpu_ms_per_1000_events / old.cpu_ms_per_1000_events
        lines.append(f"{users} users, factory to singletons: CPU {cpu:.2f}, run time {new.run_s / old.run_s:.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
