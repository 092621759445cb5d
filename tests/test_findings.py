"""The output that all audits share."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.findings import CouldNotLook, Exit, Line, Report, blind_json, blind_text, examples

KEPT = Line("Runs closed", kept=True, detail="0 open contexts in 3 processes (oldest report 4 s)")
BROKEN = Line("Legacy unreachable", kept=False, detail="2 calls since on", next_step="open the seam's page")

lines = st.builds(
    Line,
    name=st.text("abc ", min_size=1, max_size=30),
    kept=st.booleans(),
    detail=st.text("xyz ", max_size=30),
    next_step=st.sampled_from(["run it again", "ask"]),
)


def test_a_report_is_one_row_a_line_and_one_sum_line_with_the_next_step():
    assert Report("Audit", (KEPT, BROKEN)).as_text().splitlines() == [
        "Runs closed         KEPT    0 open contexts in 3 processes (oldest report 4 s)",
        "Legacy unreachable  BROKEN  2 calls since on",
        "Audit: 1 kept, 1 broken.  Next: open the seam's page.",
    ]


def test_a_clean_report_says_no_next_step():
    assert Report("Audit", (KEPT,)).as_text().splitlines()[-1] == "Audit: 1 kept, 0 broken."


def test_the_same_next_step_is_said_once():
    other = Line("Another", kept=False, detail="", next_step=BROKEN.next_step)
    assert Report("Audit", (BROKEN, other)).as_text().count("open the seam's page") == 1


def test_a_broken_line_must_say_what_to_do():
    with pytest.raises(ValueError, match="does not say what to do next"):
        Line("Runs closed", kept=False, detail="3 open")


def test_examples_show_a_few_and_count_the_rest():
    assert examples(["a", "b"]) == "a, b"
    assert examples(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert examples([]) == ""


def test_an_audit_that_could_not_look_is_status_two_and_never_a_clean_report():
    why = CouldNotLook("the database does not answer")
    assert blind_text("Audit", why) == "Audit: could not look: the database does not answer"
    assert json.loads(blind_json("Audit", why)) == {
        "title": "Audit",
        "exit": 2,
        "error": "the database does not answer",
        "lines": [],
    }


@given(st.lists(lines, max_size=8))
def test_text_json_and_exit_status_agree(found):
    report = Report("Audit", tuple(found))
    machine = json.loads(report.as_json())
    broken = sum(not line.kept for line in found)
    assert report.exit == (Exit.BROKEN if broken else Exit.KEPT) == machine["exit"]
    assert (machine["kept"], machine["broken"]) == (len(found) - broken, broken)
    text = report.as_text().splitlines()
    assert len(text) == len(found) + 1
    assert text[-1].startswith(f"Audit: {len(found) - broken} kept, {broken} broken.")
    assert [row["kept"] for row in machine["lines"]] == [line.kept for line in found]
