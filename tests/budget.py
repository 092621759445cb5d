"""How long a seeded test may search, and with which seed; both are printed, so that what failed can be replayed."""

import secrets
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

TABLE = Path(__file__).parent / "budget.toml"
# `make test` must give the same answer for the same code; `make proof` looks somewhere new each time.
USUAL_SEED = 20_260


@dataclass(frozen=True)
class Budget:
    """Seconds and seed of one test."""

    seconds: float
    seed: int

    def rounds(self) -> Iterator[Random]:
        """One source of chance a round, until the seconds are spent; the first round is always given."""
        deadline = time.monotonic() + self.seconds
        number = 0
        while number == 0 or time.monotonic() < deadline:
            print(f"seed {self.seed}, round {number}")
            yield Random(f"{self.seed}:{number}")
            number += 1


def read_table() -> dict[str, dict[str, float]]:
    """Group -> column -> seconds."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


@pytest.fixture
def time_budget(request: pytest.FixtureRequest) -> Callable[[str], Budget]:
    """`time_budget("fuzz").rounds()`. `--proof` takes the long column and a new seed, `--seed N` that seed."""
    proof = request.config.getoption("--proof")
    given = request.config.getoption("--seed")
    seed = given if given is not None else secrets.randbits(32) if proof else USUAL_SEED

    def budget(group: str) -> Budget:
        seconds = read_table()[group]["proof" if proof else "usual"]
        print(f"{group}: {seconds} s; replay with: pytest '{request.node.nodeid}' --seed {seed}")
        return Budget(seconds, seed)

    return budget
