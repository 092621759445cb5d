"""A tool call that waits for a decision, in real tabs: asked in every one of them, decided once."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Town, Watch, ask, open_chat
from tests.browser.held_line import HeldLine
from tests.serving import ServerProcess, serving

pytestmark = pytest.mark.browser

_COUNT_TOASTS = """() => {
  window.toasts = 0;
  const count = (records) => records.forEach(({ addedNodes }) => addedNodes.forEach((node) => {
    if (node.matches?.(".toast")) window.toasts += 1;
  }));
  new MutationObserver(count).observe(document.body, { childList: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory, town: Town) -> Iterator[ServerProcess]:
    environment = {"TURNOUT_AGENTS": "tests.execution.odd_agents.Asking"}
    with serving(tmp_path_factory.mktemp("asking"), town.database, environment) as server:
        yield server


def asked(page: Page, what: str) -> None:
    ask(page, what, agent="asking")
    expect(page.get_by_role("group", name="Approval")).to_contain_text(f"Write {what}?")


def test_a_call_is_shown_in_every_tab_and_the_first_answer_goes_on_below(tab: Page):
    open_chat(tab)
    asked(tab, "the letter")
    other = tab.context.new_page()
    open_chat(other, tab.url)
    other.get_by_role("button", name="Approve").click()
    for page in (tab, other):
        expect(page.locator(".text")).to_have_count(2)
        expect(page.locator(".text").last).to_contain_text("done: write")
        expect(page.get_by_role("group", name="Approval")).to_have_count(0)
        expect(page.locator(".bubble")).to_have_text(["the letter"])
    read = tab.locator("#transcript").inner_text()
    tab.reload()
    expect(tab.locator(".text").last).to_contain_text("done: write")
    expect(tab.locator(".who")).to_have_text(["Asking", "Asking"])
    assert tab.locator("#transcript").inner_text() == read


def test_two_tabs_that_decide_at_once_decide_once_and_complain_of_nothing(tab: Page):
    other = tab.context.new_page()
    lines = [HeldLine(page) for page in (tab, other)]
    open_chat(tab)
    asked(tab, "both")
    open_chat(other, tab.url)
    expect(other.get_by_role("button", name="Deny")).to_be_visible()
    for page, line in zip((tab, other), lines, strict=True):
        page.evaluate(_COUNT_TOASTS)
        line.hold()
    other.get_by_role("button", name="Deny").click()
    tab.bring_to_front()
    tab.get_by_role("button", name="Approve").click()  # this page has heard nothing of the other's decision
    for line in lines:
        line.until_held("reply")
        line.let_go()
    assert [[frame["type"] for frame in line.sent].count("tool.decide") for line in lines] == [1, 1]
    for page in (tab, other):
        expect(page.locator(".text")).to_have_count(2)
        expect(page.get_by_role("group", name="Approval")).to_have_count(0)
        assert page.evaluate("window.toasts") == 0
    assert tab.locator(".text").last.inner_text() == other.locator(".text").last.inner_text()


def test_what_was_denied_is_not_done_and_the_conversation_goes_on(tab: Page):
    open_chat(tab)
    asked(tab, "no")
    tab.get_by_role("button", name="Deny").click()
    expect(tab.locator(".text").last).to_contain_text("not done")
    ask(tab, "next", agent="asking")
    expect(tab.get_by_role("group", name="Approval")).to_contain_text("Write next?")
    expect(tab.locator(".bubble")).to_have_text(["no", "next"])


def test_a_question_waits_over_a_restart_of_the_server(tab: Page, server: ServerProcess, watch: Watch):
    watch.expected = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET")
    open_chat(tab)
    asked(tab, "patience")
    assert server.stop() == 0
    server.start(server.port)
    expect(tab.locator("#connection")).to_have_attribute("data-state", "open")
    tab.get_by_role("button", name="Approve").click()
    expect(tab.locator(".text").last).to_contain_text("done: write")
