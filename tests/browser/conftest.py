"""A real server with the static files of production, people who are logged in, and tabs that notice what goes wrong."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from tests.serving import ServerProcess, migrated_database, serving

expect.set_options(timeout=20_000)  # milliseconds; what is expected comes at once, but on a busy machine

PASSWORD = "a long enough passphrase"
PEOPLE = 100

# Sessions are made as a log in makes them; hashing a password for each test would cost more than the test.
_MAKE_PEOPLE = f"""
import json
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.auth.hashers import make_password
User = get_user_model()
store = import_module(settings.SESSION_ENGINE).SessionStore
password = make_password({PASSWORD!r})
people = []
for number in range({PEOPLE}):
    user = User.objects.create(username=f"person{{number}}", password=password)
    session = store()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    people.append({{"name": user.username, "session": session.session_key, "id": str(user.pk)}})
print(json.dumps(people))
"""

# Before anything of the page runs: what the policy refused is kept where the test finds it.
_WATCH_POLICY = """
window.policyViolations = [];
addEventListener("securitypolicyviolation", (event) => {
  window.policyViolations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
}, true);
"""


@dataclass(frozen=True)
class Person:
    """Somebody with an account; `session` is their cookie's value."""

    name: str
    session: str
    id: str


@dataclass(frozen=True)
class Town:
    """A database in which people live, to be copied for each server; each of them is used by one test."""

    database: Path
    people: Iterator[Person]


@dataclass
class Watch:
    """What tabs complained about. A test that provokes a failed request says so in `expected`."""

    complaints: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    def hear_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.hear(f"{message.text} {message.location['url']}")

    def hear(self, text: str) -> None:
        if not any(words in text for words in self.expected):
            self.complaints.append(text)


@pytest.fixture(scope="session")
def static_files() -> None:
    """What production serves: hashed names, and the browser libraries as they are locked."""
    call_command("fetch_browser_libraries", verbosity=0)
    call_command("compile_translations", verbosity=0)


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory, static_files: None) -> Town:
    folder = tmp_path_factory.mktemp("town")
    database = migrated_database(folder)
    clerk = ServerProcess(folder, database)
    collected = clerk.manage("collectstatic", "--noinput", "-v", "0")
    assert collected.returncode == 0, collected.stderr
    done = clerk.manage("shell", "-v", "0", "-c", _MAKE_PEOPLE)
    assert done.returncode == 0, done.stderr
    people = [Person(**person) for person in json.loads(done.stdout.splitlines()[-1])]
    return Town(clerk.database, iter(people))


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory, town: Town) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("server"), town.database) as server:
        yield server


@pytest.fixture
def server(shared_server: ServerProcess) -> ServerProcess:
    return shared_server


@pytest.fixture
def person(town: Town) -> Person:
    return next(town.people)


@pytest.fixture
def stranger(town: Town) -> Person:
    return next(town.people)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def browser_of(browser: Browser, server: ServerProcess, watch: Watch) -> Iterator[Callable[..., BrowserContext]]:
    """A browser profile in which this person is logged in (None: nobody is)."""
    contexts: list[BrowserContext] = []

    def open_profile(person: Person | None, **options: Any) -> BrowserContext:
        context = browser.new_context(base_url=server.url, **options)
        contexts.append(context)
        if person is not None:
            context.add_cookies([{"name": "sessionid", "value": person.session, "url": server.url}])
        context.add_init_script(_WATCH_POLICY)
        context.on("console", watch.hear_console)
        context.on("weberror", lambda problem: watch.hear(str(problem.error)))
        return context

    yield open_profile
    for context in contexts:
        for page in context.pages:
            for violation in page.evaluate("window.policyViolations ?? []"):
                watch.hear(violation)
        context.close()
    assert watch.complaints == []


@pytest.fixture
def tab(browser_of: Callable[..., BrowserContext], person: Person) -> Page:
    """A tab of the test's person."""
    return browser_of(person).new_page()


def open_chat(page: Page, address: str = "/") -> None:
    """Open the chat and wait until it is connected."""
    page.goto(address)
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")


def ask(page: Page, text: str, agent: str | None = None) -> None:
    """Write a message and press Enter."""
    if agent is not None:
        page.get_by_label("Who answers").select_option(agent)
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_label("Message", exact=True).press("Enter")


def beats(count: int, tag: str) -> str:
    """What the metronome says, as it is shown."""
    return " ".join(f"{number}:{tag}" for number in range(count))
