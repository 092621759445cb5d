"""The leak, live, in a browser: wrong recipients are counted on the singletons, and none from the next run on after one
click, on the same sockets.
"""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

SHOW = "/admin/leak-live/"


@pytest.fixture
def host(person, server):
    """Somebody who may move stages."""
    promoted = server.manage(
        "shell",
        "-v",
        "0",
        "-c",
        f"from django.contrib.auth.models import User\n"
        f"User.objects.filter(pk={person.id}).update(is_staff=True, is_superuser=True)",
    )
    assert promoted.returncode == 0, promoted.stderr
    return person


def number(page, selector):
    return int(page.locator(selector).inner_text())


def expect_at_least(page, selector, tens):
    """Waits until the number is at least so many tens; the page's policy lets no test evaluate text."""
    expect(page.locator(selector)).to_have_text(re.compile(rf"^([{tens}-9]\d|\d{{3,}})$"), timeout=30_000)


def test_one_click_ends_the_leak_from_the_next_run_on_without_a_reconnect(browser_of, host, watch):
    watch.expected = ("favicon",)  # the admin has none
    page = browser_of(host).new_page()
    page.goto(SHOW)
    page.get_by_role("button", name="Begin the show").click()
    expect(page.locator(".seat .state")).to_have_text(["open", "open"])
    expect_at_least(page, "#wrong-legacy", 2)
    assert page.locator(".stream .wrong").count() > 0
    assert number(page, "#wrong-factory") == number(page, "#right-factory") == 0

    page.get_by_role("button", name="Serve both by the factory").click()
    expect(page.locator("#told")).to_contain_text("From their next runs on, the factory serves both.")
    expect_at_least(page, "#right-factory", 6)
    assert number(page, "#wrong-factory") == 0
    expect(page.locator(".seat .state")).to_have_text(["open", "open"])
    assert page.locator(".connections").all_inner_texts() == ["1", "1"], "the sockets are those of the beginning"

    page.get_by_role("button", name="End the show").click()
    expect(page.get_by_role("button", name="Begin the show")).to_be_visible()


def test_nobody_but_who_may_move_stages_sees_the_show_or_takes_a_seat(browser_of, person, watch):
    watch.expected = ("403", "leak-live", "favicon")
    page = browser_of(person).new_page()
    page.goto(SHOW)
    assert "/admin/login/" in page.url
    page.goto("/")
    closed = page.evaluate(
        """() => new Promise((resolve) => {
             const socket = new WebSocket(`ws://${location.host}/ws/leak-live/a/`, "turnout.v1");
             socket.onclose = (event) => resolve(event.code);
           })"""
    )
    assert closed == 4401
