"""`python -m benchmarks.guardrails`: the guard's false alarms and its time to detection, beside rules on thresholds.

Everything is drawn from one seed and nothing is measured, so the figures are the same on every machine. `--pictures`
draws the charts of docs/explanation/guardrails.md anew.
"""

import argparse
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from random import Random

from apps.rollout.pictures import Chart, Line
from apps.rollout.rehearsal import (
    Traffic,
    detection,
    evidence_course,
    false_alarms,
    first_alarm,
    outcomes,
    rolled_back_by_rule,
)

SEED = 20_260
PICTURES = Path(__file__).parent.parent / "docs" / "explanation"
THRESHOLD = 1_000.0  # one guard; with two guards it is twice that
RATES = (1.0, 0.3, 0.1, 0.06)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.guardrails", description=__doc__)
    parser.add_argument("--repeats", type=int, default=2_000, help="rehearsals of each case (2000)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--pictures", action="store_true", help="draw the charts of the documentation")
    arguments = parser.parse_args()
    if arguments.pictures:
        draw(arguments.seed)
        return
    random, repeats = Random(arguments.seed), arguments.repeats
    print(f"seed {arguments.seed}, {repeats} rehearsals of each; legacy fails in 2 %, the factory has 10 % of the runs")
    for guards in (1, 2):
        threshold = THRESHOLD * guards
        alarms = false_alarms(random, Traffic(), runs=20_000, repeats=repeats, threshold=threshold)
        bound = 20_000 * 0.02 / threshold
        print(
            f"alarm at {threshold:g}: equal paths, 20,000 runs: {alarms:.1%} false alarms (stated: at most {bound:.0%})"
        )
        outage = Traffic(outage=range(1_000, 1_030))
        alarms = false_alarms(random, outage, runs=1_200, repeats=repeats, threshold=threshold)
        print(f"  both paths out for 30 runs: {alarms:.1%} alarms")
        for rate in RATES:
            found = detection(random, Traffic(factory_rate=rate), repeats=repeats, threshold=threshold)
            median = "never in most" if found.median_factory_runs is None else f"{found.median_factory_runs:g}"
            print(f"  fails {rate:.0%}: median {median} factory runs, {found.missed:.0%} not within 4,000 runs")
    for name, share in naive(random, min(repeats, 200)).items():
        print(f"{name}, asked after each of 3,000 runs of equal paths: {share:.0%} rolled back")


def naive(random: Random, repeats: int) -> dict[str, float]:
    """What thresholds do to healthy ramps."""
    z_test = rolled_back_by_rule(random, Traffic(), runs=3_000, repeats=repeats, rule=z_rule)
    rules = {
        "error ratio > 2 over 50 runs": error_ratio_rolls_back,
        "p95 ratio > 1.25 over 50 runs": p95_ratio_rolls_back,
    }
    found = {
        name: sum(rule(random) for _ in range(min(repeats, 200))) / min(repeats, 200) for name, rule in rules.items()
    }
    return found | {"z-test at 1.96": z_test}


def z_rule(legacy: list[int], factory: list[int]) -> bool:
    if factory[0] < 50 or legacy[0] < 50:
        return False
    pooled = (legacy[1] + factory[1]) / (legacy[0] + factory[0])
    spread = math.sqrt(pooled * (1 - pooled) * (1 / legacy[0] + 1 / factory[0]))
    return spread > 0 and (factory[1] / factory[0] - legacy[1] / legacy[0]) / spread > 1.96


def error_ratio_rolls_back(random: Random) -> bool:
    newest: deque[bool] = deque(maxlen=50)
    legacy = [0, 0]
    for on_factory, bad in outcomes(random, Traffic(), 3_000):
        if on_factory:
            newest.append(bad)
        else:
            legacy[0] += 1
            legacy[1] += bad
        if len(newest) == 50 and sum(newest) / 50 > 2 * legacy[1] / legacy[0]:
            return True
    return False


def p95_ratio_rolls_back(random: Random) -> bool:
    windows: dict[bool, deque[float]] = {True: deque(maxlen=50), False: deque(maxlen=50)}
    for on_factory, _ in outcomes(random, Traffic(), 3_000):
        windows[on_factory].append(random.lognormvariate(0, 0.6))
        if all(len(window) == 50 for window in windows.values()):
            new, old = (sorted(windows[path])[47] for path in (True, False))
            if new > 1.25 * old:
                return True
    return False


def draw(seed: int) -> None:
    level = Line("alarm", level=math.log(THRESHOLD))
    equal = evidence_course(Random(seed), Traffic(), 3_000)
    tenth = _until(evidence_course(Random(seed), Traffic(factory_rate=0.1), 3_000), math.log(THRESHOLD))
    outage = evidence_course(Random(seed), Traffic(outage=range(1_500, 1_530)), 3_000)
    courses = [Line("equal paths", equal), Line("factory fails 10 %", tenth), Line("both out at 1,500", outage), level]
    write("guard-evidence.svg", "Evidence against the factory", courses, "runs of both paths", "log of evidence")
    curves = [Line(f"fails {rate:.0%}", _found_by(seed, rate)) for rate in RATES]
    write("guard-detection.svg", "How soon a broken factory is found", curves, "runs of both paths", "share found, %")


def write(name: str, title: str, lines: list[Line], x: str, y: str) -> None:
    alt = f"{title}: {', '.join(line.name for line in lines)}."
    (PICTURES / name).write_text(Chart(title=title, alt=alt, x=x, y=y, lines=lines).svg(), encoding="utf-8")
    print(PICTURES / name)


def _until(course: Sequence[tuple[float, float]], level: float) -> Sequence[tuple[float, float]]:
    end = next((index for index, (_, y) in enumerate(course) if y >= level), len(course) - 1)
    return course[: end + 1]


def _found_by(seed: int, rate: float, repeats: int = 200, at_most: int = 2_000) -> list[tuple[float, float]]:
    random = Random(seed)
    alarms = [
        first_alarm(outcomes(random, Traffic(factory_rate=rate), at_most), 0.1, THRESHOLD) for _ in range(repeats)
    ]
    runs = sorted(alarm.runs for alarm in alarms if alarm is not None)
    points = [(0.0, 0.0)] + [(run, 100 * (index + 1) / repeats) for index, run in enumerate(runs)]
    return [*points[:: max(1, len(points) // 60)], points[-1], (at_most, points[-1][1])]


if __name__ == "__main__":
    main()
