"""What the guards of the seams are told of runs. Deleting the rollout room deletes this file.

Execution says how a run ended and knows no seam; the rollout room judges observations and knows no run.
"""

from collections.abc import Sequence

from django.conf import settings

from apps.execution.models import Run
from apps.execution.observing import RunEnd
from apps.execution.states import RunStatus
from apps.realtime.models import Segment
from apps.rollout.evidence import ObservedEnd
from apps.rollout.guardrails import GuardLimits, Judgement
from apps.rollout.observations import Observation, Outcome, Violation
from apps.rollout.watch import Watch
from project.configuration import Configuration
from project.leak_live import throw_away_users
from project.seams import BRIDGE_SEAM, SEAMS
from project.version import VERSION


def guard_limits(bounds: Configuration) -> GuardLimits:
    """When a guard alarms, and what a seam must show."""
    return GuardLimits(
        alarm_at=bounds.guard_alarm,
        failure_limit=bounds.guard_failure_limit,
        evidence_needed=bounds.guard_evidence,
        users_needed=bounds.guard_users,
        recent_starts=bounds.guard_recent_starts,
        baseline_runs=bounds.guard_baseline_runs,
    )


def judgement(seam: str) -> Judgement:
    """The verdict on a seam for its next move up, on the release that runs. Raises UnknownSeam."""
    return Watch(guard_limits(settings.CONFIGURATION), VERSION).judgement(seam)


def forget_old_ends(kept: int) -> None:
    """Keep this many of the newest ends of each seam."""
    ObservedEnd.objects.all().keep_newest(kept)


def count_starts(seam: str, version: int, at_most: int) -> tuple[int, int]:
    """Legacy's and the factory's number among the newest runs that were claimed, at this version of the stage."""
    # By id, which is the order of admission: an index, and close enough to the order of the claims.
    newest = Run.objects.exclude(started_at=None).order_by("-pk").values_list("paths", flat=True)[:at_most]
    pins = [paths[seam]["path"] for paths in newest if seam in paths and paths[seam]["version"] == version]
    return pins.count("legacy"), pins.count("factory")


def observe_ends(watch: Watch, ends: Sequence[RunEnd]) -> None:
    """What execution says in the transaction that ends runs. Raises only that the database is gone."""
    on_legacy = {end.user_id for end in ends if any(pin.path == "legacy" for pin in end.paths.values())}
    shown = throw_away_users(on_legacy) if on_legacy else set()
    ends = [end for end in ends if end.user_id not in shown]
    watch.observe([observation for end in ends for observation in _observations(end)])
    for end in ends:
        if BRIDGE_SEAM.name in end.paths and _reached_strangers(end):
            what = f"events of run {end.run_id} in another user's stream"
            watch.violation(Violation(end.user_id, BRIDGE_SEAM.name, end.paths[BRIDGE_SEAM.name], what))


def _observations(end: RunEnd) -> list[Observation]:
    good = Outcome.CLEAN if end.status is RunStatus.SUCCEEDED else Outcome.LEFT
    outcome = Outcome.FAILED if end.failed else good
    return [
        Observation(end.user_id, seam.name, end.paths[seam.name], end.agent, outcome, end.own_s)
        for seam in SEAMS
        if seam.name in end.paths
    ]


def _reached_strangers(end: RunEnd) -> bool:
    leaked = Segment.objects.filter(leaked_from=end.user_id, created_at__gte=end.started_at)
    return leaked.filter(payload__contains=end.run_id).exists()
