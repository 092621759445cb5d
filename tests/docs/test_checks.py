"""The page on checks has one row for each id that the code can say."""

import re

from tests.docs.pages import ROOT, code, page

SAID = re.compile(r"id=\"(turnout\.[A-Z]\d+)\"")


def test_every_check_has_a_row_and_every_row_a_check():
    files = [path for room in ("apps", "project") for path in (ROOT / room).rglob("*.py")]
    said = [name for path in files for name in SAID.findall(path.read_text())]
    rows = [code(row[0])[0] for row in page("reference/checks.md").rows()]
    assert sorted(rows) == sorted(said)
