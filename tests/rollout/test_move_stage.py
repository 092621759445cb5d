import json

import pytest
from django.core.management import CommandError, call_command

from apps.rollout.audit import Move
from apps.rollout.models import Flag
from apps.rollout.moves import alarm, move
from apps.rollout.stages import Placement, Stage
from apps.rollout.watch import GUARD

pytestmark = pytest.mark.django_db


def test_a_stage_is_moved_from_the_command_line_with_exit_0(capsys):
    call_command("move_stage", "billing", "ramp", "--reason", "first users", "--percent", "12.5")
    assert capsys.readouterr().out == "billing went from off to ramp at 12.5 % (version 1)\n"
    row = Move.objects.get()
    assert (str(row.went_to), row.why, row.by_user_id) == ("ramp at 12.5 %", "first users", None)
    assert row.by_name.endswith("(command line)")


def test_machines_get_one_json_object(capsys):
    call_command("move_stage", "billing", "on", "--json", reason="go")
    out = json.loads(capsys.readouterr().out)
    assert out.pop("by").endswith("(command line)")
    assert out == {"seam": "billing", "moved": True, "from": "off", "to": "on", "version": 1, "why": "go"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["billing", "off", "--reason", "again"], "IllegalMove"),
        (["billing", "on", "--reason", " "], "ReasonMissing"),
        (["billing", "ramp", "--reason", "go"], "IllegalShare"),
        (["billing", "retired", "--reason", "go"], "IllegalMove"),
        (["billing", "on", "--reason", "go", "--expected-version", "3"], "StaleStage"),
    ],
)
def test_a_refused_move_exits_1_and_says_why(capsys, arguments, error):
    for flags in ([], ["--json"]):
        with pytest.raises(SystemExit) as exit_:
            call_command("move_stage", *arguments, *flags)
        assert exit_.value.code == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"{error}: ")
    assert (json.loads(captured.out)["error"], json.loads(captured.out)["moved"]) == (error, False)
    assert not Flag.objects.exists()


def test_an_unknown_seam_exits_2_and_names_the_known_ones(capsys):
    with pytest.raises(SystemExit) as exit_:
        call_command("move_stage", "nowhere", "on", reason="go")
    assert exit_.value.code == 2
    assert "declared are: billing, ranking, search" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["billing", "on"], ["billing", "sideways", "--reason", "go"]])
def test_a_call_without_reason_or_with_an_unknown_stage_is_no_call(arguments):
    with pytest.raises(CommandError):
        call_command("move_stage", *arguments)


def test_an_expected_version_lets_a_script_move_only_what_it_saw(anna):
    move("billing", 0, Placement(Stage.ON), anna, "go")
    call_command("move_stage", "billing", "off", reason="back", expected_version=1)
    assert Flag.objects.get().version == 2


def test_a_breach_can_be_acknowledged_with_the_move_that_follows_it(anna, capsys):
    alarm("billing", 0, GUARD, "failures: many")
    with pytest.raises(SystemExit):
        call_command("move_stage", "billing", "ramp", "--percent", "1", "--reason", "mended")
    assert capsys.readouterr().err.startswith("SeamLatched: ")
    call_command("move_stage", "billing", "ramp", "--percent", "1", "--reason", "mended", "--acknowledge")
    assert capsys.readouterr().out == "billing went from off to ramp at 1 % (version 3)\n"


def test_a_move_that_is_refused_leaves_the_breach_unacknowledged(capsys):
    alarm("billing", 0, GUARD, "failures: many")
    for stage in ("off", "retired"):
        with pytest.raises(SystemExit):
            call_command("move_stage", "billing", stage, "--reason", "mended", "--acknowledge")
    assert Flag.objects.get(name="billing").latched_why == "failures: many"
