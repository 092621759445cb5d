"""The pictures of the docs: each is made by the command, and each is shown."""

import re

from tests.docs.pages import ROOT
from tools.screenshots import PICTURES, STATES

SHOWN = re.compile(r"!\[[^\]]+\]\((?:\.\./|docs/)pictures/([\w-]+)\.png\)")


def test_every_picture_is_one_that_make_screenshots_makes():
    assert {path.stem for path in PICTURES.iterdir()} == set(STATES)


def test_the_reference_shows_every_state_of_the_page():
    page = (ROOT / "docs" / "reference" / "page.md").read_text(encoding="utf-8")
    assert SHOWN.findall(page) == list(STATES)
