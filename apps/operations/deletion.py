"""Deleting a user, to the end: a first commit after which nothing more is written for them, then steps that remove all.

The first commit cancels and fences the user's runs, closes their ledgers, and removes the account and its tokens, so
that appends still under way are refused and sockets are closed within `revalidate_s`. A `Tombstone` stays. The steps
are short transactions which anybody may take, in any process, after any kill; what there is to remove is not listed by
hand: it is every table of Turnout's with a `user_id`. All functions are synchronous, but for the keeper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import models, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from apps.chat.attachments import remove_files
from apps.chat.models import ApiToken, Attachment
from apps.execution.models import Run, UserBudget
from apps.execution.states import RunStatus
from apps.execution.tasks import cancel_run
from apps.operations.models import ProcessReport
from apps.realtime.database import DatabaseThreads
from apps.realtime.erasing import blank_segments
from apps.realtime.models import RunLedger, Segment, Stream, Tombstone, Turn
from apps.vocabulary import UserId

# Sockets and commands that began before are gone after this: they are looked at every 2 s, and a command is short.
GRACE_S = 10.0
NOBODY = 0  # whose leaked events these were is not kept either

_JOB = "deletion"
_KEPT = frozenset({"realtime.Tombstone"})
# What proves whose an event is goes after the events; the budget, whose lock guards all, goes last.
_LAST = (
    "realtime.Segment",
    "realtime.Stream",
    "realtime.RunLedger",
    "execution.Run",
    "execution.UserBudget",
)


class UserUnknown(LookupError):  # noqa: N818 - names what was met
    """There is no such user, or they were deleted before."""


def begin_deletion(user_id: UserId) -> None:
    """The first commit. Raises UserUnknown when there is neither an account nor a row of this user."""
    with transaction.atomic():
        user = get_user_model().objects.filter(pk=user_id).first()
        if user is None and not what_remains(user_id):
            raise UserUnknown(f"there is no user {user_id}")
        _end_runs(user_id)
        list(Stream.objects.select_for_update(no_key=True).filter(pk=user_id))
        Tombstone.objects.update_or_create(user_id=user_id, defaults={"asked_at": Now(), "finished_at": None})
        ApiToken.objects.filter(user_id=user_id).delete()
        if user is not None:
            _forget_logins(user.get_username())
            user.delete()


def _end_runs(user_id: UserId) -> None:
    """Cancel, fence and close all of the user's runs. Their terminal events would be removed with the rest."""
    budget = UserBudget.objects.locked(user_id)
    runs = Run.objects.owned(user_id)
    for run_id in runs.running().values_list("pk", flat=True):
        transaction.on_commit(partial(cancel_run.enqueue, run_id), robust=True)
    runs.open().update(
        status=RunStatus.CANCELLED,
        cancel_requested=True,
        fence=F("fence") + 1,
        ended_at=timezone.now(),
        reserved_tokens=0,
    )
    for status in (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING):
        setattr(budget, status, 0)
    budget.turn_at, budget.reserved_tokens = None, 0
    budget.save(update_fields=["queued", "running", "waiting", "turn_at", "reserved_tokens"])
    RunLedger.objects.filter(user_id=user_id, is_open=True).update(
        is_open=False, cancel_requested=True, fence=F("fence") + 1
    )


def _forget_logins(username: str) -> None:
    """What the guard against guessed passwords remembers by name and address."""
    for name in ("AccessAttempt", "AccessFailureLog", "AccessLog"):
        if apps.is_installed("axes"):
            apps.get_model("axes", name)._default_manager.filter(username=username).delete()  # noqa: SLF001 - Django's own public name


