import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.utils import timezone

from apps.rollout.audit import Move, MoveQuerySet
from apps.rollout.mismatches import MismatchShape, Opinion
from apps.rollout.models import LegacyReach
from apps.rollout.moves import alarm, move
from apps.rollout.readiness import CodeBase, code_base, readiness
from apps.rollout.seams import declared_seams
from apps.rollout.stages import Placement, Stage
from apps.rollout.watch import GUARD
from tests.docs.pages import page
from tests.rollout.paths import BILLING, SEARCH

pytestmark = pytest.mark.django_db
OPEN = []


def count_open():
    return len(OPEN)


@pytest.fixture
def code(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "views.py").write_text("x = 1\n")
    return CodeBase(tmp_path, (tmp_path / "shop",), frozenset())


@pytest.fixture
def seam(monkeypatch):
    declared = replace(BILLING, open_work="tests.rollout.test_readiness.count_open")
    monkeypatch.setattr("tests.rollout.paths.SEAMS", (declared, SEARCH))
    OPEN.clear()
    return declared


@pytest.fixture
def ready(seam, anna):
    """At on for twenty days, and nothing against it."""
    move(seam.name, 0, Placement(Stage.ON), anna, "go")
    super(MoveQuerySet, Move.objects.all()).update(at=timezone.now() - timedelta(days=20))
    return seam


def broken(code, name=BILLING.name):
    return {line.name: line for line in readiness(name, code=code).broken}


def test_a_seam_with_nothing_against_it_may_lose_its_legacy_code(ready, code):
    report = readiness(ready.name, code=code)
    assert report.broken == ()
    assert report.lines[0].detail.startswith("20.0 days at on since ")


def test_a_seam_that_serves_anybody_by_legacy_is_not_ready(seam, anna, code):
    move(seam.name, 0, Placement.of(Stage.RAMP, Decimal(99)), anna, "go")
    assert broken(code).keys() == {"Served by the factory", "Legacy unreachable"}


def test_the_days_count_from_the_last_time_that_it_came_up_to_on(ready, anna, code):
    move(ready.name, 1, Placement(Stage.OFF), anna, "doubt")
    move(ready.name, 2, Placement(Stage.ON), anna, "again")
    assert broken(code)["Served by the factory"].next_step == "wait 14.0 more days"


def test_going_back_from_retired_does_not_begin_the_days_anew(ready, anna, code):
    move(ready.name, 1, Placement(Stage.RETIRED), anna, "done")
    assert broken(code) == {}
    move(ready.name, 2, Placement(Stage.ON), anna, "not quite")
    assert broken(code) == {}


def test_a_call_that_reached_legacy_is_named_with_its_time(ready, code):
    LegacyReach.objects.count(ready.name)
    assert "1 calls since on (0 refused), last " in broken(code)["Legacy unreachable"].detail


def test_work_under_way_on_legacy_and_not_knowing_of_it_both_hold(ready, code, monkeypatch):
    OPEN.append("a run")
    assert broken(code)["No work under way on legacy"].detail.startswith("1 pieces")
    monkeypatch.setattr("tests.rollout.paths.SEAMS", (replace(BILLING, open_work=""), SEARCH))
    assert "nobody can tell" in broken(code)["No work under way on legacy"].detail


def test_references_outside_of_the_seam_are_named(ready, code):
    (code.base / "shop" / "views.py").write_text("from tests.rollout.paths import old_billing\n")
    assert broken(code)["No references to legacy"].detail == "1 outside of the seam: shop/views.py:1"


def test_a_file_that_cannot_be_read_holds(ready, code):
    (code.base / "shop" / "views.py").write_text("old_billing(\n")
    assert "could not be read" in broken(code)["No references to legacy"].detail


def test_open_shapes_expired_mutes_and_a_latch_hold(ready, code):
    day = timezone.now().date()
    MismatchShape.objects.create(seam=ready.name, shape="text differs", result="mismatched")
    MismatchShape.objects.create(
        seam=ready.name, shape="order", result="mismatched", opinion=Opinion.MUTED, until=day - timedelta(days=1)
    )
    alarm(ready.name, 1, GUARD, "failures: many")
    found = broken(code)
    assert "text differs" in found["No open mismatch shapes"].detail
    assert found["Mutes are in force"].detail == "1 past their end: order"
    assert found["No latched breach"].detail == "failures: many"


def test_the_projects_own_code_is_searched_and_its_seams_may_name_legacy(settings):
    settings.TURNOUT_SEAMS = "project.seams.SEAMS"
    declared_seams()  # imports the file that declares them
    found = code_base(BILLING)
    assert {folder.relative_to(found.base).as_posix() for folder in found.folders} >= {"project", "apps/chat"}
    assert {path.relative_to(found.base).as_posix() for path in found.left_out} >= {
        "project/seams.py",
        "tests/rollout/paths.py",
    }


def test_every_line_is_explained_in_the_reference_in_the_order_in_which_it_is_shown(seam, code):
    explained = [row[0] for row in page("reference/commands.md").rows("`manage.py audit_rollout`")]
    assert explained == [line.name for line in readiness(seam.name, code=code).lines]


def run(capsys, *arguments):
    status = 0
    try:
        call_command("audit_rollout", *arguments)
    except SystemExit as ended:
        status = ended.code
    return status, capsys.readouterr().out


def test_the_command_prints_a_line_for_each_and_exits_by_what_it_found(seam, capsys):
    status, text = run(capsys, seam.name)
    assert status == 1
    assert text.splitlines()[0].startswith("Served by the factory        BROKEN  the stage is off")
    assert text.splitlines()[-1].startswith("Rollout of billing: ")
    status, text = run(capsys, seam.name, "--json")
    assert (status, json.loads(text)["exit"]) == (1, 1)


def test_a_seam_that_is_not_declared_could_not_be_looked_at(capsys):
    assert run(capsys, "nope")[0] == 2
    status, text = run(capsys, "nope", "--json")
    assert (status, json.loads(text)["lines"]) == (2, [])
