import re
import sys
from pathlib import Path

from tests.budget import read_table
from tools import proof

TESTS = Path(__file__).parent.parent


def result(part, code="now", *, passed=True):
    return proof.Result(part, code, passed, 3, int(not passed), 7, 1.5, "2026-01-01 10:00")


def test_every_test_file_is_in_one_part_and_every_budget_is_a_part():
    parts = proof.parts_of(TESTS)
    files = [file for part in parts.values() for file in part]
    assert sorted(files) == sorted(str(path.relative_to(TESTS.parent)) for path in TESTS.rglob("test_*.py"))
    assert set(read_table()) <= set(parts)


def test_a_part_that_passed_is_done_until_the_code_changes(tmp_path):
    proof.keep(tmp_path, result("fuzz", "now"))
    proof.keep(tmp_path, result("soak", "before"))
    proof.keep(tmp_path, result("flood", "now", passed=False))
    results = proof.read(tmp_path, "now")
    shown = proof.table({"fuzz": [], "soak": [], "flood": []}, results)
    assert re.search(r"^fuzz +passed +3 +0 +7 ", shown, re.MULTILINE)
    assert re.search(r"^soak +left$", shown, re.MULTILINE)
    assert re.search(r"^flood +FAILED ", shown, re.MULTILINE)
    assert "1 of 3 parts passed on this code, 2 left." in shown


def test_the_digest_changes_with_the_code_and_not_with_what_running_leaves_behind(tmp_path):
    (tmp_path / "apps").mkdir()
    module = tmp_path / "apps" / "one.py"
    module.write_text("1")
    before = proof.digest(tmp_path)
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "left.py").write_text("x")
    (tmp_path / "apps" / "one.pyc").write_text("x")
    assert proof.digest(tmp_path) == before
    module.write_text("2")
    assert proof.digest(tmp_path) != before


def test_a_part_that_outlives_its_hour_or_has_no_tests_has_not_passed(tmp_path, monkeypatch):
    monkeypatch.setattr(proof, "KEPT", tmp_path)
    monkeypatch.setattr(proof, "PART_S", 0.2)
    assert not proof.run_part("slow", ["tests/tools/test_proof.py"], {}, "now").passed
    monkeypatch.setattr(proof, "PART_S", 60)
    monkeypatch.setattr(sys, "executable", "/bin/true")  # exits 0 and writes no report
    assert not proof.run_part("empty", [], {}, "now").passed


def test_the_figures_count_tests_failures_and_the_rounds_that_were_printed(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite tests="2" failures="1" errors="0"><testcase name="a">'
        "<system-out>seed 4, round 0\nseed 4, round 1\n</system-out></testcase></testsuite></testsuites>"
    )
    assert proof.figures(report) == (2, 1, 2)
