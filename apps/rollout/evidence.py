"""The rows of what was observed: ends on both paths, legacy's frozen figures, and the state of the guards.

Ends are kept bounded, the newest of each seam. They hold a user's id, and go when the user goes.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from django.db import models, transaction
from django.db.models import Count, Q
from django.db.transaction import TransactionManagementError
from django.utils import timezone

from apps.rollout.guardrails import Evidence, percentile_95, upper_rate
from apps.rollout.observations import LABEL_CHARACTERS, Observation, Outcome
from apps.vocabulary import UserId


class ObservedEndQuerySet(models.QuerySet["ObservedEnd"]):
    """Reads of what ended; the ones that ask about a user name the user first."""

    def owned(self, user_id: UserId) -> "ObservedEndQuerySet":
        """The one door to what was observed of a user."""
        return self.filter(user_id=user_id)

    def at(self, seam: str, version: int | None = None) -> "ObservedEndQuerySet":
        """Ends at one seam, of one version of its stage if one is given."""
        rows = self.filter(seam=seam)
        return rows if version is None else rows.filter(version=version)

    def counted_before(self, user_id: UserId, observation: Observation, outcome: Outcome) -> bool:
        """Whether a bad outcome of this kind has counted for this user since the stage was last moved."""
        rows = self.owned(user_id).at(observation.seam, observation.pinned.version)
        return rows.filter(outcome=outcome, counted=True).exists()

    def recent_paths(self, seam: str, version: int, at_most: int) -> tuple[int, int]:
        """How many of the newest ends of this version were legacy's, and how many the factory's."""
        newest = self.at(seam, version).order_by("-pk").values_list("path", flat=True)[:at_most]
        paths = list(newest)
        return paths.count("legacy"), paths.count("factory")

    def clean_since_counted(self, observation: Observation, outcome: Outcome, at_most: int) -> int:
        """The factory's ends without a failure since the last that counted as `outcome`, at most `at_most`."""
        rows = self.at(observation.seam, observation.pinned.version).filter(path="factory")
        last = rows.filter(outcome=outcome, counted=True).order_by("-pk").values_list("pk", flat=True).first()
        clean = rows.filter(outcome=Outcome.CLEAN, pk__gt=last or 0).order_by("-pk")[:at_most]
        return clean.count()

    def evidence(self, seam: str, release: str) -> Evidence:
        """What was seen of the factory on this release. Slow runs are no failures; runs that were left are
        neither.
        """
        judged = Q(outcome__in=[Outcome.CLEAN, Outcome.SLOW, Outcome.FAILED])
        counts = self.at(seam).filter(judged, path="factory", release=release)
        found = counts.aggregate(
            clean=Count("pk", filter=~Q(outcome=Outcome.FAILED)),
            failed=Count("pk", filter=Q(outcome=Outcome.FAILED)),
            users=Count("user_id", distinct=True),
        )
        return Evidence(found["clean"], found["failed"], found["users"])

    def keep_newest(self, rows_per_seam: int) -> int:
        """Delete all but the newest of each seam; returns how many went."""
        gone = 0
        for seam in self.order_by().values_list("seam", flat=True).distinct():
            kept_from = self.at(seam).order_by("-pk").values_list("pk", flat=True)[rows_per_seam - 1 : rows_per_seam]
            for oldest in kept_from:
                gone += self.at(seam).filter(pk__lt=oldest).delete()[0]
        return gone


class ObservedEnd(models.Model):
    """One end on one path of one seam, as `Observation` says it, judged and stored."""

    id = models.BigAutoField(primary_key=True)
    seam = models.CharField(max_length=100)
    user_id = models.BigIntegerField()
    path = models.CharField(max_length=7)
    version = models.PositiveBigIntegerField()
    label = models.CharField(max_length=LABEL_CHARACTERS)
    release = models.CharField(max_length=64)
    outcome = models.CharField(max_length=6, choices=[(each.value, each.value) for each in Outcome])
    own_ms = models.FloatField(null=True)
    counted = models.BooleanField(default=False)
    at = models.DateTimeField(default=timezone.now)

    objects = ObservedEndQuerySet.as_manager()

    class Meta:
        default_permissions = ("view",)
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["seam", "version", "path", "id"], name="rollout_end_seam_version"),
            models.Index(fields=["user_id", "seam"], name="rollout_end_user"),
        ]

    def __str__(self) -> str:
        return f"{self.outcome} on {self.path} at {self.seam}, version {self.version}"


@dataclass(frozen=True, slots=True)
class LegacyFigures:
    """What the legacy path did while it served: by label the time that 95 % of its runs stayed within, and
    how often it failed at the most.
    """

    p95_ms: Mapping[str, float]
    failure_rate: float | None

    def is_slow(self, observation: Observation) -> bool:
        """Whether its own time exceeds what 95 % of legacy's runs took. Never where one of them is unknown."""
        limit_ms = self.p95_ms.get(observation.label)
        return observation.own_s is not None and limit_ms is not None and observation.own_s * 1_000 > limit_ms


