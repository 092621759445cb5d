"""The rows of the rollout: the flag that holds a seam's stage, the audit trail of its moves, and the deny
list.

The flag model is waffle's, so that `flag_is_active`, `{% flag %}` and the rest of waffle's API answer for a
seam too: for a seam, active means "served by the factory". A flag without a stage, whose name no seam has,
is an ordinary waffle flag and behaves as stock waffle. For a seam nothing is read from waffle's cache
(another process may keep an old flag for 300 s, and a late `cache.add` installs one again) and no query
string, header or cookie counts.
"""

import secrets
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, ClassVar, Self

from django.contrib.auth import get_user_model
from django.db import IntegrityError, models, router, transaction
from django.db.models import Exists, Q
from django.utils import timezone
from waffle.managers import FlagManager
from waffle.models import AbstractUserFlag

from apps.rollout.audit import STAGE_CHOICES, Act, DeniedUser, Move
from apps.rollout.evidence import Baseline, GuardState, ObservedEnd
from apps.rollout.mismatches import ComparisonCount, Mismatch, MismatchShape
from apps.rollout.reach import LegacyReach
from apps.rollout.recordings import Recording
from apps.rollout.seams import Seam, declared_seam, declared_seams
from apps.rollout.stages import (
    BUCKETS,
    IllegalMove,
    Mover,
    MoverKind,
    Placement,
    SeamLatched,
    Stage,
    StaleStage,
    Standing,
    bucket_of,
    check_move,
    check_reason,
    path_for,
)
from apps.vocabulary import UserId

__all__ = [
    "AbstractSeamFlag",
    "Baseline",
    "ComparisonCount",
    "DeniedUser",
    "Flag",
    "GuardState",
    "LegacyReach",
    "Mismatch",
    "MismatchShape",
    "Move",
    "ObservedEnd",
    "Recording",
]

_LARGEST_WAFFLE_PERCENT = Decimal("99.9")  # waffle's column holds three digits
WAFFLE_API = Mover(MoverKind.WAFFLE, "waffle's API (everyone or percent written)")


