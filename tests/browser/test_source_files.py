"""What `make run` serves: the modules as they are written, under their own names."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Town, ask, open_chat
from tests.serving import ServerProcess, serving

pytestmark = pytest.mark.browser


@pytest.fixture
def server(tmp_path: Path, town: Town) -> Iterator[ServerProcess]:
    with serving(tmp_path, town.database, {"DEBUG": "1"}) as own:
        yield own


def test_the_page_works_without_collected_files(tab: Page):
    open_chat(tab)
    ask(tab, "6 * 7", agent="assistant")
    expect(tab.locator(".text strong").last).to_have_text("42")
    assert tab.locator("script[type=importmap]").count() == 0
    assert "/static/chat/chat.js" in (tab.locator("script[type=module]").get_attribute("src") or "")
