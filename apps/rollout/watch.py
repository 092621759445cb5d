"""The guard on duty: it sees every end on both paths and moves a seam down when the factory is worse.

It works in the transaction that ends the run, so that what proved the breach and the move are committed
together, and the next claim of every process finds the stage where the guard put it. Its lock is the last of
that transaction, is taken for bad outcomes alone, and whoever holds it waits for nobody but a person who
moves the same seam at this moment. It never raises into the run: a guard that fails is reported, and holds.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from django.db import InterfaceError, OperationalError, router, transaction
from waffle import get_waffle_flag_model

from apps.rollout.evidence import Baseline, GuardState, Judged, LegacyFigures, ObservedEnd, store
from apps.rollout.guardrails import Detector, GuardLimits, Judgement, detectors_from, estimated_share, judge
from apps.rollout.models import AbstractSeamFlag
from apps.rollout.moves import alarm, move
from apps.rollout.observations import Observation, Outcome, Violation
from apps.rollout.response import Breach, Response, responses_to
from apps.rollout.seams import Seam, declared_seams
from apps.rollout.stages import BUCKETS, IllegalMove, Mover, MoverKind, Placement, Stage, StaleStage

logger = logging.getLogger(__name__)

GUARD = Mover(MoverKind.AUTOMATION, "guard")
RATES: Mapping[Outcome, str] = {Outcome.FAILED: "failures", Outcome.SLOW: "slow runs"}
SLOW_BY_DEFINITION = 0.05  # of legacy's runs exceed what 95 % of them stay within

# How many of the newest starts at one version of a seam's stage were legacy's, and how many the factory's.
CountStarts = Callable[[str, int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where a seam is as the transaction sees it, and what legacy did there before."""

    seam: Seam
    placement: Placement
    version: int
    latched_why: str
    figures: LegacyFigures | None

    @property
    def guarded(self) -> bool:
        """Whether the factory serves somebody who could be served by legacy instead."""
        return self.placement.stage in {Stage.RAMP, Stage.ON}

    @property
    def rate_guards(self) -> int:
        """How many detectors can alarm: without legacy's times no run is slow, and one has the bound alone."""
        return len(RATES) if self.figures is not None and self.figures.p95_ms else 1


class Watch:
    """See the module. Holds nothing between two calls; all of it is synchronous and stands in rows.

    `release` names the code that is running: evidence for going up counts for one release only.
    `count_starts` says which share of the traffic each path has; by default it is read from what ended.
    """

    def __init__(self, limits: GuardLimits, release: str, count_starts: CountStarts | None = None) -> None:
        self._limits = limits
        self._release = release
        self._count_starts = count_starts or ObservedEnd.objects.recent_paths

    def observe(self, observations: Sequence[Observation]) -> None:
        """Store what ended and judge it. Belongs into the transaction that ends the work.

        Raises only what says that the database is gone, and then nothing of the transaction holds.
        """
        self._guarded(lambda: self._observe(observations))

    def violation(self, found: Violation) -> None:
        """One user's data reached another on `found.pinned.path`. Belongs into a transaction; raises as
        `observe`.
        """
        self._guarded(lambda: self._violation(found))

    def judgement(self, seam: str) -> Judgement:
        """The verdict on a seam for its next move up. Raises UnknownSeam by way of `declared_seam`."""
        standing = _standings([seam]).get(seam)
        breach = standing.latched_why if standing else ""
        return judge(ObservedEnd.objects.evidence(seam, self._release), self._limits, breach)

    def refusals(self, seams: Iterable[str]) -> dict[str, str]:
        """By seam, why no new work may begin until a person decides; empty, and all may."""
        # The usual answer costs one look into a table with a row for each seam that ever had a breach.
        if not GuardState.objects.exclude(refusing="").exists():
            return {}
        standings = _standings(seams)
        return GuardState.objects.refusals({name: standing.version for name, standing in standings.items()})

    # -- inside

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            with transaction.atomic():  # a savepoint: what fails here takes nothing of the run's end with it
                work()
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            logger.exception("the guard could not judge what ended; the stage stays where it is")

    def _observe(self, observations: Sequence[Observation]) -> None:
        standings = _standings({observation.seam for observation in observations})
        known = [observation for observation in observations if observation.seam in standings]
        standings = {name: self._with_figures(standing) for name, standing in standings.items()}
        ends: list[Judged] = []
        for observation in known:
            standing = standings[observation.seam]
            outcome = _judged(observation, standing.figures)
            if outcome in RATES and standing.guarded and observation.pinned.version == standing.version:
                store(ends, self._release)  # what ended before it is part of what it is judged by
                ends = [Judged(observation, outcome, counted=self._bad_outcome(standing, observation, outcome))]
            else:
                ends.append(Judged(observation, outcome))
        store(ends, self._release)

    def _with_figures(self, standing: _Standing) -> _Standing:
        """The standing with legacy's figures, frozen at the first end after legacy stopped serving everyone."""
        name = standing.seam.name
        figures = Baseline.objects.figures(name)
        if standing.guarded and figures is None:
            figures = Baseline.objects.freeze(name, standing.version, self._limits.baseline_runs)
        elif standing.placement.stage in {Stage.OFF, Stage.SHADOW} and figures is not None:
            Baseline.objects.thaw(name)
            figures = None
        return _Standing(standing.seam, standing.placement, standing.version, standing.latched_why, figures)

    def _bad_outcome(self, standing: _Standing, observation: Observation, outcome: Outcome) -> bool:
        """Let one bad outcome move the evidence; False where this user's had counted before."""
        name, guard = standing.seam.name, RATES[outcome]
        state = GuardState.objects.locked(name, standing.version)
        if state.version != standing.version:
            return False  # somebody moved the seam since this transaction read it
        if ObservedEnd.objects.counted_before(observation.user_id, observation, outcome):
            return False
        detectors = detectors_from(state.detectors, RATES.values())
        after = self._moved(detectors[guard], standing, observation, outcome)
        state.detectors = {each: detector.as_list() for each, detector in (detectors | {guard: after}).items()}
        state.bad_outcomes += 1
        state.save()
        if not standing.latched_why and after.alarms(self._limits.threshold(standing.rate_guards)):
            why = f"{guard}: {state.bad_outcomes} users met one since version {state.version}; the factory's are more"
            _respond(standing, Breach.RATE, why)
        return True

    def _moved(self, detector: Detector, standing: _Standing, observation: Observation, outcome: Outcome) -> Detector:
        on_factory = observation.pinned.path == "factory"
        if standing.placement.stage is Stage.RAMP:
            # Without the run itself: what is foretold of it must not know where it went.
            legacy, factory = self._count_starts(standing.seam.name, standing.version, self._limits.recent_starts)
            others = (legacy, max(0, factory - 1)) if on_factory else (max(0, legacy - 1), factory)
            return detector.bad_outcome(on_factory=on_factory, share=estimated_share(*others, _share_of(standing)))
        expected = _expected(standing.figures, outcome)
        if not on_factory or expected is None:
            return detector  # nobody knows what legacy did: there is nothing to compare with
        clean = ObservedEnd.objects.clean_since_counted(observation, outcome, self._limits.baseline_runs)
        if clean >= self._limits.baseline_runs:
            return Detector().bad_after_clean(clean_runs=0, expected=expected)  # more were clean than are counted
        return detector.bad_after_clean(clean_runs=clean, expected=expected)

    def _violation(self, found: Violation) -> None:
        standing = _standings([found.seam]).get(found.seam)
        if standing is None:
            return
        logger.error("isolation violated on the %s path of %s: %s", found.pinned.path, found.seam, found.what)
        state = GuardState.objects.locked(found.seam, standing.version)
        if found.pinned.path == "legacy":
            state.legacy_violations += 1
        else:
            state.factory_violations += 1
        state.save()
        breach = Breach.LEGACY_ISOLATION if found.pinned.path == "legacy" else Breach.FACTORY_ISOLATION
        if found.pinned.version == standing.version or breach is Breach.FACTORY_ISOLATION:
            _respond(standing, breach, f"isolation: {found.what}, on the {found.pinned.path} path")


