"""The two seams that ship."""

from apps.rollout.adapter import resolve
from apps.rollout.checks import check_seams
from apps.rollout.stages import Stage
from project.seams import BRIDGE_SEAM, ENGINE_SEAM, SEAMS


def test_both_seams_default_to_on_and_say_that_their_old_paths_leak():
    assert {seam.name for seam in SEAMS} == {"execution_engine", "websocket_bridge"}
    assert all(seam.default_stage is Stage.ON and seam.legacy_leaks for seam in (ENGINE_SEAM, BRIDGE_SEAM))


def test_every_path_that_they_name_exists(settings):
    settings.TURNOUT_SEAMS = "project.seams.SEAMS"
    assert check_seams() == []
    for seam in SEAMS:
        resolve(seam.factory)
