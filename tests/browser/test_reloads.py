"""An answer with thoughts, tools and another agent in it, reloaded while it is told; two people beside each other."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import Person, Town, ask, beats, open_chat
from tests.budget import Budget
from tests.serving import ServerProcess, serving

pytestmark = pytest.mark.browser

# Ids of runs and messages differ from one answer to the next, as do the places of focus and scroll.
_WHAT_IS_READ = """() => {
  const copy = document.getElementById("transcript").cloneNode(true);
  for (const element of copy.querySelectorAll("*")) {
    for (const name of ["data-run", "style", "data-shown"]) element.removeAttribute(name);
  }
  return copy.innerHTML;
}"""

_WHAT_IS_KEPT = """async () => {
  const kept = [document.documentElement.outerHTML, JSON.stringify(localStorage), JSON.stringify(sessionStorage)];
  for (const name of await caches.keys()) {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) kept.push(request.url, await (await cache.match(request)).text());
  }
  kept.push(JSON.stringify(await indexedDB.databases()));
  return kept.join("\\n");
}"""


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory, town: Town) -> Iterator[ServerProcess]:
    environment = {"TURNOUT_AGENTS": "tests.browser.storyteller.Storyteller"}
    with serving(tmp_path_factory.mktemp("storytelling"), town.database, environment) as server:
        yield server


def told(page: Page) -> str:
    """The whole page of a story that has ended, with the agents known and the code coloured."""
    expect(page.locator(".turn").last).to_have_attribute("data-status", "succeeded")
    expect(page.locator(".who")).to_have_text("Storyteller")
    expect(page.locator(".subagent-line")).to_have_text("Metronome was asked")
    expect(page.locator(".code[data-coloured]")).to_have_count(1)
    html: str = page.evaluate(_WHAT_IS_READ)
    return html


def test_an_answer_that_was_reloaded_again_and_again_is_the_one_that_was_never_reloaded(
    tab: Page, time_budget: Callable[[str], Budget]
):
    open_chat(tab)
    ask(tab, "once upon", agent="storyteller")
    whole = told(tab)
    for dice in time_budget("browser").rounds():
        tab.goto("/")
        open_chat(tab)
        ask(tab, "once upon", agent="storyteller")
        expect(tab.locator(".turn")).to_have_attribute("data-status", "running")
        for _ in range(20):
            tab.wait_for_timeout(dice.uniform(0, 120))  # where in the story the reload falls is what is searched
            tab.reload()
            if tab.locator(".turn[data-status=succeeded]").count():
                break
        assert told(tab) == whole


def test_two_people_beside_each_other_never_hold_anything_of_the_other(
    browser_of: Callable[..., BrowserContext], person: Person, stranger: Person, time_budget: Callable[[str], Budget]
):
    pages = {name: browser_of(who).new_page() for name, who in (("anna", person), ("bert", stranger))}
    for page in pages.values():
        open_chat(page)
    for turn, _ in enumerate(time_budget("browser").rounds()):
        for name, page in pages.items():
            ask(page, f"count=3 interval_ms=20 tag=canary-{name}-{turn}", agent="metronome")
        for name, page in pages.items():
            expect(page.locator(".text").last).to_have_text(beats(3, f"canary-{name}-{turn}"))
    for name, page in pages.items():
        foreign = "canary-bert" if name == "anna" else "canary-anna"
        page.goto("/accounts/login/")
        page.go_back()
        expect(page.locator("#connection")).to_have_attribute("data-state", "open")
        kept = page.evaluate(_WHAT_IS_KEPT)
        assert f"canary-{name}" in kept
        assert foreign not in kept
