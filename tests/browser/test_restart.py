"""What the page tells when its server stops, and what it does when the server is back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Town, Watch, ask, beats, open_chat
from tests.serving import ServerProcess, serving

pytestmark = pytest.mark.browser

RETRY = 30_000  # milliseconds: a machine under load takes its time to start a server


@pytest.fixture
def server(tmp_path: Path, town: Town) -> Iterator[ServerProcess]:
    """A server of the test's own, which it may stop."""
    with serving(tmp_path, town.database) as own:
        yield own


def test_a_restart_is_told_in_words_and_what_was_written_meanwhile_is_sent(
    tab: Page, server: ServerProcess, watch: Watch
):
    watch.expected = ("WebSocket connection to", "ERR_CONNECTION_REFUSED")
    open_chat(tab)
    ask(tab, "1 + 1", agent="assistant")
    expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded")

    assert server.stop() == 0
    expect(tab.locator("#connection-words")).to_contain_text("Reconnecting")
    expect(tab.locator("#trouble")).to_contain_text("What you write is kept")
    expect(tab.get_by_role("button", name="Reconnect now")).to_be_visible()
    ask(tab, "2 + 3")
    expect(tab.get_by_text("Will be sent when the connection is back")).to_be_visible()

    server.start(server.port)
    expect(tab.locator("#connection-words")).to_have_text("Connected", timeout=RETRY)
    expect(tab.locator("#trouble")).to_be_hidden()
    expect(tab.locator(".bubble")).to_have_text(["1 + 1", "2 + 3"])
    expect(tab.locator(".turn").nth(1).locator(".text").last).to_contain_text("5")
    expect(tab.locator(".turn")).to_have_count(2)


def test_an_answer_cut_by_a_crash_ends_visibly_and_once(tab: Page, server: ServerProcess, watch: Watch):
    watch.expected = ("WebSocket connection to", "ERR_CONNECTION_REFUSED")
    open_chat(tab)
    ask(tab, "count=5000 interval_ms=20 tag=k", agent="metronome")
    expect(tab.locator(".text")).to_contain_text("20:k")
    server.kill()
    expect(tab.locator("#connection-words")).to_contain_text("Reconnecting")
    server.start(server.port)
    expect(tab.locator(".turn")).to_have_attribute("data-status", "interrupted", timeout=RETRY)
    expect(tab.locator(".turn-state")).to_contain_text("What had arrived is kept")
    shown = tab.locator(".text").inner_text()
    assert shown == beats(len(shown.split()), "k")
    tab.reload()
    expect(tab.locator(".text")).to_have_text(shown)
