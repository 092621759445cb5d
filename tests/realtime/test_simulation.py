"""Log, cursor and tabs through seeded schedules of every fault at once; each failure replays from its seed."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from apps.realtime.cursor import DeliveryCursor
from tests.realtime.simulation import PromiseBroken, Simulation

ROOT = Path(__file__).resolve().parents[2]
FAULTS = {
    "drop",
    "restart",
    "trim",
    "restore",
    "hint lost",
    "hint twice",
    "doubled page",
    "trimmed under a reader",
    "reset epoch_changed",
    "reset trimmed",
    "reset ahead",
    "reset forked",
    "epoch changed under a tab",
}


def test_whatever_happens_a_tab_ends_with_exactly_the_history_of_the_log(time_budget):
    budget = time_budget("simulation")
    first = seed = budget.seed * 1_000_000
    started = time.monotonic()
    bit: Counter[str] = Counter()
    while seed == first or time.monotonic() - started < budget.seconds:
        bit += Simulation(seed).run()
        seed += 1
    rate = (seed - first) / (time.monotonic() - started)
    print(f"{seed - first} schedules from seed {first}, {rate * 60:,.0f} in 60 s; {dict(bit)}")
    assert set(bit) >= FAULTS, "each fault must have had an effect"


def survives_every_hint(self, head):
    self.head = max(self.head, head)
    return []


def sends_what_does_not_continue(self, page):
    self.head = max(self.head, page.position.seq)
    return [self._send(page)]


def forgets_a_refused_page(self, page):
    if page is not None and not self._fits(page):
        self.sent = page.position.seq
        return self._advance()
    return original_read_page(self, page)


original_read_page = DeliveryCursor.read_page


@pytest.mark.parametrize(
    ("method", "defect"),
    [
        ("hinted", survives_every_hint),
        ("committed", sends_what_does_not_continue),
        ("read_page", forgets_a_refused_page),
    ],
)
def test_the_simulation_finds_a_cursor_that_is_wrong_and_names_the_seed(monkeypatch, method, defect):
    monkeypatch.setattr(DeliveryCursor, method, defect)
    with pytest.raises(PromiseBroken, match=r"^seed \d+: "):
        search(300)


def search(seeds):
    for seed in range(seeds):
        Simulation(seed).run()


def test_a_schedule_is_its_seed():
    one, two = Simulation(7), Simulation(7)
    assert (one.run(), one.steps, one.log.tag) == (two.run(), two.steps, two.log.tag)


def test_seeds_are_run_in_ranges_by_several_processes_and_the_rate_is_told():
    done = subprocess.run(
        [sys.executable, "-m", "tests.realtime.simulate", "--from", "5", "--count", "40", "--processes", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "40 of 40 schedules" in done.stdout
    assert "go on with --from 45" in done.stdout
