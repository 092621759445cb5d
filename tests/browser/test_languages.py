"""The page in the reader's language."""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.conftest import Person, ask, open_chat

pytestmark = pytest.mark.browser


def test_the_page_speaks_german_to_who_reads_german_and_english_when_that_is_chosen(
    browser_of: Callable[..., BrowserContext], person: Person
):
    page = browser_of(person, locale="de-DE").new_page()
    open_chat(page)
    expect(page.locator("html")).to_have_attribute("lang", "de")
    expect(page.locator("#connection-words")).to_have_text("Verbunden")
    expect(page.get_by_role("heading", name="Was möchten Sie wissen?")).to_be_visible()
    page.get_by_label("Nachricht", exact=True).fill("1 + 1")
    page.get_by_label("Nachricht", exact=True).press("Enter")
    expect(page.get_by_role("button", name="Neu antworten")).to_be_visible()
    expect(page.get_by_role("heading", name="Heute")).to_be_visible()
    page.get_by_role("button", name="English").click()
    expect(page.locator("#connection-words")).to_have_text("Connected")
    expect(page.get_by_role("button", name="Answer again")).to_be_visible()
    ask(page, "2 + 2")
    expect(page.locator(".turn")).to_have_count(2)
