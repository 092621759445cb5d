from decimal import Decimal

import pytest

from apps.rollout.audit import Move
from apps.rollout.models import Flag
from apps.rollout.moves import move
from apps.rollout.seams import UnknownSeam
from apps.rollout.stages import Placement, Stage
from apps.rollout.testing import override_stage

pytestmark = pytest.mark.django_db


def stage_of(name):
    return Flag.get(name).placement


@pytest.mark.parametrize("stage", list(Stage))
def test_a_test_can_put_a_seam_at_any_stage_and_finds_it_as_it_was(stage):
    with override_stage("billing", stage, Decimal(10) if stage is Stage.RAMP else None):
        assert stage_of("billing").stage is stage
    assert stage_of("billing") == Placement(Stage.OFF)
    assert not Flag.objects.exists()
    assert not Move.objects.exists()


def test_a_row_that_was_there_is_restored_with_share_and_salt_when_the_test_fails(anna):
    move("billing", 0, Placement.of(Stage.RAMP, Decimal("12.5")), anna, "start")
    before = Flag.objects.get()
    with pytest.raises(ZeroDivisionError), override_stage("billing", Stage.ON):
        raise ZeroDivisionError
    after = Flag.objects.get()
    assert (after.placement, after.salt, after.percent, after.everyone) == (
        before.placement,
        before.salt,
        before.percent,
        None,
    )
    assert after.version > before.version, "who pinned the stage within the block can tell"


@override_stage("billing", Stage.ON)
def test_it_decorates_a_test():
    assert stage_of("billing") == Placement(Stage.ON)


def test_a_misspelt_seam_fails_instead_of_testing_nothing():
    with pytest.raises(UnknownSeam), override_stage("biling", Stage.ON):
        pass
