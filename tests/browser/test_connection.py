"""What the page does when its line breaks, its server restarts, or somebody else sits down."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, WebSocketRoute, expect

from tests.browser.conftest import Person, Watch, ask, beats, make_people, open_chat
from tests.serving import ServerProcess, serving

pytestmark = pytest.mark.browser

RETRY = 30_000  # milliseconds: a machine under load takes its time to start a server


@pytest.fixture
def server(tmp_path: Path, empty_database: Path, shared_server: ServerProcess) -> Iterator[ServerProcess]:
    """A server of the test's own, which it may stop; the static files are collected already."""
    with serving(tmp_path, empty_database) as own:
        yield own


@pytest.fixture
def crowd(server: ServerProcess) -> Iterator[Person]:
    return make_people(server)


def restart(server: ServerProcess) -> None:
    assert server.stop() == 0
    server.start(server.port)


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


def test_a_line_that_breaks_again_and_again_loses_and_doubles_nothing(tab: Page):
    lines: list[WebSocketRoute] = []

    def through(line: WebSocketRoute) -> None:
        lines.append(line)
        line.connect_to_server()

    tab.route_web_socket("**/ws/chat/", through)
    open_chat(tab)
    ask(tab, "count=150 interval_ms=30 tag=z", agent="metronome")
    for seen in ("10:z", "40:z", "70:z", "100:z"):
        expect(tab.locator(".text")).to_contain_text(seen, timeout=RETRY)
        lines[-1].close()
    expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded", timeout=RETRY)
    expect(tab.locator(".text")).to_have_text(beats(150, "z"))
    assert len(lines) == 5


def test_a_gap_closes_the_line_and_the_missing_events_are_fetched(tab: Page):
    lines: list[WebSocketRoute] = []

    def lossy(line: WebSocketRoute) -> None:
        lines.append(line)
        server = line.connect_to_server()
        frames = 0

        def lose_one(message: str | bytes) -> None:
            nonlocal frames
            frames += "events" in str(message)[:20]
            if len(lines) > 1 or frames != 5:
                line.send(message)

        server.on_message(lose_one)

    tab.route_web_socket("**/ws/chat/", lossy)
    open_chat(tab)
    ask(tab, "count=100 interval_ms=30 tag=g", agent="metronome")
    expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded", timeout=RETRY)
    expect(tab.locator(".text")).to_have_text(beats(100, "g"))
    assert len(lines) == 2


def test_a_tab_whose_user_logged_out_shows_nothing_any_more(tab: Page):
    open_chat(tab)
    ask(tab, "6 + 6", agent="assistant")
    expect(tab.locator(".text").last).to_contain_text("12")
    other = tab.context.new_page()
    open_chat(other)
    other.get_by_role("button", name="Log out").click()
    expect(other.get_by_role("heading", name="Log in to Turnout")).to_be_visible()
    expect(tab.get_by_role("heading", name="You are logged out")).to_be_visible(timeout=RETRY)
    expect(tab.locator("#connection-words")).to_have_text("You are logged out")
    expect(tab.get_by_text("6 + 6")).to_have_count(0)
    address = tab.url
    tab.get_by_role("link", name="Log in").click()
    expect(tab.get_by_text("go on to where you were")).to_be_visible()
    assert tab.url.endswith(f"?next={address.removeprefix(tab.url.split('/accounts')[0]).replace('/', '%2F')}")


def test_the_next_person_in_the_same_tab_finds_no_word_of_the_last(
    browser_of: Callable[..., BrowserContext], person: Person, stranger: Person, server: ServerProcess
):
    context = browser_of(person)
    page = context.new_page()
    open_chat(page)
    page.get_by_label("Message", exact=True).fill("a secret draft")
    stored = "JSON.stringify([Object.entries(sessionStorage), Object.entries(localStorage)])"
    assert "a secret draft" in page.evaluate(stored)
    context.add_cookies([{"name": "sessionid", "value": stranger.session, "url": server.url}])
    open_chat(page)
    assert "secret" not in page.evaluate(stored)
    expect(page.get_by_label("Message", exact=True)).to_have_value("")
    expect(page.locator(".account-name")).to_have_text(stranger.name)


def test_a_tab_that_comes_back_as_somebody_else_begins_anew(
    tab: Page, stranger: Person, server: ServerProcess, watch: Watch
):
    watch.expected = ("404",)
    lines: list[WebSocketRoute] = []

    def through(line: WebSocketRoute) -> None:
        lines.append(line)
        line.connect_to_server()

    tab.route_web_socket("**/ws/chat/", through)
    open_chat(tab)
    ask(tab, "8 + 8", agent="assistant")
    expect(tab.locator(".text").last).to_contain_text("16")
    tab.context.add_cookies([{"name": "sessionid", "value": stranger.session, "url": server.url}])
    lines[-1].close()
    expect(tab.locator(".account-name")).to_have_text(stranger.name)
    expect(tab.get_by_text("8 + 8")).to_have_count(0)
    expect(tab.get_by_role("heading", name="There is no such conversation")).to_be_visible()
