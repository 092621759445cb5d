"""Plans: one callable decides what a user may hold, and a wrong one is named before anybody is served."""

from dataclasses import replace

import pytest

from apps.vocabulary import Identity, UserId
from project.configuration import Configuration, ConfigurationError
from project.limits import default_plan, plans

ANN = Identity(UserId(1), "ann")
BOB = Identity(UserId(2), "bob")
BOUNDS = Configuration(tokens_per_day=1_000)


def small_for_ann(identity, default):
    return replace(default, tokens_per_day=10) if identity.user_id == ANN.user_id else default


def wrong(_identity, _default):
    return {"tokens_per_day": 10}


def test_without_a_plan_the_settings_hold_for_everybody():
    assert plans(BOUNDS, "")(ANN) == default_plan(BOUNDS)
    assert default_plan(BOUNDS).tokens_per_day == 1_000


def test_a_plan_gives_one_user_other_limits_and_nobody_else():
    plan = plans(BOUNDS, f"{__name__}.small_for_ann")
    assert plan(ANN).tokens_per_day == 10
    assert plan(BOB) == default_plan(BOUNDS)


@pytest.mark.parametrize("path", ["nowhere.at_all", "small_for_ann", f"{__name__}.missing", f"{__name__}.BOUNDS"])
def test_a_path_that_names_no_callable_is_an_error_that_names_it(path):
    with pytest.raises(ConfigurationError, match="TURNOUT_PLAN"):
        plans(BOUNDS, path)


def test_a_plan_that_gives_something_else_says_what_it_must_give():
    with pytest.raises(TypeError, match="PlanLimits"):
        plans(BOUNDS, f"{__name__}.wrong")(ANN)
