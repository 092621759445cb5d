"""Runs drills one after the other and judges each: by its tabs' histories, the log of the copy, and its own figures."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from apps.findings import Exit, Line, Report
from apps.operations.faults.disposable import CopyFailed, DisposableCopy
from apps.operations.faults.drills import DRILLS, NOT_DRILLED, Drill, DrillFailed, Scene, missing, percentile
from apps.operations.faults.tab import Person, Tab

TITLE = "Faults"
NEXT = "replay it with --seed and --drill, and read the server's last lines in the report"
_RUNS = 2  # of each tab, side by side
_INTERVAL_MS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillOptions:
    """How much load, how many faults, and for how long at most."""

    users: int
    load_s: float  # for which tabs ask again and again
    faults: int
    limit_s: float  # of one drill
    seed: int
    drain_timeout_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one drill showed. `history` holds the lines of the judge; `output` the servers' last, when it broke."""

    name: str
    kept: bool
    detail: str
    figures: Mapping[str, float] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    output: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """All outcomes, and by name what could not be done and why."""

    outcomes: tuple[Outcome, ...]
    not_done: Mapping[str, str]
    seed: int

    @property
    def report(self) -> Report:
        """As audits are shown."""
        lines = [
            Line(outcome.name, outcome.kept, outcome.detail, "" if outcome.kept else NEXT) for outcome in self.outcomes
        ]
        return Report(TITLE, tuple(lines))

    @property
    def exit(self) -> Exit:
        """COULD_NOT_LOOK when no drill could be done."""
        return self.report.exit if self.outcomes else Exit.COULD_NOT_LOOK

    def as_text(self) -> str:
        """One line a drill; then what was not done; then what the servers said where a promise broke."""
        missing = [f"{name:<20}NOT DONE  {why}" for name, why in self.not_done.items()]
        broken = [f"-- {outcome.name}\n{''.join(outcome.output)}" for outcome in self.outcomes if outcome.output]
        return "\n".join([f"seed {self.seed}", self.report.as_text(), *missing, *broken])

    def as_json(self) -> str:
        """The same facts for machines."""
        drills = [
            {
                "name": outcome.name,
                "kept": outcome.kept,
                "detail": outcome.detail,
                "figures": dict(outcome.figures),
                "history": list(outcome.history),
            }
            for outcome in self.outcomes
        ]
        told = {"title": TITLE, "exit": int(self.exit), "seed": self.seed, "drills": drills}
        return json.dumps(told | {"not_done": dict(self.not_done)})


async def rehearse(copy: DisposableCopy, names: Iterable[str], options: DrillOptions) -> Rehearsal:
    """Do the named drills. Raises CopyFailed when the copy itself cannot be used."""
    outcomes: list[Outcome] = []
    not_done: dict[str, str] = {}
    for name in names:
        if (why := missing(name, copy)) is not None:
            not_done[name] = why
        else:
            outcomes.append(await _do(copy, name, DRILLS[name], options))
    return Rehearsal(tuple(outcomes), {**not_done, **NOT_DRILLED}, options.seed)


async def _do(copy: DisposableCopy, name: str, drill: Drill, options: DrillOptions) -> Outcome:
    chance = Random(f"{options.seed}:{name}")  # noqa: S311 - faults are to be repeatable, not secret
    tabs = await _tabs(copy, name, chance, options)
    scene = Scene(copy, tabs, chance, options.faults, options.load_s / (options.faults + 1), options.drain_timeout_s)
    try:
        async with asyncio.timeout(options.limit_s):
            broken = await _endure(scene, drill)
    except TimeoutError:
        waiting = [tab.name for tab in tabs if not tab.done]
        broken = f"not everything had arrived after {options.limit_s:g} s at {', '.join(waiting[:3])}"
    return await _judge(copy, name, scene, broken)


async def _endure(scene: Scene, drill: Drill) -> str:
    """Let the tabs live through the drill; what the drill itself found broken, if anything."""
    failures: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            for tab in scene.tabs:
                group.create_task(tab.run())
            group.create_task(drill(scene))
    except* (DrillFailed, CopyFailed) as found:
        failures += [str(failure) for failure in found.exceptions]
    return "; ".join(failures)


async def _tabs(copy: DisposableCopy, name: str, chance: Random, options: DrillOptions) -> list[Tab]:
    names = [f"drill-{options.seed}-{name}-{number}" for number in range(options.users)]
    count = max(int(options.load_s * 1000 / _INTERVAL_MS / 2), 1)
    people = [
        Person(
            name=user_name,
            user=made["id"],
            token=made["token"],
            threads=made["threads"],
            text=f"count={count} interval_ms={_INTERVAL_MS} tag=of-{user_name}",
        )
        for user_name, made in zip(names, await copy.users(names, _RUNS), strict=True)
    ]
    return [Tab(person, copy.ports, Random(chance.random()), options.load_s) for person in people]  # noqa: S311 - as above


async def _judge(copy: DisposableCopy, name: str, scene: Scene, broken: str) -> Outcome:
    file = copy.folder / f"{name}.jsonl"
    lines = "".join(json.dumps(line) + "\n" for tab in scene.tabs for line in tab.history)
    await asyncio.to_thread(file.write_text, lines, encoding="utf-8")
    judged = json.loads(await copy.manage("check_history", str(file), "--json", accepted=(0, 1, 2)))
    found = [f"{line['name']}: {line['detail']}" for line in judged["lines"] if not line["kept"]]
    found += [f"refused: {refused}" for tab in scene.tabs for refused in tab.refused][:1]
    found += [broken] if broken else []
    found += [] if scene.figures else ["nothing was done to it: the load was over before; ask for more --seconds"]
    if "error" in judged:
        found.append(judged["error"])
    events = sum(len(line["events"]) for tab in scene.tabs for line in tab.history if line["what"] == "events")
    recoveries = sorted(seconds for tab in scene.tabs for seconds in tab.recoveries)
    figures = {
        **scene.figures,
        "events": events,
        "connections": sum(line["what"] == "subscribed" for tab in scene.tabs for line in tab.history),
        "live again p50 s": round(percentile(recoveries, 50), 2),
        "live again p99 s": round(percentile(recoveries, 99), 2),
    }
    shown = ", ".join(f"{value:g} {what}" for what, value in figures.items())
    output = tuple(line for server in copy.servers for line in list(server.output)[-20:]) if found else ()
    detail = f"{'; '.join(found)} ({shown})" if found else f"0 lost, doubled, out of order or foreign: {shown}"
    return Outcome(name, not found, detail, figures, tuple(judged["lines"]), output)
