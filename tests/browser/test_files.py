"""Files that go with a message, in a real browser."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch, ask, open_chat

pytestmark = pytest.mark.browser

LETTER = {"name": "letter.txt", "mimeType": "text/plain", "buffer": b"Dear engineer, the points are set."}


def attach(page: Page, *files) -> None:
    page.locator("#file").set_input_files(list(files))


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