def deletion_step(user_id: UserId, rows: int) -> int:
    """Remove up to `rows` rows of a deleted user; returns how many. 0: nothing is left at this moment."""
    with transaction.atomic():
        list(Stream.objects.select_for_update(no_key=True).filter(pk=user_id))  # trimming and erasing wait
        leaked = list(Segment.objects.filter(leaked_from=user_id).order_by("pk").values_list("pk", flat=True)[:rows])
        if leaked:
            blank_segments(leaked)
            Segment.objects.filter(pk__in=leaked).update(leaked_from=NOBODY)
            return len(leaked)
        for model in owned_models():
            keys = list(_rows(model, user_id).order_by("pk").values_list("pk", flat=True)[:rows])
            if keys:
                if model is Attachment:  # their contents may lie in a storage of the installation's
                    remove_files(list(Attachment.objects.filter(pk__in=keys)))
                _manager(model).filter(pk__in=keys).delete()
                return len(keys)
    return 0


def finish_deletion(user_id: UserId, grace_s: float) -> bool:
    """State that a user is gone, if nothing is left and the first commit was `grace_s` seconds ago; whether it is so.

    Before, a socket or command that began earlier may still leave a row.
    """
    with transaction.atomic():
        due = Tombstone.objects.filter(pk=user_id, asked_at__lte=Now() - timedelta(seconds=grace_s))
        return not what_remains(user_id) and bool(due.update(finished_at=Now()))


def delete_now(user_id: UserId, rows: int) -> Mapping[str, int]:
    """Take all steps; finish at once if no process lives that could still write. Returns what there was, by kind."""
    before = what_remains(user_id)
    while deletion_step(user_id, rows):
        pass
    finish_deletion(user_id, GRACE_S if somebody_lives() else 0.0)
    return before


def somebody_lives() -> bool:
    """Whether any process has not ended by its own word."""
    return ProcessReport.objects.filter(ending="").exists()


def unfinished(most: int) -> list[UserId]:
    """Users who are being deleted, oldest first."""
    users = Tombstone.objects.filter(finished_at=None).order_by("asked_at").values_list("user_id", flat=True)
    return [UserId(user_id) for user_id in users[:most]]


def what_remains(user_id: UserId) -> Mapping[str, int]:
    """Rows that still hold something of this user, by kind; empty when nothing does."""
    counts = {model._meta.label: _rows(model, user_id).count() for model in owned_models()}  # noqa: SLF001 - as above
    counts["events leaked to others"] = Segment.objects.filter(leaked_from=user_id).count()
    return {kind: number for kind, number in counts.items() if number}


def owned_models() -> Sequence[type[models.Model]]:
    """Every table of Turnout's whose rows belong to a user, in the order in which rows may go."""
    found = {
        model._meta.label: model  # noqa: SLF001 - as above
        for model in apps.get_models()
        if model.__module__.startswith("apps.")
        and model._meta.label not in _KEPT  # noqa: SLF001 - as above
        and any(field.name == "user_id" for field in model._meta.fields)  # noqa: SLF001 - as above
    }
    first = [model for label, model in found.items() if label not in _LAST]
    return [*sorted(first, key=_depth), *(found[label] for label in _LAST)]


def _depth(model: type[models.Model]) -> tuple[bool, str]:
    """Rows that point to other rows of the same user go before those."""
    return not any(field.is_relation for field in model._meta.fields), model._meta.label  # noqa: SLF001 - as above


def _rows(model: type[models.Model], user_id: UserId) -> models.QuerySet[Any]:
    return _manager(model).filter(user_id=user_id)


def _manager(model: type[models.Model]) -> models.Manager[Any]:
    return model._default_manager  # noqa: SLF001 - as above


@dataclass(slots=True)
class DeletionKeeper:
    """Goes on with every deletion that was begun, wherever. One process takes each turn."""

    database: DatabaseThreads
    every_s: float
    rows: int
    steps: int
    removed: int = 0

    async def turn(self) -> None:
        """At most `steps` transactions; the rest in later turns."""
        if not await self.database.call(Turn.objects.all().take, _JOB, self.every_s):
            return
        left = self.steps
        for user_id in await self.database.call(unfinished, self.steps):
            while left and (removed := await self.database.call(deletion_step, user_id, self.rows)):
                self.removed += removed
                left -= 1
            if not left:
                return
            await self.database.call(finish_deletion, user_id, GRACE_S)
            left -= 1