class BaselineQuerySet(models.QuerySet["Baseline"]):
    """Freezing and reading."""

    def figures(self, seam: str) -> LegacyFigures | None:
        """The frozen figures of a seam; None while nothing is frozen."""
        row = self.filter(seam=seam).first()
        return None if row is None else LegacyFigures(row.p95_ms, row.failure_rate)

    def freeze(self, seam: str, before_version: int, at_most: int) -> LegacyFigures:
        """Freeze legacy's figures from its newest ends before the stage came to `before_version`."""
        rows = ObservedEnd.objects.at(seam).filter(path="legacy", version__lt=before_version).order_by("-pk")
        times: defaultdict[str, list[float]] = defaultdict(list)
        outcomes: list[str] = []
        for label, outcome, own_ms in rows.values_list("label", "outcome", "own_ms")[:at_most]:
            if outcome != Outcome.LEFT:
                outcomes.append(outcome)
            if outcome == Outcome.CLEAN and own_ms is not None:
                times[label].append(own_ms)
        p95_ms = {label: limit for label, values in times.items() if (limit := percentile_95(values)) is not None}
        rate = upper_rate(outcomes.count(Outcome.FAILED), len(outcomes)) if outcomes else None
        fresh = [Baseline(seam=seam, p95_ms=p95_ms, failure_rate=rate, runs=len(outcomes))]
        self.bulk_create(fresh, ignore_conflicts=True)  # somebody else may have frozen them meanwhile
        return self.figures(seam) or LegacyFigures(p95_ms, rate)

    def thaw(self, seam: str) -> None:
        """Forget the figures: everyone is served by legacy again, and new ones are being made."""
        self.filter(seam=seam).delete()


class Baseline(models.Model):
    """What legacy did, frozen when its seam left the stages at which legacy serves everyone."""

    seam = models.CharField(max_length=100, primary_key=True)
    p95_ms = models.JSONField(default=dict)
    failure_rate = models.FloatField(null=True)
    runs = models.PositiveIntegerField(default=0)
    at = models.DateTimeField(default=timezone.now)

    objects = BaselineQuerySet.as_manager()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"what legacy did at {self.seam}, from {self.runs} runs"


class GuardStateQuerySet(models.QuerySet["GuardState"]):
    """Locking and reading."""

    def locked(self, seam: str, version: int) -> "GuardState":
        """The seam's guards, locked until the end of the caller's transaction, at `version`: evidence of an
        earlier stage is dropped. Raises TransactionManagementError outside of a transaction.
        """
        if not transaction.get_connection().in_atomic_block:
            raise TransactionManagementError("a guard is locked for a transaction; open one first")
        rows = self.select_for_update()
        state = rows.filter(pk=seam).first()
        if state is None:
            self.bulk_create([GuardState(seam=seam, version=version)], ignore_conflicts=True)
            state = rows.get(pk=seam)
        if state.version < version:
            state.version, state.detectors, state.refusing, state.bad_outcomes = version, {}, "", 0
        return state

    def refusals(self, versions: Mapping[str, int]) -> dict[str, str]:
        """By seam, why no new work may begin, among seams that still stand at these versions."""
        rows = self.filter(pk__in=versions).exclude(refusing="")
        return {row.seam: row.refusing for row in rows if row.version == versions[row.seam]}


class GuardState(models.Model):
    """What the guards of one seam have gathered since its stage was last moved.

    `refusing` says why no new work may begin until a person decides; empty, and nothing is refused.
    """

    seam = models.CharField(max_length=100, primary_key=True)
    version = models.PositiveBigIntegerField(default=0)
    detectors = models.JSONField(default=dict, help_text="{guard: logarithms of its evidence}")
    bad_outcomes = models.PositiveIntegerField(default=0, help_text="that counted since the stage was last moved")
    legacy_violations = models.PositiveBigIntegerField(default=0, help_text="never reset")
    factory_violations = models.PositiveBigIntegerField(default=0, help_text="never reset")
    refusing = models.TextField(blank=True, default="")

    objects = GuardStateQuerySet.as_manager()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"guards of {self.seam} at version {self.version}"


@dataclass(frozen=True, slots=True)
class Judged:
    """An observation with its outcome against legacy's figures; `counted` as a bad one, if it was one."""

    observation: Observation
    outcome: Outcome
    counted: bool = False


def store(ends: Sequence[Judged], release: str) -> None:
    """Add what was observed, in this order."""
    ObservedEnd.objects.bulk_create([_row(judged, release) for judged in ends])


def _row(judged: Judged, release: str) -> ObservedEnd:
    observation = judged.observation
    return ObservedEnd(
        seam=observation.seam,
        user_id=observation.user_id,
        path=observation.pinned.path,
        version=observation.pinned.version,
        label=observation.label[:LABEL_CHARACTERS],
        release=release,
        outcome=judged.outcome,
        own_ms=None if observation.own_s is None else observation.own_s * 1_000,
        counted=judged.counted,
    )
