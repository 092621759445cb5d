"""For everybody: by keyboard, on a small screen, in the dark, with a screen reader."""

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import Person, ask, beats, open_chat

pytestmark = pytest.mark.browser

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 360, "height": 740}},
    "smallest": {"viewport": {"width": 320, "height": 560}, "color_scheme": "dark"},
}


@pytest.fixture(params=LOOKS)
def look(request: pytest.FixtureRequest) -> dict[str, Any]:
    return LOOKS[request.param]


@pytest.fixture
def page(browser_of: Callable[..., BrowserContext], person: Person, look: dict[str, Any]) -> Page:
    # The policy of the page runs nothing that axe would bring as text; only this profile is let off.
    return browser_of(person, **look, reduced_motion="reduce").new_page()


def found_by_axe(page: Page) -> list[str]:
    return [
        f"{finding['impact']} {finding['id']}: {[node['target'] for node in finding['nodes']]}"
        for finding in Axe().run(page).response["violations"]
    ]


def assert_fits(page: Page) -> None:
    wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]


def test_axe_finds_nothing_in_any_state(page: Page, browser_of: Callable[..., BrowserContext], look: dict[str, Any]):
    door = browser_of(None, **look).new_page()
    door.goto("/accounts/login/")
    assert found_by_axe(door) == []
    assert_fits(door)

    open_chat(page)
    expect(page.get_by_role("button", name="Assistant")).to_be_visible()
    assert found_by_axe(page) == []
    assert_fits(page)

    ask(page, "12 * (3 + 4)", agent="assistant")
    expect(page.locator(".turn")).to_have_attribute("data-status", "succeeded")
    page.locator(".fold summary").click()
    ask(page, "mode=raise after=2", agent="faulty")
    expect(page.locator(".turn").nth(1)).to_have_attribute("data-status", "failed")
    ask(page, "count=2000 interval_ms=30 tag=x", agent="metronome")
    expect(page.locator(".turn").nth(2).locator(".text")).to_contain_text("3:x")
    assert found_by_axe(page) == []
    assert_fits(page)
    page.keyboard.press("Escape")
    expect(page.locator(".turn").nth(2)).to_have_attribute("data-status", "cancelled")

    page.keyboard.press("Control+/")
    assert found_by_axe(page) == []
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    expect(page.get_by_label("Search your conversations")).to_be_focused()
    assert found_by_axe(page) == []


def test_the_whole_way_can_be_gone_by_keyboard(tab: Page):
    open_chat(tab)
    field = tab.get_by_label("Message", exact=True)
    expect(field).to_be_focused()
    tab.keyboard.type("first line")
    tab.keyboard.press("Shift+Enter")
    tab.keyboard.type("second line")
    expect(field).to_have_value("first line\nsecond line")
    tab.keyboard.press("Enter")
    expect(tab.locator(".bubble")).to_have_text("first line\nsecond line")
    expect(field).to_be_focused()
    expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded")

    tab.keyboard.press("Control+/")
    expect(tab.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    tab.keyboard.press("Escape")
    expect(tab.get_by_role("dialog")).to_be_hidden()
    expect(field).to_be_focused()

    tab.keyboard.press("Control+Shift+O")
    expect(tab.get_by_role("heading", name="What would you like to know?")).to_be_visible()
    tab.keyboard.press("Control+k")
    expect(tab.get_by_label("Search your conversations")).to_be_focused()
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    expect(tab.locator(".bubble")).to_have_text("first line\nsecond line")

    actions = tab.get_by_role("button", name="Actions for this conversation")
    actions.focus()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("menuitem", name="Rename")).to_be_focused()
    tab.keyboard.press("ArrowUp")
    expect(tab.get_by_role("menuitem", name="Delete")).to_be_focused()
    tab.keyboard.press("Escape")
    expect(tab.get_by_role("menu")).to_be_hidden()
    expect(actions).to_be_focused()
    tab.keyboard.press("?")
    expect(tab.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()


def test_a_question_mark_in_a_message_is_a_question_mark(tab: Page):
    open_chat(tab)
    tab.keyboard.type("what?")
    expect(tab.get_by_label("Message", exact=True)).to_have_value("what?")
    expect(tab.get_by_role("dialog")).to_be_hidden()


def test_a_screen_reader_hears_the_end_of_an_answer_and_not_each_word(tab: Page):
    open_chat(tab)
    tab.evaluate("""() => {
      window.said = [];
      const region = document.getElementById("announcements");
      new MutationObserver(() => region.textContent && window.said.push(region.textContent))
        .observe(region, { childList: true, characterData: true, subtree: true });
    }""")
    ask(tab, "count=40 interval_ms=10 tag=w", agent="metronome")
    expect(tab.locator("#announcements")).to_have_text("The answer is complete.")
    assert tab.evaluate("window.said") == ["The answer is complete."]
    assert tab.locator("#transcript [aria-live], #transcript [role=log]").count() == 0


def test_on_a_narrow_screen_the_list_is_a_drawer(browser_of: Callable[..., BrowserContext], person: Person):
    page = browser_of(person, viewport={"width": 360, "height": 740}, has_touch=True).new_page()
    open_chat(page)
    ask(page, "1 + 2", agent="assistant")
    expect(page.locator(".text").last).to_contain_text("3")
    expect(page.locator("#sidebar")).to_be_hidden()
    page.get_by_role("button", name="Open the list of conversations").click()
    expect(page.locator(".thread")).to_have_text(["1 + 2"])
    expect(page.get_by_role("button", name="Close the list of conversations")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#sidebar")).to_be_hidden()
    expect(page.get_by_role("button", name="Open the list of conversations")).to_be_focused()


def test_a_reader_who_scrolled_up_is_not_pulled_down(tab: Page):
    tab.set_viewport_size({"width": 700, "height": 400})
    open_chat(tab)
    ask(tab, "count=3000 interval_ms=5 tag=scrolling", agent="metronome")
    expect(tab.locator(".text")).to_contain_text("300:scrolling")
    scroller = tab.locator("#scroller")
    assert scroller.evaluate("(s) => s.scrollHeight - s.scrollTop - s.clientHeight") < 80
    scroller.hover()
    tab.mouse.wheel(0, -10_000)
    expect(tab.get_by_role("button", name="Latest")).to_be_visible()
    before = scroller.evaluate("(s) => s.scrollTop")
    expect(tab.locator(".text")).to_contain_text("600:scrolling")
    assert scroller.evaluate("(s) => s.scrollTop") == before
    tab.get_by_role("button", name="Latest").click()
    assert scroller.evaluate("(s) => s.scrollHeight - s.scrollTop - s.clientHeight") < 80
    expect(tab.get_by_role("button", name="Latest")).to_be_hidden()
    tab.keyboard.press("Escape")
    expect(tab.locator(".turn")).to_have_attribute("data-status", "cancelled")
    assert tab.locator(".text").inner_text().startswith(beats(50, "scrolling"))
