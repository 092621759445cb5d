"""`make screenshots`: a picture of each state of the pages, in docs/pictures, by a real browser on a real server.

Everything in them is made by the server that is shown: questions are asked, answers streamed, a server is stopped. The
account is called `reader` and lives as long as this command.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.serving import ServerProcess, migrated_database
from tools.chromium import NoChromiumError, obtain_chromium

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
DESK: dict[str, Any] = {"viewport": {"width": 1200, "height": 780}}
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
DARK: dict[str, Any] = {"color_scheme": "dark"}
_PASSWORD = "a long enough passphrase"  # noqa: S105 - of an account that lives as long as this command
_READER = (
    "from django.contrib.auth import get_user_model as m; "
    f"m().objects.create_superuser('reader', password={_PASSWORD!r})"
)


class Studio:
    """A server with one account, and a browser that is logged in."""

    def __init__(self, server: ServerProcess, browser: Browser) -> None:
        self.server = server
        self.browser = browser
        self._login: Any = None

    @contextmanager
    def page(self, **look: Any) -> Iterator[Page]:
        """A page of the account, connected to the chat."""
        context = self.browser.new_context(base_url=self.server.url, storage_state=self._login, **look)
        try:
            page = context.new_page()
            if self._login is None:
                log_in(page)
                self._login = context.storage_state()
            page.goto("/")
            connected(page)
            yield page
        finally:
            context.close()


def log_in(page: Page) -> None:
    """Log in by the form."""
    page.goto("/accounts/login/")
    page.get_by_label("User name").fill("reader")
    page.get_by_label("Password").fill(_PASSWORD)
    page.get_by_role("button", name="Log in").click()


def connected(page: Page) -> None:
    """Wait until the tab follows the stream."""
    page.locator("#connection[data-state=open]").wait_for()
    page.locator("#agent option").first.wait_for(state="attached")


def ask(page: Page, text: str, agent: str = "assistant", status: str = "succeeded") -> None:
    """Ask in the open conversation and wait for that state of the answer."""
    turns = page.locator(".turn[data-run]")
    before = turns.count()
    page.get_by_label("Who answers").select_option(agent)
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_label("Message", exact=True).press("Enter")
    page.locator(f".turn[data-run]:nth-child({before + 1})[data-status={status}]").wait_for()


def login(page: Page) -> None:
    """The door."""
    page.context.clear_cookies()
    page.goto("/accounts/login/")


def welcome(_page: Page) -> None:
    """Nothing was asked yet."""


def chat(page: Page) -> None:
    """A conversation, while the next answer streams."""
    ask(page, "What is 12 * 13?")
    ask(page, "days until 2030-01-01")
    page.locator(".fold summary").first.click()
    ask(page, "count=2000 interval_ms=15 tag=train", "metronome", "running")
    page.locator(".text").last.filter(has_text="40:train").wait_for()


def branches(page: Page) -> None:
    """A question in two wordings, and an agent that asked another."""
    ask(page, "What is 7 * 6?")
    ask(page, "@assistant What is 7 * 6 + 1?", "supervisor")
    turn = page.locator(".turn[data-run]").last
    turn.get_by_role("button", name="Answer again").click()
    turn.get_by_role("group", name="Answers").filter(has_text="2 of 2").wait_for()
    turn = page.locator(".turn[data-run]").first
    turn.hover()
    turn.get_by_role("button", name="Edit").click()


def failure(page: Page) -> None:
    """An agent that failed, and one that was stopped."""
    ask(page, "mode=raise after=3", "faulty", "failed")


def queue(page: Page) -> None:
    """A message that waits behind a running answer."""
    ask(page, "count=2000 interval_ms=20 tag=long", "metronome", "running")
    page.locator(".text").last.filter(has_text="5:long").wait_for()
    ask(page, "What is 1 + 1?", status="queued")


def shortcuts(page: Page) -> None:
    """The sheet of keys."""
    page.keyboard.press("Control+/")


STATES: dict[str, tuple[Callable[[Page], None], dict[str, Any]]] = {
    "login": (login, DESK),
    "welcome": (welcome, DESK),
    "chat": (chat, DESK),
    "chat-dark": (chat, DESK | DARK),
    "chat-phone": (chat, PHONE),
    "branches": (branches, DESK),
    "failure": (failure, DESK),
    "queue": (queue, PHONE | DARK),
    "shortcuts": (shortcuts, DESK | DARK),
    "german": (welcome, DESK | {"locale": "de-DE"}),
}


@contextmanager
def opened_studio() -> Iterator[Studio]:
    """Raises NoChromiumError; RuntimeError with the output of a set-up that failed."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        server = ServerProcess(folder, migrated_database(folder))
        for command in (
            ("compile_translations",),
            ("fetch_browser_libraries",),
            ("collectstatic", "--noinput", "-v", "0"),
            ("shell", "-v", "0", "-c", _READER),
        ):
            done = server.manage(*command)
            if done.returncode:
                raise RuntimeError(done.stderr)
        server.start()
        browser = playwright.chromium.launch(executable_path=obtain_chromium(), args=["--no-sandbox"])
        try:
            yield Studio(server, browser)
        finally:
            browser.close()
            server.kill()


def main() -> int:
    """Exit 1, with one line, where there is no browser. Names of states as arguments make only these."""
    wanted = sys.argv[1:] or list(STATES)
    unknown = sorted(set(wanted) - set(STATES))
    if unknown:
        print(f"turnout: no state {', '.join(unknown)}; there are {', '.join(STATES)}", file=sys.stderr)
        return 1
    PICTURES.mkdir(exist_ok=True)
    try:
        with opened_studio() as studio:
            for name in wanted:
                show, look = STATES[name]
                with studio.page(**look) as page:
                    show(page)
                    page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")
                print(f"docs/pictures/{name}.png", flush=True)
    except NoChromiumError as error:
        print(f"turnout: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
