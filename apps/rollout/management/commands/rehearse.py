"""`manage.py rehearse SEAM`: what the guard would do at this seam's traffic, before anybody trusts it."""

import json
import math
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from random import Random
from typing import Any, override

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand
from django.db import DatabaseError

from apps.findings import CouldNotLook, Exit, blind_json, blind_text
from apps.rollout.evidence import ObservedEnd
from apps.rollout.guardrails import GuardLimits
from apps.rollout.observations import Outcome
from apps.rollout.pictures import Chart, Line
from apps.rollout.rehearsal import AT_MOST_RUNS, Traffic, detection, evidence_course, false_alarms
from apps.rollout.seams import UnknownSeam, declared_seam

SEED = 20_260
FAULTS = (1.0, 0.3, 0.1)  # rates at which the factory fails, besides the one asked for
ENOUGH_RUNS = 200  # of legacy, to take its own rate


class Command(BaseCommand):
    help = (
        "Old against old, then a seeded fault: the guard's false alarms and its time to detection, on runs that are "
        "drawn and thrown away. Reads how often legacy fails; writes nothing. Exits 0 shown, 2 could not look."
    )
    requires_system_checks = ()

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("seam")
        parser.add_argument("--share", type=_rate, default=0.1, help="of the factory, 0 to 1 (0.1)")
        parser.add_argument("--legacy-rate", type=_rate, help="how often legacy fails (what was observed, or 0.02)")
        parser.add_argument("--fault", type=_rate, default=0.2, help="how often the broken factory fails (0.2)")
        parser.add_argument("--runs", type=int, default=5_000, help="of old against old (5000)")
        parser.add_argument("--repeats", type=int, default=100, help="rehearsals of each (100)")
        parser.add_argument("--seed", type=int, default=SEED, help="the same seed shows the same")
        parser.add_argument("--picture", type=Path, help="write an SVG of the evidence there")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    @override
    def handle(self, *_: Any, **options: Any) -> None:
        try:
            shown = _rehearsed(options)
        except (UnknownSeam, ImproperlyConfigured, DatabaseError) as error:
            blind = blind_json if options["json"] else blind_text
            self.stdout.write(blind(f"Rehearsal of {options['seam']}", CouldNotLook(str(error.args[0]))))
            raise SystemExit(int(Exit.COULD_NOT_LOOK)) from None
        if options["picture"]:
            options["picture"].write_text(_picture(options, shown["legacy_rate"]).svg(), encoding="utf-8")
        self.stdout.write(json.dumps(shown) if options["json"] else _as_text(shown))


def _rehearsed(options: dict[str, Any]) -> dict[str, Any]:
    seam = declared_seam(options["seam"])
    rate, source = _legacy_rate(seam.name, options["legacy_rate"])
    threshold, repeats = _limits().alarm_at, options["repeats"]
    equal = Traffic(share=options["share"], legacy_rate=rate, factory_rate=rate)
    faults = sorted({options["fault"], *FAULTS} - {rate}, reverse=True)
    random = Random(options["seed"])  # noqa: S311 - a rehearsal must be the same when it is shown again
    found = [
        detection(
            random,
            Traffic(share=options["share"], legacy_rate=rate, factory_rate=fault),
            repeats=repeats,
            threshold=threshold,
        )
        for fault in faults
    ]
    return {
        "seam": seam.name,
        "share": options["share"],
        "legacy_rate": rate,
        "legacy_rate_from": source,
        "runs": options["runs"],
        "repeats": repeats,
        "seed": options["seed"],
        "false_alarms": false_alarms(random, equal, runs=options["runs"], repeats=repeats, threshold=threshold),
        "false_alarms_at_most": min(1.0, options["runs"] * rate / threshold),
        "faults": [
            {"rate": one.factory_rate, "median_factory_runs": one.median_factory_runs, "missed": one.missed}
            for one in found
        ],
    }


def _as_text(shown: dict[str, Any]) -> str:
    of_runs = f"in {shown['runs']} runs (at most {shown['false_alarms_at_most']:.1%})"
    rows = [
        f"Rehearsal of {shown['seam']}: {shown['repeats']} of each, seed {shown['seed']}",
        f"factory's share     {shown['share']:6.1%}",
        f"legacy fails        {shown['legacy_rate']:6.1%} {shown['legacy_rate_from']}",
        f"old against old     {shown['false_alarms']:6.1%} false alarms {of_runs}",
    ]
    for fault in shown["faults"]:
        median = fault["median_factory_runs"]
        text = "in most rehearsals not found" if median is None else f"found after {median:g} runs of the factory"
        missed = f"; {fault['missed']:.0%} not within {AT_MOST_RUNS} runs" if fault["missed"] else ""
        rows.append(f"factory fails {fault['rate']:6.1%} {text}{missed}")
    return "\n".join([*rows, "Nothing was written, and no stage was moved."])


def _picture(options: dict[str, Any], rate: float) -> Chart:
    runs = min(options["runs"], AT_MOST_RUNS)
    equal = Traffic(share=options["share"], legacy_rate=rate, factory_rate=rate)
    broken = Traffic(share=options["share"], legacy_rate=rate, factory_rate=options["fault"])
    courses = [
        evidence_course(Random(options["seed"]), traffic, runs)  # noqa: S311 - as above
        for traffic in (equal, broken)
    ]
    level = math.log(_limits().alarm_at)
    # Beyond twice the alarm the evidence of a broken path only hides that of the sound one.
    shown = [[(x, min(y, 2 * level)) for x, y in course] for course in courses]
    return Chart(
        title=f"Rehearsal of {options['seam']}",
        alt="The evidence against the factory over the runs, old against old and with a seeded fault.",
        x="runs",
        y="log of the evidence",
        lines=[
            Line("old against old", shown[0]),
            Line(f"fails {options['fault']:.0%}", shown[1]),
            Line("alarm", level=level),
        ],
    )


def _legacy_rate(seam: str, asked: float | None) -> tuple[float, str]:
    if asked is not None:
        return asked, "as asked"
    ends = ObservedEnd.objects.at(seam).filter(path="legacy").exclude(outcome=Outcome.LEFT)
    runs = ends.count()
    if runs < ENOUGH_RUNS:
        return 0.02, f"assumed: only {runs} legacy runs were observed"
    return ends.filter(outcome=Outcome.FAILED).count() / runs, f"observed in {runs} runs"


def _limits() -> GuardLimits:
    alarm_at = getattr(getattr(settings, "CONFIGURATION", None), "guard_alarm", None)
    return GuardLimits() if alarm_at is None else GuardLimits(alarm_at=alarm_at)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate <= 1:
        raise ArgumentTypeError(f"{text!r} is no rate: give a number above 0, up to 1")
    return rate
