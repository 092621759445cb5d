import itertools
from dataclasses import replace

import pytest

from apps.rollout.response import Breach, Response, responses_to
from apps.rollout.stages import Stage
from tests.rollout.paths import BILLING

PLAIN = BILLING
REPLAYABLE = replace(BILLING, replayable=True)
LEAKS = replace(BILLING, replayable=True, legacy_leaks=True)


@pytest.mark.parametrize("stage", [Stage.RAMP, Stage.ON])
def test_a_worse_rate_goes_to_shadow_and_to_off_where_that_cannot_be(stage):
    assert responses_to(Breach.RATE, stage, REPLAYABLE) == (Response.TO_SHADOW, Response.TO_OFF)
    assert responses_to(Breach.RATE, stage, PLAIN) == (Response.TO_OFF,)
    assert responses_to(Breach.FACTORY_ISOLATION, stage, REPLAYABLE) == (Response.TO_OFF,)


def test_from_on_nobody_is_moved_to_a_legacy_path_that_leaks():
    assert responses_to(Breach.RATE, Stage.ON, LEAKS) == (Response.ALARM,)
    assert responses_to(Breach.FACTORY_ISOLATION, Stage.ON, LEAKS) == (Response.REFUSE_WORK,)


def test_a_retired_seam_has_no_legacy_to_go_to():
    assert responses_to(Breach.RATE, Stage.RETIRED, PLAIN) == (Response.ALARM,)
    assert responses_to(Breach.FACTORY_ISOLATION, Stage.RETIRED, PLAIN) == (Response.REFUSE_WORK,)


@pytest.mark.parametrize(("stage", "seam"), list(itertools.product(Stage, (PLAIN, REPLAYABLE, LEAKS))))
def test_what_legacy_does_wrong_moves_nobody_to_legacy_and_keeps_nobody_from_moving_up(stage, seam):
    assert responses_to(Breach.LEGACY_ISOLATION, stage, seam) == ()