class SeamFlagQuerySet(models.QuerySet[Any]):
    """Reads of flags that know what a seam is, and the one statement that writes a stage."""

    def with_chosen(self, user_id: UserId) -> Self:
        """Each row with `chosen`: whether the flag's users, groups or staff name this user, in the same
        statement.
        """
        user_model = get_user_model()
        named = self.model.users.through._default_manager.filter(  # noqa: SLF001 - the public way to any manager
            **{self.model.users.field.m2m_reverse_field_name(): user_id}
        )
        chosen = Q(pk__in=named.values(self.model.users.field.m2m_field_name()))
        fields = {field.name for field in user_model._meta.get_fields()}  # noqa: SLF001 - documented
        if "groups" in fields:
            grouped = self.model.groups.through._default_manager.filter(group__user=user_id)  # noqa: SLF001 - as above
            chosen |= Q(pk__in=grouped.values(self.model.groups.field.m2m_field_name()))
        if "is_staff" in fields:
            staff = user_model._default_manager.filter(pk=user_id, is_staff=True)  # noqa: SLF001 - as above
            chosen |= Q(Exists(staff), staff=True)
        return self.annotate(chosen=models.ExpressionWrapper(chosen, output_field=models.BooleanField()))

    def compare_and_move(
        self,
        seam: Seam,
        expected_version: int,
        to: Placement,
        by: Mover,
        why: str,
        numbers: Mapping[str, Any] = MappingProxyType({}),
    ) -> Move:
        """Move the seam if it still is at `expected_version`, with its audit row, in one transaction.

        Version 0 is a seam that was never moved, with a row or without. A move down that was overtaken by
        moves up alone wins all the same. An automatic move latches the seam. Raises IllegalMove,
        ReasonMissing, SeamLatched, or StaleStage when someone else was faster. Rights are checked by
        `moves.move`.
        """
        why = check_reason(why)
        alias = router.db_for_write(self.model)
        with transaction.atomic(using=alias):
            row = self.using(alias).filter(name=seam.name).select_for_update(no_key=True).first()
            now = (row and row.placement) or seam.default
            version = row.version if row else 0
            if version != expected_version and not _overtook_upwards(seam.name, expected_version, to):
                raise StaleStage(_stale(self.model, seam.name))
            check_move(now, to, by.kind)
            if row and row.latched_at and to.is_above(now):
                raise SeamLatched(f"{seam.name} was taken down ({row.latched_why}): acknowledge that first")
            values = columns_of(to) | {"salt": (row and row.salt) or secrets.token_hex(8)}
            if by.kind is MoverKind.AUTOMATION:
                values |= {"latched_at": timezone.now(), "latched_why": why}
            self.using(alias)._write(seam.name, version, values, exists=row is not None)  # noqa: SLF001 - our own
            if to.stage is Stage.ON and to.is_above(now):
                LegacyReach.objects.using(alias).forget(seam.name)
            return Move.objects.append(seam.name, version + 1, now, to, by, why, numbers=numbers)

    def compare_and_latch(self, seam: Seam, expected_version: int, by: Mover, why: str) -> Move:
        """Latch a seam where it stands: an alarm that moves nobody, until a person acknowledges it.

        Raises as `compare_and_move`, and IllegalMove where it is latched already.
        """
        why = check_reason(why)
        alias = router.db_for_write(self.model)
        with transaction.atomic(using=alias):
            row = self.using(alias).filter(name=seam.name).first()
            now = (row and row.placement) or seam.default
            if (row.version if row else 0) != expected_version:
                raise StaleStage(_stale(self.model, seam.name))
            if row and row.latched_at:
                raise IllegalMove(f"{seam.name} is latched already: {row.latched_why}")
            values = columns_of(now) | {"salt": (row and row.salt) or secrets.token_hex(8)}
            values |= {"latched_at": timezone.now(), "latched_why": why}
            self.using(alias)._write(  # noqa: SLF001 - our own
                seam.name, expected_version, values, exists=row is not None
            )
            return Move.objects.append(seam.name, expected_version + 1, now, now, by, why, Act.LATCH)

    def compare_and_unlatch(self, seam: Seam, expected_version: int, by: Mover, why: str) -> Move:
        """Take the latch off a seam, which stays where it is. Raises as `compare_and_move`."""
        if not self.filter(name=seam.name, latched_at__isnull=False).exists():
            raise IllegalMove(f"{seam.name} is not latched: there is nothing to acknowledge")
        values = {"latched_at": None, "latched_why": ""}
        return self._compare_and_keep(seam, expected_version, values, Act.ACKNOWLEDGE, by, why)

    def compare_and_reshuffle(self, seam: Seam, expected_version: int, by: Mover, why: str) -> Move:
        """Give the seam a new salt; it stays where it is. Raises as `compare_and_move`."""
        return self._compare_and_keep(seam, expected_version, {"salt": secrets.token_hex(8)}, Act.RESHUFFLE, by, why)

    def _compare_and_keep(
        self, seam: Seam, expected_version: int, values: dict[str, Any], act: Act, by: Mover, why: str
    ) -> Move:
        why = check_reason(why)
        alias = router.db_for_write(self.model)
        with transaction.atomic(using=alias):
            row = self.using(alias).filter(name=seam.name).select_for_update(no_key=True).first()
            if row is None or not row.stage:
                raise IllegalMove(f"{seam.name} was never moved: there is nothing to {act}")
            self.using(alias)._write(seam.name, expected_version, values, exists=True)  # noqa: SLF001 - our own
            return Move.objects.append(seam.name, expected_version + 1, row.placement, row.placement, by, why, act)

    def _write(self, name: str, version: int, values: dict[str, Any], *, exists: bool) -> None:
        values = values | {"version": version + 1, "modified": timezone.now()}
        if exists:
            if not self.filter(name=name, version=version).update(**values):
                raise StaleStage(_stale(self.model, name))
        else:
            try:
                with transaction.atomic(using=self.db):
                    # An INSERT and nothing else: `save()` would end here again.
                    self.bulk_create([self.model(name=name, superusers=False, **values)])
            except IntegrityError:
                raise StaleStage(_stale(self.model, name)) from None
        transaction.on_commit(self.model(name=name).flush, using=self.db)


