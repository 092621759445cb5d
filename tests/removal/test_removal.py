"""The end of the migration, rehearsed on a copy: without the legacy room, then without the rollout room, all holds.

A share of the suite is run in each copy: checks, migrations, the rules of the house, the runs' service on a real log,
and a chat of twelve users from end to end on a real server. `make proof` runs the whole suite there, but for the tests
of the documentation, whose pages tell of the rooms.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.removal import STEPS, NothingToRemoveError, drop_lines, drop_text, move, remove

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("apps", "project", "tests", "tools", "benchmarks", "docs", "requirements")
SHARE = (
    "tests/test_house.py",
    "tests/execution/test_service.py",
    "tests/execution/test_recovery.py",
    "tests/project/test_configuration.py",
    "tests/promises/test_isolation.py",
)
LEFT_OUT_OF_THE_WHOLE = ("tests/docs", "tests/removal", "tests/browser")


def copy_to(folder):
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc", "vendor")
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder / path.name)
    return folder


def run(folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    environment |= {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-6_000:]}\n{done.stderr[-3_000:]}"
    return done.stdout


def bounds_that_nothing_reads(folder):
    """Among them some that are read by a name that is put together: those are the same before a removal and after."""
    configuration = (folder / "project/configuration.py").read_text(encoding="utf-8")
    bounds = re.findall(r"^    (\w+): \w+ = _bound\(", configuration, flags=re.MULTILINE)
    assert len(bounds) > 50, "or they are written in another way by now"
    code = "".join(path.read_text(encoding="utf-8") for path in (folder / "project").rglob("*.py"))
    return [name for name in bounds if not re.search(rf"\.{name}\b", code)]


@pytest.fixture
def suite(request):
    if request.config.getoption("--proof"):
        return ("tests", *(f"--ignore={name}" for name in LEFT_OUT_OF_THE_WHOLE))
    return SHARE


@pytest.mark.timeout(0)  # `make proof` runs the suite twice here; pytest within has timeouts of its own
@pytest.mark.parametrize("gone", [("legacy",), ("legacy", "rollout")], ids=["legacy", "legacy and rollout"])
def test_without_the_room_the_suite_is_green(tmp_path, gone, suite):
    folder = copy_to(tmp_path)
    for room in gone:
        run(folder, "-m", "tools.removal", room, "--root", str(folder))
        assert not (folder / "apps" / room).exists()
    run(folder, "manage.py", "check")
    run(folder, "manage.py", "makemigrations", "--check", "--dry-run")
    assert " passed" in run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", *suite)
    named = [
        path.relative_to(folder).as_posix()
        for top in ("apps", "project", "benchmarks")
        for path in (folder / top).rglob("*.py")
        if any(f"apps.{room}" in path.read_text(encoding="utf-8") for room in gone)
    ]
    assert named == []
    assert "rollout" not in gone or bounds_that_nothing_reads(folder) == bounds_that_nothing_reads(ROOT)


def test_what_is_not_where_it_should_be_stops_the_removal(tmp_path):
    with pytest.raises(NothingToRemoveError, match="apps/legacy is not there"):
        remove("legacy", tmp_path)
    (tmp_path / "a.txt").write_text("one\n")
    for edit in (drop_lines, drop_text):
        with pytest.raises(NothingToRemoveError, match="two"):
            edit("a.txt", "two", tmp_path)
    with pytest.raises(NothingToRemoveError, match=r"b\.txt"):
        move("b.txt", "a.txt", tmp_path)
    assert (tmp_path / "a.txt").read_text() == "one\n"


def test_the_rollout_goes_after_what_it_switches():
    assert list(STEPS) == ["legacy", "rollout"]
