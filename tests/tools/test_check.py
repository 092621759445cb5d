import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.budget import Budget, read_table
from tools import check

ROOT = Path(__file__).parent.parent.parent


def test_a_check_that_fails_is_shown_with_its_output_and_one_that_passes_without(capsys):
    environment = dict(os.environ)
    outcomes = [
        check.run(check.Check(name, (sys.executable, "-c", code), environment))
        for name, code in (("good", "print('fine')"), ("bad", "print('why'); raise SystemExit(3)"))
    ]
    check.report(outcomes)
    shown = capsys.readouterr().out
    assert [outcome.passed for outcome in outcomes] == [True, False]
    assert "why" in shown
    assert "fine" not in shown
    assert "FAILED" in shown


def test_a_server_that_a_test_left_behind_does_not_hold_up_the_end(capsysbinary):
    # The child that prints its number keeps the pipe open long after its parent has ended.
    leave = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"
    with subprocess.Popen([sys.executable, "-c", leave], stdout=subprocess.PIPE) as process:
        output = check._pass_on(process)
    os.kill(int(output), signal.SIGKILL)
    assert capsysbinary.readouterr().out == output


def test_a_developers_own_settings_do_not_reach_the_checks(monkeypatch):
    for name in ("DATABASE_URL", "TURNOUT_RUN_SLOTS", "DEBUG", "DJANGO_SETTINGS_MODULE"):
        assert check.SETTINGS.fullmatch(name)
    for name in ("PATH", "HOME", "HTTPS_PROXY", "CHROMIUM"):
        assert not check.SETTINGS.fullmatch(name)


def test_what_cannot_be_run_is_a_failure_in_make_test_and_a_skip_at_the_desk(tmp_path):
    one_test, whole_file = tmp_path / "test_one.py", tmp_path / "test_all.py"
    one_test.write_text("import pytest\ndef test_x(): pytest.skip('no server')\n")
    whole_file.write_text("import pytest\npytest.importorskip('no_such_module')\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-q", str(tmp_path)]
    no_skips = ["--no-skips", "--continue-on-collection-errors"]
    desk = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    gate = subprocess.run([*command, *no_skips], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "2 skipped" in desk.stdout
    assert gate.returncode != 0
    assert "could not be run: Skipped: no server" in gate.stdout
    assert "no_such_module" in gate.stdout


def test_a_seed_gives_the_same_rounds_again():
    first = [random.random() for random, _ in zip(Budget(60, seed=7).rounds(), range(5), strict=False)]
    again = [random.random() for random, _ in zip(Budget(60, seed=7).rounds(), range(5), strict=False)]
    assert first == again
    assert len(set(first)) == 5


def test_one_round_is_run_however_little_time_there_is():
    assert len(list(Budget(0, seed=1).rounds())) == 1


@pytest.mark.parametrize("group", sorted(read_table()))
def test_proof_searches_longer_than_the_usual_run(group):
    seconds = read_table()[group]
    assert 0 < seconds["usual"] < seconds["proof"]
