"""The way in, and the way out."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import PASSWORD, Person, ask, open_chat

pytestmark = pytest.mark.browser


@pytest.fixture
def door(browser_of: Callable[..., BrowserContext]) -> Page:
    return browser_of(None).new_page()


def test_a_user_logs_in_and_is_led_to_where_they_wanted(door: Page, person: Person):
    door.goto("/?from=a-link")
    expect(door).to_have_url(re.compile(r"/accounts/login/\?next="))
    door.get_by_label("User name").fill(person.name)
    door.get_by_label("Password").fill(PASSWORD)
    door.get_by_role("button", name="Log in").click()
    expect(door).to_have_url(re.compile(r"/\?from=a-link$"))
    expect(door.locator("#connection")).to_have_attribute("data-state", "open")
    expect(door.locator(".account-name span")).to_have_text(person.name)
    ask(door, "20% of 65", agent="assistant")
    expect(door.locator(".text").last).to_contain_text("13")


def test_a_wrong_password_is_told_and_the_name_is_kept(door: Page, person: Person):
    door.goto("/accounts/login/")
    door.get_by_label("User name").fill(person.name)
    door.get_by_label("Password").fill("wrong")
    door.get_by_role("button", name="Log in").click()
    expect(door.get_by_role("alert")).to_contain_text("correct username and password")
    expect(door.get_by_label("User name")).to_have_value(person.name)
    expect(door.get_by_label("Password")).to_have_value("")


def test_who_is_logged_in_is_not_asked_again(tab: Page):
    tab.goto("/accounts/login/")
    expect(tab).to_have_url(re.compile(r":\d+/$"))


def test_logging_out_ends_the_session_and_keeps_no_draft(tab: Page):
    open_chat(tab)
    tab.get_by_label("Message", exact=True).fill("for my eyes")
    tab.get_by_role("button", name="Log out").click()
    expect(tab.get_by_role("heading", name="Log in to Turnout")).to_be_visible()
    assert tab.evaluate("Object.keys(sessionStorage)") == []
    tab.go_back()
    expect(tab.get_by_role("heading", name="Log in to Turnout")).to_be_visible()


def test_pages_are_kept_by_no_cache(tab: Page):
    for address in ("/", "/accounts/login/"):
        response = tab.context.request.get(address, max_redirects=0)
        assert set(response.headers["cache-control"].split(", ")) >= {"private", "no-store"}
