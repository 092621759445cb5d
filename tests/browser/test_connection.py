"""What the page does when its line breaks, or somebody else sits down."""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, WebSocketRoute, expect

from tests.browser.conftest import Person, Watch, ask, beats, open_chat
from tests.serving import ServerProcess

pytestmark = pytest.mark.browser

RETRY = 30_000  # milliseconds: a machine under load takes its time to start a server


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
    expect(page.locator(".account-name span")).to_have_text(stranger.name)


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
    expect(tab.locator(".account-name span")).to_have_text(stranger.name)
    expect(tab.get_by_text("8 + 8")).to_have_count(0)
    expect(tab.get_by_role("heading", name="There is no such conversation")).to_be_visible()


@pytest.mark.parametrize("lost", ["the message", "its reply"])
def test_a_message_that_got_no_reply_before_a_reload_is_asked_exactly_once(tab: Page, lost: str):
    lines: list[WebSocketRoute] = []

    def lossy(line: WebSocketRoute) -> None:
        lines.append(line)
        is_first = len(lines) == 1
        server = line.connect_to_server()
        line.on_message(
            lambda frame: (
                None if is_first and lost == "the message" and "run.start" in str(frame) else server.send(frame)
            )
        )
        server.on_message(
            lambda frame: (
                None if is_first and lost == "its reply" and '"reply"' in str(frame)[:20] else line.send(frame)
            )
        )

    tab.route_web_socket("**/ws/chat/", lossy)
    open_chat(tab)
    ask(tab, "9 * 9", agent="assistant")
    expect(tab.locator(".bubble")).to_have_text(["9 * 9"])
    tab.reload()
    expect(tab.locator(".turn")).to_have_attribute("data-status", "succeeded")
    expect(tab.locator(".bubble")).to_have_text(["9 * 9"])
    expect(tab.locator(".text").last).to_contain_text("81")
    # The answer may be there before the reply to the command that was sent again.
    tab.wait_for_function(
        "() => sessionStorage.getItem(Object.keys(sessionStorage).find((key) => key.endsWith('outbox'))) === null"
    )
