"""Files that go with a message, in a real browser."""

import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Watch, ask, open_chat

pytestmark = pytest.mark.browser

LETTER = {"name": "letter.txt", "mimeType": "text/plain", "buffer": b"Dear engineer, the points are set."}


def attach(page: Page, *files) -> None:
    page.locator("#file").set_input_files(list(files))


def hold_uploads(page: Page) -> list[Route]:
    """From now on, files do not reach the server; their requests are put into the list instead."""
    held: list[Route] = []
    page.route("**/api/attachments", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks it, and cannot mark a list's method
    return held


def next_upload(page: Page, held: list[Route]) -> Route:
    deadline = time.monotonic() + 10
    while not held:
        assert time.monotonic() < deadline, "no file was sent"
        page.wait_for_timeout(10)  # lets Playwright hear of requests
    return held.pop()


def test_a_file_goes_with_a_question_and_can_be_had_back_in_every_tab(tab: Page):
    open_chat(tab)
    attach(tab, LETTER)
    chips = tab.get_by_role("list", name="Attached files")
    expect(chips.get_by_role("link")).to_have_text(re.compile(r"letter\.txt\s*34 bytes"))
    tab.reload()
    expect(chips.get_by_role("link")).to_have_count(1)
    ask(tab, "1 + 1", agent="assistant")
    expect(chips).to_be_hidden()
    other = tab.context.new_page()
    open_chat(other, tab.url)
    for page in (tab, other):
        expect(page.locator(".prompt .file")).to_have_text(re.compile(r"letter\.txt"))
    with other.expect_download() as started:
        other.locator(".prompt .file").click()
    assert Path(started.value.path()).read_bytes() == LETTER["buffer"]
    assert started.value.suggested_filename == "letter.txt"


def test_a_file_can_be_taken_away_again_and_dropping_one_attaches_it(tab: Page):
    open_chat(tab)
    attach(tab, LETTER, {**LETTER, "name": "second.md"})
    chips = tab.get_by_role("list", name="Attached files")
    expect(chips.get_by_role("link")).to_have_count(2)
    tab.get_by_role("button", name="Take “letter.txt” away").click()
    expect(chips.get_by_role("link")).to_have_text(re.compile(r"second\.md"))
    transfer = tab.evaluate_handle("""() => {
      const transfer = new DataTransfer();
      transfer.items.add(new File(["dropped"], "dropped.txt", { type: "text/plain" }));
      return transfer;
    }""")
    tab.dispatch_event("#composer", "drop", {"dataTransfer": transfer})
    expect(chips.get_by_role("link")).to_have_count(2)
    expect(chips).to_contain_text("dropped.txt")


def test_what_is_no_text_and_no_image_is_refused_in_words(tab: Page, watch: Watch):
    watch.expected = ("400",)
    open_chat(tab)
    attach(tab, {"name": "tool.exe", "mimeType": "image/png", "buffer": b"MZ\x00\x01\x02"})
    expect(tab.get_by_role("alert").filter(has_text="tool.exe")).to_contain_text("a file is text in UTF-8")
    expect(tab.get_by_role("list", name="Attached files")).to_be_hidden()


def test_a_message_that_was_sent_while_its_files_come_waits_for_them(tab: Page):
    open_chat(tab)
    held = hold_uploads(tab)
    attach(tab, LETTER, {**LETTER, "name": "second.md"})
    ask(tab, "2 + 2", agent="assistant")
    for number in (1, 2):
        expect(tab.locator("#files .file")).to_have_count(number)
        expect(tab.locator(".turn")).to_have_count(0)
        next_upload(tab, held).continue_()
    expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded")
    expect(tab.locator(".prompt .file")).to_have_text([re.compile(r"letter\.txt"), re.compile(r"second\.md")])


def test_a_message_whose_file_does_not_come_stays_where_it_was_written(tab: Page, watch: Watch):
    watch.expected = ("net::ERR_FAILED",)
    open_chat(tab)
    held = hold_uploads(tab)
    attach(tab, LETTER)
    ask(tab, "2 + 2", agent="assistant")
    expect(tab.get_by_text("Being attached…")).to_be_visible()
    next_upload(tab, held).abort()
    expect(tab.locator(".toast")).to_contain_text("could not be attached")
    expect(tab.get_by_label("Message", exact=True)).to_have_value("2 + 2")
    expect(tab.locator(".turn")).to_have_count(0)


def test_a_question_that_is_worded_anew_keeps_its_files(tab: Page):
    open_chat(tab)
    attach(tab, LETTER)
    ask(tab, "2 + 2", agent="assistant")
    turn = tab.locator(".turn")
    expect(turn).to_have_attribute("data-status", "succeeded")
    turn.hover()
    turn.get_by_role("button", name="Edit").click()
    turn.get_by_label("Your message, in other words").fill("3 + 3")
    turn.get_by_label("Your message, in other words").press("Enter")
    expect(tab.locator(".bubble")).to_have_text(["3 + 3"])
    expect(tab.locator(".prompt .file")).to_have_text(re.compile(r"letter\.txt"))
