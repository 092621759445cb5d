"""The page of the API: every call can be tried on it, under the strict policy."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Watch

pytestmark = pytest.mark.browser


def form_of(tab: Page, call: str) -> Locator:
    section = tab.get_by_role("region", name=call, exact=True)
    section.get_by_text("Try it").click()
    return section.get_by_role("form")


def test_calls_are_tried_where_they_are_described(tab: Page, watch: Watch):
    watch.expected = ("404",)
    tab.goto("/api/docs")
    form = form_of(tab, "POST /api/threads")
    form.get_by_label("Body, JSON").fill('{"title": "From the page"}')
    form.get_by_role("button", name="Send POST").click()
    expect(form.locator("output")).to_contain_text("201")
    expect(form.locator("output")).to_contain_text('"title":"From the page"')
    form = form_of(tab, "GET /api/threads/{thread_id}")
    form.get_by_label("thread_id").fill("a/../b")
    form.get_by_role("button", name="Send GET").click()
    expect(form.locator("output")).to_contain_text('"code":"not_found"')


def test_an_attachment_is_sent_from_the_page(tab: Page):
    tab.goto("/api/docs")
    form = form_of(tab, "POST /api/attachments")
    form.get_by_label("file").set_input_files({"name": "a.md", "mimeType": "x/y", "buffer": b"# hello"})
    form.get_by_role("button", name="Send POST").click()
    expect(form.locator("output")).to_contain_text('"type":"text/markdown"')


def test_the_page_has_no_barrier(tab: Page):
    tab.goto("/api/docs")
    form_of(tab, "POST /api/runs")
    assert Axe().run(tab).response["violations"] == []
