"""What is drawn is what the tables say."""

import re

import pytest

from apps.execution.states import LEGAL_MOVES as RUN_MOVES
from apps.realtime.cursor import CursorState
from apps.rollout.stages import LEGAL_MOVES as STAGE_MOVES
from tests.docs.pages import ROOT, all_pages, page

DRAWN = re.compile(r"^\s*(\S+) --> (\S+?)(?::.*)?$", re.MULTILINE)


def drawn(name):
    """The moves of the page's state diagram, without its beginning and its ends."""
    (diagram,) = [body for body in page(name).fences("mermaid") if body.startswith("stateDiagram-v2")]
    return {move for move in DRAWN.findall(diagram) if "[*]" not in move}


@pytest.mark.parametrize(
    ("name", "table"), [("explanation/a-runs-life.md", RUN_MOVES), ("explanation/stages.md", STAGE_MOVES)]
)
def test_a_state_diagram_is_its_table(name, table):
    assert drawn(name) == {(str(before), str(after)) for before, legal in table.items() for after in legal}


def test_the_cursors_diagram_has_all_its_states_and_no_other():
    states = {state for move in drawn("explanation/delivery.md") for state in move}
    assert states == {state.value for state in CursorState}


def test_no_diagram_holds_a_semicolon_which_would_end_its_statement():
    assert [one.path.name for one in all_pages() for body in one.fences("mermaid") if ";" in body] == []


def test_the_lock_order_is_the_one_that_the_code_states_wherever_it_does():
    order = re.findall(r"^\d\. (\w+) \(`\w+`\)$", page("explanation/locks.md").text, re.MULTILINE)
    assert order == ["receipt", "budget", "thread", "run", "ledger", "stream"]
    sources = {path: path.read_text() for path in (ROOT / "apps").rglob("*.py")}
    stated = {path: re.findall(r"\b\w+(?:,\s+\w+){2,}, stream\b", text) for path, text in sources.items()}
    assert any(stated.values())
    for path, found in stated.items():
        for words in found:
            assert re.split(r",\s+", words) == order[-len(words.split()) :], path