class AbstractSeamFlag(AbstractUserFlag):  # type: ignore[misc] # waffle's classes are Any to mypy
    """A waffle flag that may hold the stage of a seam. With an empty stage it is an ordinary flag."""

    everyone: bool | None  # waffle's columns, told to mypy
    percent: Decimal | None

    stage = models.CharField(max_length=16, choices=STAGE_CHOICES, blank=True, default="", editable=False)
    version = models.PositiveBigIntegerField(default=0, editable=False)
    share_buckets = models.PositiveIntegerField(default=0, editable=False)
    salt = models.CharField(max_length=32, blank=True, default="", editable=False)
    latched_at = models.DateTimeField(null=True, blank=True, editable=False)
    latched_why = models.TextField(blank=True, default="", editable=False)

    objects = FlagManager.from_queryset(SeamFlagQuerySet)()

    MOVED_FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"stage", "version", "share_buckets", "salt", "latched_at", "latched_why", "everyone", "percent"}
    )

    class Meta(AbstractUserFlag.Meta):  # type: ignore[misc] # as above
        abstract = True
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                name="%(app_label)s_%(class)s_stage_agrees_with_everyone",
                # `everyone = false` alone is NULL for a NULL, and a CHECK lets NULL pass: hence both halves.
                condition=(
                    models.Q(stage="", share_buckets=0)
                    | models.Q(stage__in=["off", "shadow"], everyone__isnull=False, everyone=False, share_buckets=0)
                    | models.Q(stage="ramp", everyone__isnull=True, share_buckets__lte=BUCKETS)
                    | models.Q(stage__in=["on", "retired"], everyone__isnull=False, everyone=True, share_buckets=0)
                ),
            ),
        ]

    @property
    def placement(self) -> Placement | None:
        """Where the seam of this name stands: its stage, or its declared default. None for an ordinary
        flag.
        """
        if self.stage:
            return Placement(Stage(self.stage), self.share_buckets)
        seam = declared_seams().get(self.name)
        return seam.default if seam else None

    @classmethod
    def get(cls, name: str) -> Self:
        """The flag of that name: a seam from the table, an ordinary flag as waffle reads it."""
        if name not in declared_seams():
            flag: Self = super().get(name)
            if not flag.stage:
                return flag
        try:
            return cls.get_from_db(name)  # type: ignore[no-any-return]
        except cls.DoesNotExist:
            return cls(name=name)

    @classmethod
    def get_all(cls) -> list[Self]:
        """Every flag from the table, and the declared seams that have no row yet."""
        rows: list[Self] = cls.get_all_from_db()
        return rows + [cls(name=name) for name in declared_seams().keys() - {row.name for row in rows}]

    def is_active(self, request: Any, read_only: bool = False) -> bool | None:  # noqa: FBT001, FBT002 - waffle's
        """For a seam: whether the request's user is served by the factory, whatever else the request says."""
        if self.placement is None:
            return super().is_active(request, read_only=read_only)  # type: ignore[no-any-return]
        return self.is_active_for_user(getattr(request, "user", None))

    def is_active_for_user(self, user: Any) -> bool | None:
        """For a seam: whether this user is served by the factory. A visitor without an id is in no share."""
        placement = self.placement
        if placement is None:
            return super().is_active_for_user(user)  # type: ignore[no-any-return]
        if user is None or user.pk is None:
            return path_for(placement, Standing(bucket=None)) == "factory"
        user_id = UserId(user.pk)
        chosen = self.pk is not None and type(self).objects.with_chosen(user_id).get(pk=self.pk).chosen
        standing = Standing(
            bucket=bucket_of(self.name, self.salt, user_id),
            denied=self.name in DeniedUser.objects.seams_of(user_id),
            chosen=chosen,
        )
        return path_for(placement, standing) == "factory"

    def save(self, **options: Any) -> None:
        """Save an ordinary flag as waffle does. A seam's stage is never written by this.

        On a seam, a change of `everyone` or `percent` is waffle's own API and becomes a move with its audit
        row: True is `on`, False is `off`, None is `ramp` (share: `percent`, else 0). Raises what
        `compare_and_move` raises, and IllegalMove where a stage field was assigned.
        """
        stored = None if self._state.adding else type(self).objects.filter(pk=self.pk).first()
        if self.placement is None and (stored is None or not stored.stage):
            super().save(**options)
            return
        with transaction.atomic():
            if stored is None:
                self._insert_seam(options)
            else:
                self._update_seam(stored, options)

    def _insert_seam(self, options: dict[str, Any]) -> None:
        seam = declared_seam(self.name)
        if self.stage not in {"", seam.default_stage}:
            raise IllegalMove(f"the stage of {self.name} is written by moves.move alone; create the flag without one")
        asked = _asked_of_waffle(self) if self.everyone is not None or self.percent else None
        self.stage, self.everyone, self.percent = seam.default_stage.value, seam.default_stage.everyone, None
        self.version, self.superusers, self.salt = 0, False, secrets.token_hex(8)
        super().save(**options)
        self._follow(asked)

    def _update_seam(self, stored: "AbstractSeamFlag", options: dict[str, Any]) -> None:
        names = set(options.pop("update_fields", None) or self._plain_fields() | {"everyone", "percent"})
        written = names & {"everyone", "percent"}
        changed = any(getattr(self, name) != getattr(stored, name) for name in written)
        assigned = (self.stage, self.share_buckets) != (stored.stage, stored.share_buckets)
        if assigned and self.version == stored.version:  # an old copy's stage differs without anyone's doing
            raise IllegalMove(f"the stage of {self.name} is written by moves.move alone, not by save()")
        super().save(update_fields=(names & self._plain_fields()) | {"modified"}, **options)
        self._follow(_asked_of_waffle(self) if changed else None)

    def _follow(self, asked: Placement | None) -> None:
        """Carry out what was asked through waffle's API, then show what the table says."""
        if asked is not None and asked != type(self).objects.get(pk=self.pk).placement:
            why = f"waffle asked for {asked}"
            type(self).objects.compare_and_move(declared_seam(self.name), self.version, asked, WAFFLE_API, why)
        self.refresh_from_db(fields=self.MOVED_FIELDS)

    def _plain_fields(self) -> set[str]:
        return {field.name for field in self._meta.concrete_fields if not field.primary_key} - self.MOVED_FIELDS


