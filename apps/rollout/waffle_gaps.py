"""Two gaps of waffle 5.0.0 that no method of a flag model can close; they need Django's signals.

A queryset deletes rows without calling the model's `delete`, and `clear()` on a flag's users or groups
leaves waffle's cache as it was, so that those who were cleared keep the flag for 300 s.
"""

from typing import Any

from django.db.models import Model
from django.db.models.signals import m2m_changed, pre_delete
from waffle import get_waffle_flag_model

from apps.rollout.models import AbstractSeamFlag
from apps.rollout.seams import declared_seams


class SeamInUse(Exception):  # noqa: N818 - it names what is so
    """A flag that holds the stage of a declared seam is not deleted: the seam would fall back to its
    default.
    """


def close_gaps() -> None:
    """Watch the flag model of this project. Called once, when Django is ready."""
    model = get_waffle_flag_model()
    if issubclass(model, AbstractSeamFlag):  # else a system check says what is wrong
        pre_delete.connect(refuse_deleting_a_seam, sender=model)
        for through in (model.users.through, model.groups.through):
            m2m_changed.connect(forget_cleared_members, sender=through)


def refuse_deleting_a_seam(instance: AbstractSeamFlag, **_: Any) -> None:
    """Raises SeamInUse before the row is gone."""
    if instance.name in declared_seams():
        raise SeamInUse(
            f"{instance.name} is a declared seam. Take it out of TURNOUT_SEAMS first; in tests use "
            "apps.rollout.testing.override_stage instead of waffle's override_flag"
        )


def forget_cleared_members(instance: Model, action: str, **_: Any) -> None:
    """After `clear()`, drop the cached members of the flag, or of every flag where a user or group was
    cleared.
    """
    if action == "post_clear":
        flags = [instance] if isinstance(instance, AbstractSeamFlag) else get_waffle_flag_model().objects.all()
        for flag in flags:
            flag.flush()
