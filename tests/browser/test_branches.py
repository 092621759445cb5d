"""A question asked in other words, and answered again: the ways through a conversation, in a real browser."""

from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import ask, open_chat
from tests.browser.held_line import HeldLine

pytestmark = pytest.mark.browser


def say(page: Page, text: str) -> Locator:
    """Ask the metronome, wait for its whole answer, and return the turn."""
    turns = page.locator(".turn")
    before = turns.count()
    ask(page, text, agent="metronome")
    expect(turns).to_have_count(before + 1)
    expect(turns.last).to_have_attribute("data-status", "succeeded")
    return turns.last


def reword(turn: Locator, text: str) -> None:
    turn.hover()
    turn.get_by_role("button", name="Edit").click()
    turn.get_by_label("Your message, in other words").fill(text)
    turn.get_by_label("Your message, in other words").press("Enter")


def test_a_question_can_be_worded_anew_and_both_ways_can_be_read_in_every_tab(tab: Page):
    open_chat(tab)
    say(tab, "count=1 tag=first")
    say(tab, "count=1 tag=second")
    other = tab.context.new_page()
    open_chat(other, tab.url)
    tab.bring_to_front()  # a page in the background is painted once a second, and a click waits for that
    reword(tab.locator(".turn").first, "count=2 tag=anew")
    for page in (tab, other):
        expect(page.locator(".bubble")).to_have_text(["count=2 tag=anew"])
        expect(page.locator(".text")).to_have_text(["0:anew 1:anew"])
        expect(page.get_by_role("group", name="Wordings")).to_have_text("2 of 2")
    other.get_by_role("group", name="Wordings").get_by_role("button", name="Previous").click()
    for page in (tab, other):
        expect(page.locator(".bubble")).to_have_text(["count=1 tag=first", "count=1 tag=second"])
        expect(page.locator(".text")).to_have_text(["0:first", "0:second"])
    tab.reload()
    expect(tab.locator(".bubble")).to_have_text(["count=1 tag=first", "count=1 tag=second"])
    tab.get_by_role("group", name="Wordings").get_by_role("button", name="Next").click()
    expect(tab.locator(".bubble")).to_have_text(["count=2 tag=anew"])
    say(tab, "count=1 tag=onward")
    expect(other.locator(".bubble")).to_have_text(["count=2 tag=anew", "count=1 tag=onward"])


def test_a_later_question_can_be_worded_anew_while_it_is_answered(tab: Page):
    open_chat(tab)
    say(tab, "count=1 tag=first")
    ask(tab, "count=2000 interval_ms=20 tag=long", agent="metronome")
    expect(tab.locator(".text").last).to_contain_text("2:long")
    reword(tab.locator(".turn").last, "count=1 tag=short")
    expect(tab.locator(".bubble")).to_have_text(["count=1 tag=first", "count=1 tag=short"])
    expect(tab.locator(".text")).to_have_text(["0:first", "0:short"])
    tab.get_by_role("group", name="Wordings").get_by_role("button", name="Previous").click()
    expect(tab.locator(".turn").last).to_have_attribute("data-status", "cancelled")
    expect(tab.locator(".text").last).to_contain_text("2:long")


def test_a_question_can_be_answered_again_and_each_answer_is_kept(tab: Page):
    open_chat(tab)
    turn = say(tab, "count=1 tag=same")
    first = turn.get_attribute("data-run")
    turn.get_by_role("button", name="Answer again").click()
    answers = tab.get_by_role("group", name="Answers")
    expect(answers).to_have_text("2 of 2")
    expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded")
    assert tab.locator(".turn").get_attribute("data-run") != first
    expect(tab.locator(".bubble")).to_have_count(1)
    answers.get_by_role("button", name="Previous").click()
    expect(tab.locator(".turn")).to_have_attribute("data-run", first or "")
    tab.reload()
    expect(tab.locator(".turn")).to_have_attribute("data-run", first or "")
    expect(answers).to_have_text("1 of 2")


def test_a_question_that_is_answered_again_stands_once_before_the_reply_has_come(tab: Page):
    line = HeldLine(tab)
    open_chat(tab)
    turn = say(tab, "count=1 tag=once")
    line.hold("reply")
    turn.get_by_role("button", name="Answer again").click()
    expect(tab.get_by_role("group", name="Answers")).to_have_text("2 of 2")
    expect(tab.locator(".turn")).to_have_count(1)
    line.let_go()
    expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded")


def test_leaving_the_field_keeps_the_question_as_it_was(tab: Page):
    open_chat(tab)
    turn = say(tab, "count=1 tag=kept")
    turn.hover()
    turn.get_by_role("button", name="Edit").click()
    turn.get_by_label("Your message, in other words").fill("something else")
    turn.get_by_label("Your message, in other words").press("Escape")
    expect(turn.get_by_role("button", name="Edit")).to_be_focused()
    expect(tab.locator(".bubble")).to_have_text(["count=1 tag=kept"])


def test_what_an_agent_did_for_another_stands_inside_it(tab: Page):
    open_chat(tab)
    ask(tab, "@metronome count=2 tag=inner", agent="supervisor")
    inner = tab.locator(".subagent")
    expect(inner.locator(".text")).to_have_text("0:inner 1:inner")
    expect(inner.locator(".subagent-line")).to_have_text("Metronome was asked")
    expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded")
    before = tab.locator(".turn").inner_text()
    tab.reload()
    expect(inner.locator(".text")).to_have_text("0:inner 1:inner")
    expect(tab.locator(".who")).to_have_text("Supervisor")  # once the agents are known
    expect(inner.locator(".subagent-line")).to_have_text("Metronome was asked")
    assert tab.locator(".turn").inner_text() == before


def test_a_conversation_is_saved_as_a_file(tab: Page):
    open_chat(tab)
    say(tab, "count=2 tag=file")
    for entry, expected in (("Export as Markdown", "0:file 1:file"), ("Export as JSON", '"0:file 1:file "')):
        tab.get_by_role("button", name="Actions for this conversation").click()
        with tab.expect_download() as started:
            tab.get_by_role("menuitem", name=entry).click()
        assert expected in Path(started.value.path()).read_text()


def test_a_conversation_goes_on_with_the_agent_that_answered_in_it(tab: Page):
    open_chat(tab)
    say(tab, "count=1 tag=m")
    address = tab.url
    tab.get_by_role("link", name="New conversation").click()
    ask(tab, "1 + 1", agent="assistant")
    expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded")
    other = tab.context.new_page()
    open_chat(other, address)
    expect(other.get_by_label("Who answers")).to_have_value("metronome")
    tab.bring_to_front()
    tab.goto(address)
    expect(tab.get_by_label("Who answers")).to_have_value("metronome")
