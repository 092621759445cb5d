import pytest
from django.core.exceptions import ImproperlyConfigured

from apps.rollout.checks import check_rows, check_seams, check_waffle_settings
from apps.rollout.models import Flag
from apps.rollout.moves import move
from apps.rollout.seams import Scope, Seam, declared_seams
from apps.rollout.stages import Placement, Stage


def ids(messages):
    return [message.id for message in messages]


def test_seams_that_lead_somewhere_pass():
    assert check_seams() == check_waffle_settings() == []


@pytest.mark.parametrize(
    "path", ["tests.rollout.paths.GONE", "tests.rollout.paths.NO_SEAMS", "tests.rollout.paths.TWICE"]
)
def test_seams_that_cannot_be_read_are_an_error(settings, path):
    settings.TURNOUT_SEAMS = path
    assert ids(check_seams()) == ["turnout.E101"]
    with pytest.raises(ImproperlyConfigured, match="TURNOUT_SEAMS"):
        declared_seams()


def test_a_missing_legacy_path_and_an_unknown_requirement_are_errors(settings):
    settings.TURNOUT_SEAMS = "tests.rollout.paths.BROKEN"
    assert ids(check_seams()) == ["turnout.E102", "turnout.E103"]


def test_a_project_without_seams_is_fine(settings):
    del settings.TURNOUT_SEAMS
    assert check_seams() == []


def test_settings_that_let_visitors_choose_flags_are_warned_of(settings):
    settings.WAFFLE_OVERRIDE = True
    settings.WAFFLE_CREATE_MISSING_FLAGS = True
    assert ids(check_waffle_settings()) == ["turnout.W101", "turnout.W102"]


def test_a_flag_model_that_cannot_hold_a_stage_is_an_error(settings, monkeypatch):
    monkeypatch.setattr("apps.rollout.checks.get_waffle_flag_model", lambda: type("Other", (), {}))
    assert ids(check_waffle_settings()) == ["turnout.E104"]
    assert check_rows(databases=["default"]) == []


@pytest.mark.django_db
def test_a_stage_of_an_undeclared_seam_and_testing_mode_in_production_are_warned_of(settings, anna):
    settings.DEBUG = False
    move("billing", 0, Placement(Stage.ON), anna, "go")
    Flag.objects.create(name="beta", testing=True)
    Flag.objects.filter(name="billing").update(testing=True)  # means nothing for a seam
    assert ids(check_rows(databases=["default"])) == ["turnout.W104"]
    settings.TURNOUT_SEAMS = None
    assert set(ids(check_rows(databases=["default"]))) == {"turnout.W103", "turnout.W104"}
    settings.DEBUG = True
    assert ids(check_rows(databases=["default"])) == ["turnout.W103"]
    assert check_rows(databases=None) == []


@pytest.mark.parametrize("stage", [Stage.SHADOW, Stage.RAMP, Stage.RETIRED])
def test_only_off_and_on_can_be_a_default(stage):
    with pytest.raises(ImproperlyConfigured, match="the default stage is off or on"):
        Seam(name="x", legacy="a.b", factory="c.d", scope=Scope.RUN, default_stage=stage)