class Flag(AbstractSeamFlag):
    """The flag model of this project. The name is kept, so that `user.flag_set` goes on working."""

    class Meta(AbstractSeamFlag.Meta):
        swappable = "WAFFLE_FLAG_MODEL"


def _asked_of_waffle(flag: AbstractSeamFlag) -> Placement:
    """What a write of `everyone` or `percent` asks for. The column `percent` is a number or its text."""
    if flag.everyone is None:
        return Placement.of(Stage.RAMP, Decimal(str(flag.percent or 0)))
    return Placement(Stage.ON if flag.everyone else Stage.OFF)


def columns_of(to: Placement) -> dict[str, Any]:
    """The stage as columns, with what waffle's own columns say of it."""
    ramp = to.stage is Stage.RAMP
    return {
        "stage": to.stage.value,
        "share_buckets": to.share_buckets,
        "everyone": to.stage.everyone,
        "percent": min(round(to.percent, 1), _LARGEST_WAFFLE_PERCENT) if ramp else None,
    }


def _overtook_upwards(seam: str, expected_version: int, to: Placement) -> bool:
    """Whether a move to `to` was one down for who saw that version, and only moves up came since."""
    since = list(Move.objects.filter(seam=seam, version__gt=expected_version).order_by("version"))
    only_ups = all(move.act == Act.MOVE and move.went_up for move in since)
    return bool(since) and only_ups and since[0].came_from.is_above(to)


def _stale(model: type[AbstractSeamFlag], seam: str) -> str:
    row = model.objects.filter(name=seam).first()
    last = Move.objects.filter(seam=seam).first()
    now = f"it is {row.placement} now, at version {row.version}" if row else "it has no row any more"
    who = f", moved by {last.by_name}: {last.why}" if last else ""
    return f"{seam} was moved since you looked: {now}{who}. Look again, then decide"