def _standings(seams: Iterable[str]) -> dict[str, _Standing]:
    declared = declared_seams()
    names = [name for name in seams if name in declared]
    model: type[AbstractSeamFlag] = get_waffle_flag_model()
    rows = {row.name: row for row in model.objects.using(router.db_for_write(model)).filter(name__in=names)}
    standings: dict[str, _Standing] = {}
    for name in names:
        seam, row = declared[name], rows.get(name)
        placement = (row and row.placement) or seam.default
        latched_why = (row.latched_why or "latched") if row and row.latched_at else ""
        standings[name] = _Standing(seam, placement, row.version if row else 0, latched_why, None)
    return standings


def _share_of(standing: _Standing) -> float | None:
    """The share that the ramp gives the factory; None where people, groups or staff were chosen besides."""
    model: type[AbstractSeamFlag] = get_waffle_flag_model()
    flag = model.objects.using(router.db_for_write(model)).get(name=standing.seam.name)
    chosen = flag.staff or flag.users.exists() or flag.groups.exists()
    return None if chosen else standing.placement.share_buckets / BUCKETS


def _judged(observation: Observation, figures: LegacyFigures | None) -> Outcome:
    slow = observation.outcome is Outcome.CLEAN and figures is not None and figures.is_slow(observation)
    return Outcome.SLOW if slow else observation.outcome


def _expected(figures: LegacyFigures | None, outcome: Outcome) -> float | None:
    if figures is None:
        return None
    return figures.failure_rate if outcome is Outcome.FAILED else SLOW_BY_DEFINITION


def _respond(standing: _Standing, breach: Breach, why: str) -> None:
    """Do the first of the answers that this seam takes. Somebody who is faster is left to it."""
    name = standing.seam.name
    for response in responses_to(breach, standing.placement.stage, standing.seam):
        try:
            _carry_out(response, standing, why)
        except IllegalMove as refused:
            logger.warning("guard of %s: %s was refused: %s", name, response, refused)
        except StaleStage as faster:
            logger.warning("guard of %s (%s): %s", name, why, faster)
            return
        else:
            logger.error("guard of %s: %s, because of %s", name, response, why)
            return


def _carry_out(response: Response, standing: _Standing, why: str) -> None:
    seam, version = standing.seam.name, standing.version
    match response:
        case Response.TO_SHADOW:
            move(seam, version, Placement(Stage.SHADOW), GUARD, why)
        case Response.TO_OFF:
            move(seam, version, Placement(Stage.OFF), GUARD, why)
        case Response.ALARM:
            alarm(seam, version, GUARD, why)
        case Response.REFUSE_WORK:
            latched = version if standing.latched_why else alarm(seam, version, GUARD, why).version
            state = GuardState.objects.locked(seam, latched)
            state.refusing = why
            state.save()
