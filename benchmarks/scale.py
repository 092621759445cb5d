"""`python -m benchmarks.scale`: how many users a cell serves, and how many cells a number of connections takes.

A cell is two web processes with a database and a Redis of their own. Nothing is measured here: the costs of an event
and of a socket come from docs/explanation/speed.md or, with `--figures FILE`, from what `python -m benchmarks` wrote
with `--json FILE` on your machine. An hour of users is drawn from a seed, so that the answer is for the peak.
"""

import argparse
import json
import math
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

SEED = 20_260
DRAWN_USERS = 2_000
DRAWN_S = 3_600


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one web process on one core."""

    cpu_ms_per_1000_events: float = 243.0  # speed.md: factory, 300 users
    socket_kib: float = 31.7  # speed.md: idle, subscribed


@dataclass(frozen=True, slots=True)
class Habit:
    """What a connected user does. These are assumptions; put in your own."""

    pause_s: float = 120.0  # on average between the end of an answer and the next question
    answer_events: int = 400
    events_per_s: float = 50.0


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in one cell, and how much of it may be used."""

    web_processes: int = 2
    process_gib: float = 2.0  # for sockets, beside the idle process and what runs hold
    busy: float = 0.6  # share of a core, so that a process can die and its users come to the other


def peak_streaming(habit: Habit, users: int, seconds: int, random: Random) -> tuple[float, float]:
    """Mean and 99.9th percentile of the share of users whose answer streams, over the drawn seconds."""
    answer_s = habit.answer_events / habit.events_per_s
    changes = [0] * (seconds + 1)
    for _ in range(users):
        now = -random.uniform(0, habit.pause_s + answer_s)
        while now < seconds:
            now += random.expovariate(1 / habit.pause_s)
            begin, end = max(0, math.floor(now)), min(seconds, math.ceil(now + answer_s))
            if begin < end:
                changes[begin] += 1
                changes[end] -= 1
            now += answer_s
    ordered = sorted(accumulate(changes[:-1]))
    return sum(ordered) / len(ordered) / users, ordered[int(0.999 * len(ordered))] / users


def users_of_a_cell(costs: Costs, habit: Habit, cell: Cell, share: float) -> tuple[int, int]:
    """By CPU, and by memory; the smaller one holds."""
    events_per_s = cell.web_processes * cell.busy * 1_000 / (costs.cpu_ms_per_1000_events / 1_000)
    by_cpu = math.floor(events_per_s / (share * habit.events_per_s))
    by_memory = math.floor(cell.web_processes * cell.process_gib * 2**20 / costs.socket_kib)
    return by_cpu, by_memory


def read_costs(path: Path) -> Costs:
    """The dearest row of the factory, and the idle socket, of a run of the benchmarks."""
    found = json.loads(path.read_text())
    rows = [row for row in found["figures"] if row["path"] == "factory"]
    return Costs(
        max(row["cpu_ms_per_1000_events"] for row in rows if row["users"] >= 100), found["idle_kib"]["turnout"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__)
    parser.add_argument("--connections", type=int, default=1_000_000)
    parser.add_argument("--pause-s", type=float, default=Habit().pause_s)
    parser.add_argument("--figures", type=Path, help="of python -m benchmarks --json")
    arguments = parser.parse_args()
    costs = read_costs(arguments.figures) if arguments.figures else Costs()
    habit, cell = Habit(pause_s=arguments.pause_s), Cell()
    mean, peak = peak_streaming(habit, DRAWN_USERS, DRAWN_S, Random(SEED))
    by_cpu, by_memory = users_of_a_cell(costs, habit, cell, peak)
    users = min(by_cpu, by_memory)
    print(f"costs: {costs.cpu_ms_per_1000_events:g} ms CPU per 1,000 events, {costs.socket_kib:g} KiB a socket")
    print(f"streaming at once: {mean:.1%} of users on average, {peak:.1%} in all but a thousandth of the seconds")
    print(f"users of a cell: {by_cpu:,} by CPU, {by_memory:,} by memory")
    print(f"cells for {arguments.connections:,} connections: {math.ceil(arguments.connections / users):,}")


if __name__ == "__main__":
    main()
