"""What people do in the chat, in a real browser against the real server."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.browser.conftest import Person, Watch, ask, beats, open_chat

pytestmark = pytest.mark.browser


def test_a_question_is_answered_and_its_tool_call_can_be_unfolded(tab: Page):
    open_chat(tab)
    ask(tab, "12 * (3 + 4)", agent="assistant")
    answer = tab.locator(".answer").last
    expect(answer.locator(".text").last).to_contain_text("84")
    expect(answer.locator(".text strong")).to_have_text("84")
    expect(tab).to_have_url(re.compile(r"/threads/[0-9a-f-]{36}/$"))
    expect(tab.get_by_role("heading", level=1)).to_have_text("12 * (3 + 4)")
    tab.locator(".fold summary").click()
    expect(tab.locator(".call")).to_contain_text("Answered")


def test_an_answer_is_seen_while_it_is_made(tab: Page):
    open_chat(tab)
    ask(tab, "count=300 interval_ms=30 tag=s", agent="metronome")
    expect(tab.locator(".text")).to_contain_text("5:s")
    expect(tab.locator(".turn")).to_have_attribute("data-status", "running")
    expect(tab.get_by_role("button", name="Stop the answer")).to_be_visible()
    tab.keyboard.press("Escape")
    expect(tab.locator(".turn")).to_have_attribute("data-status", "cancelled")
    expect(tab.locator(".turn-state")).to_have_text("Stopped.")
    expect(tab.get_by_role("button", name="Stop the answer")).to_be_hidden()


def test_reloads_in_the_middle_leave_the_text_complete_and_once(tab: Page):
    open_chat(tab)
    ask(tab, "count=100 interval_ms=30 tag=x", agent="metronome")
    for seen in ("10:x", "40:x", "70:x"):
        expect(tab.locator(".text")).to_contain_text(seen)
        tab.reload()
    expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded")
    expect(tab.locator(".text")).to_have_text(beats(100, "x"))
    expect(tab.locator(".bubble")).to_have_text(["count=100 interval_ms=30 tag=x"])


def test_a_second_tab_shows_the_same_and_can_stop_it(tab: Page):
    open_chat(tab)
    ask(tab, "count=400 interval_ms=30 tag=t", agent="metronome")
    expect(tab.locator(".text")).to_contain_text("3:t")
    other = tab.context.new_page()
    open_chat(other, tab.url)
    expect(other.locator(".text")).to_contain_text("8:t")
    other.get_by_role("button", name="Stop the answer").click()
    for page in (tab, other):
        expect(page.locator(".turn")).to_have_attribute("data-status", "cancelled")
    assert tab.locator(".text").inner_text() == other.locator(".text").inner_text()
    assert tab.locator(".text").inner_text() == beats(len(tab.locator(".text").inner_text().split()), "t")


def test_what_one_tab_asks_is_asked_in_the_other(tab: Page):
    open_chat(tab)
    ask(tab, "count=2 interval_ms=1 tag=a", agent="metronome")
    expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded")
    other = tab.context.new_page()
    open_chat(other, tab.url)
    ask(other, "count=3 interval_ms=1 tag=b", agent="metronome")
    for page in (tab, other):
        expect(page.locator(".bubble")).to_have_text(["count=2 interval_ms=1 tag=a", "count=3 interval_ms=1 tag=b"])
        expect(page.locator(".text")).to_have_text([beats(2, "a"), beats(3, "b")])
        expect(page.locator(".who")).to_have_text(["Metronome", "Metronome"])


def test_a_message_waits_its_turn_and_can_be_taken_back(tab: Page):
    open_chat(tab)
    ask(tab, "count=2000 interval_ms=20 tag=long", agent="metronome")
    expect(tab.locator(".text")).to_contain_text("2:long")
    ask(tab, "count=1 interval_ms=1 tag=later", agent="metronome")
    waiting = tab.locator(".turn").nth(1)
    expect(waiting.locator(".turn-state")).to_have_text(re.compile(r"Number \d in your queue"))
    waiting.get_by_role("button", name="Remove from the queue").click()
    expect(waiting).to_have_attribute("data-status", "cancelled")
    expect(tab.locator(".turn").first).to_have_attribute("data-status", "running")
    tab.get_by_role("button", name="Stop the answer").click()
    expect(tab.locator(".turn").first).to_have_attribute("data-status", "cancelled")


def test_a_failure_says_so_with_a_reference_and_can_be_tried_again(tab: Page):
    open_chat(tab)
    ask(tab, "mode=raise after=2", agent="faulty")
    expect(tab.locator(".notice-bad")).to_contain_text("The agent failed. Reference: ")
    reference = tab.locator(".reference code").inner_text()
    assert reference == tab.locator(".turn").get_attribute("data-run")
    expect(tab.locator(".turn")).to_contain_text("Faulty")
    before = tab.locator(".turn").inner_text()
    tab.reload()
    expect(tab.locator(".notice-bad")).to_contain_text("The agent failed.")
    expect(tab.locator(".turn")).to_contain_text("Faulty")  # its title, once the agents are known
    assert tab.locator(".turn").inner_text() == before
    tab.get_by_role("button", name="Try again").click()
    answers = tab.get_by_role("group", name="Answers")
    expect(answers).to_have_text("2 of 2")
    expect(tab.locator(".turn")).to_have_attribute("data-status", "failed")
    assert tab.locator(".reference code").inner_text() != reference
    expect(tab.locator(".bubble")).to_have_count(1)
    answers.get_by_role("button", name="Previous").click()
    expect(tab.locator(".reference code")).to_have_text(reference)


def test_what_was_used_today_is_told_and_grows_in_every_tab(tab: Page):
    open_chat(tab)
    expect(tab.locator("#usage")).to_contain_text("0 of ")
    other = tab.context.new_page()
    open_chat(other)
    tab.bring_to_front()  # a page in the background is painted once a second, and a click waits for that
    ask(tab, "count=30 interval_ms=1", agent="metronome")
    for page in (tab, other):
        expect(page.locator("#usage")).to_contain_text(re.compile(r"^32 of [\d,]+ tokens today$"))


def test_what_is_written_as_soon_as_one_can_write_is_kept(tab: Page):
    held: list[Route] = []
    tab.route(re.compile(r"/chat/chat\.\w+\.js$"), lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks it
    tab.goto("/", wait_until="commit")
    field = tab.get_by_label("Message", exact=True)
    expect(field).to_be_visible()
    expect(field).to_be_disabled()  # whoever wrote now would lose it to the draft that the script brings
    while not held:
        tab.wait_for_timeout(10)  # lets Playwright hear of requests
    held[0].continue_()
    field.fill("1 + 2")
    field.press("Enter")
    expect(tab.locator(".text")).to_contain_text("3")


def test_a_draft_survives_a_reload_and_each_conversation_has_its_own(tab: Page):
    open_chat(tab)
    field = tab.get_by_label("Message", exact=True)
    field.fill("half a thou")
    tab.reload()
    expect(field).to_have_value("half a thou")
    ask(tab, "1 + 1", agent="assistant")
    expect(tab.locator(".text").last).to_contain_text("2")
    expect(field).to_have_value("")
    field.fill("next here")
    tab.get_by_role("link", name="New conversation").click()
    expect(field).to_have_value("")
    tab.go_back()
    expect(field).to_have_value("next here")


def test_conversations_can_be_found_renamed_and_deleted(tab: Page):
    open_chat(tab)
    for text in ("1 + 1", "2 + 2"):
        ask(tab, text, agent="assistant")
        expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded")
        tab.get_by_role("link", name="New conversation").click()
    titles = tab.locator(".thread")
    expect(titles).to_have_text(["2 + 2", "1 + 1"])
    other = tab.context.new_page()
    open_chat(other)

    tab.bring_to_front()  # a page in the background is painted once a second, and a click waits for that
    tab.get_by_role("button", name="Actions for “1 + 1”").click()
    tab.get_by_role("menuitem", name="Rename").click()
    tab.get_by_label("Name", exact=True).fill("The sum of ones")
    tab.get_by_label("Name", exact=True).press("Enter")
    for page in (tab, other):
        expect(page.locator(".thread")).to_have_text(["2 + 2", "The sum of ones"])

    tab.get_by_label("Search your conversations").fill("sum of")
    expect(titles).to_have_text(["The sum of ones"])
    tab.get_by_label("Search your conversations").press("Escape")
    expect(titles).to_have_text(["2 + 2", "The sum of ones"])

    titles.first.click()
    expect(tab.locator(".bubble")).to_have_text("2 + 2")
    tab.get_by_role("button", name="Actions for this conversation").click()
    tab.get_by_role("menuitem", name="Delete").click()
    tab.get_by_role("button", name="Keep it").click()
    expect(titles).to_have_count(2)
    tab.get_by_role("button", name="Actions for this conversation").click()
    tab.get_by_role("menuitem", name="Delete").click()
    tab.get_by_role("button", name="Delete", exact=True).click()
    for page in (tab, other):
        expect(page.locator(".thread")).to_have_text(["The sum of ones"])
    expect(tab).to_have_url(re.compile(r":\d+/$"))


def test_a_conversation_deleted_elsewhere_leaves_this_tab(tab: Page):
    open_chat(tab)
    ask(tab, "3 + 4", agent="assistant")
    expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded")
    other = tab.context.new_page()
    open_chat(other)
    other.get_by_role("button", name="Actions for “3 + 4”").click()
    other.get_by_role("menuitem", name="Delete").click()
    other.get_by_role("button", name="Delete", exact=True).click()
    expect(tab.get_by_role("alert").filter(has_text="was deleted")).to_be_visible()
    expect(tab.get_by_role("heading", name="What would you like to know?")).to_be_visible()
    expect(tab.get_by_text("3 + 4")).to_have_count(0)


def test_a_conversation_of_somebody_else_is_none(
    tab: Page, browser_of: Callable[..., BrowserContext], stranger: Person, watch: Watch
):
    watch.expected = ("404",)
    open_chat(tab)
    ask(tab, "5 + 6", agent="assistant")
    expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded")
    theirs = browser_of(stranger).new_page()
    open_chat(theirs, tab.url)
    expect(theirs.get_by_role("heading", name="There is no such conversation")).to_be_visible()
    expect(theirs.get_by_text("5 + 6")).to_have_count(0)
    expect(theirs.get_by_label("Message", exact=True)).to_be_disabled()
    theirs.get_by_role("button", name="New conversation").click()
    ask(theirs, "7 + 8", agent="assistant")
    expect(theirs.locator(".text").last).to_contain_text("15")


def test_a_message_that_is_too_long_is_not_sent_and_says_why(tab: Page):
    open_chat(tab)
    field = tab.get_by_label("Message", exact=True)
    field.fill("ä" * 20_000)
    expect(tab.get_by_role("alert").filter(has_text="at most 32 KiB")).to_be_visible()
    expect(tab.get_by_role("button", name="Send")).to_be_disabled()
    field.fill("1 + 2")
    expect(tab.get_by_role("button", name="Send")).to_be_enabled()
