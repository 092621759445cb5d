"""What the page costs the browser: `python -m benchmarks.page`, in a real Chromium, against a real server.

Three questions. How long from Enter to the first painted words of an answer? What does an answer of 200 KB cost the
main thread while it streams, beside a page that renders all of its Markdown anew for each paint? How many bytes is the
page? The answer is made up from a seed: paragraphs, lists, tables and code, in the proportions of a long reply.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

from playwright.sync_api import Page, sync_playwright

from tests.serving import ServerProcess, migrated_database
from tools.chromium import obtain_chromium

SEED = 20_260
ANSWER_BYTES = 200_000
PAINT_CHARACTERS = 64  # about sixteen tokens: a fast model at sixty paints a second
TOKEN_CHARACTERS = 4
PLAIN_EVERY = 40  # one paint of so many is measured of the plain page: all would take minutes
QUESTIONS = 30
_WORDS = [
    "the",
    "a",
    "turnout",
    "leads",
    "each",
    "train",
    "from",
    "one",
    "track",
    "to",
    "another",
    "without",
    "stopping",
    "and",
    "keeps",
    "signals",
    "points",
    "switches",
]
_PASSWORD = "a long enough passphrase"
_PERSON = (
    f"from django.contrib.auth import get_user_model as m; m().objects.create_user('reader', password={_PASSWORD!r})"
)

_FIRST_PAINT = """() => new Promise((resolve) => {
  const seen = document.querySelectorAll(".text").length;
  const root = document.getElementById("transcript");
  document.getElementById("prompt").addEventListener("keydown", () => {
    const began = performance.now();
    const observer = new MutationObserver(() => {
      if (![...document.querySelectorAll(".text")].slice(seen).some((text) => text.textContent)) return;
      observer.disconnect();
      requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began)));
    });
    observer.observe(root, { childList: true, subtree: true, characterData: true });
  }, { once: true, capture: true });
  window.paintReady = true;
})"""

_STREAM = """async ([text, step, every]) => {
  const address = [...document.querySelectorAll("link[rel=modulepreload]")].map(({ href }) => href);
  const { GrowingMarkdown, ready } = await import(address.find((href) => href.includes("/markdown.")));
  await ready;
  const base = address.find((href) => href.includes("/markdown."));
  const [{ Marked }, { default: purifier }] = await Promise.all(
    window.libraries.map((path) => import(new URL(path, base))));
  const place = document.createElement("div");
  document.getElementById("transcript").replaceChildren(place);
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  const measure = async (paint, stride) => {
    const costs = [];
    for (let end = step * stride; end < text.length + step * stride; end += step * stride) {
      await frame();
      const began = performance.now();
      paint(text.slice(0, end), end >= text.length);
      place.getBoundingClientRect(); // the layout is part of it
      costs.push(performance.now() - began);
    }
    place.replaceChildren();
    return costs;
  };
  const growing = new GrowingMarkdown(place);
  const own = await measure((part, whole) => growing.show(part, whole), 1);
  const marked = new Marked({ gfm: true });
  const plain = await measure((part) => { place.innerHTML = purifier.sanitize(marked.parse(part)); }, every);
  return { own, plain };
}"""


def answer() -> str:
    """The text that is streamed, the same each time."""
    dice = random.Random(SEED)
    parts: list[str] = []
    while sum(map(len, parts)) < ANSWER_BYTES:
        parts.append(dice.choice((_paragraph, _paragraph, _paragraph, _list, _code, _table))(dice))
    return "".join(parts)[:ANSWER_BYTES]


def _sentence(dice: random.Random) -> str:
    words = [dice.choice(_WORDS) for _ in range(dice.randint(8, 22))]
    words[dice.randrange(len(words))] = f"**{dice.choice(_WORDS)}**"
    words[dice.randrange(len(words))] = f"`{dice.choice(_WORDS)}()`"
    return " ".join(words).capitalize() + ". "


def _paragraph(dice: random.Random) -> str:
    return "".join(_sentence(dice) for _ in range(dice.randint(2, 6))) + "\n\n"


def _list(dice: random.Random) -> str:
    return "".join(f"- {_sentence(dice)}\n" for _ in range(dice.randint(3, 8))) + "\n"


def _code(dice: random.Random) -> str:
    lines = "".join(f"{dice.choice(_WORDS)} = {dice.randint(0, 999)}  # {dice.choice(_WORDS)}\n" for _ in range(12))
    return f"```python\n{lines}```\n\n"


def _table(dice: random.Random) -> str:
    rows = "".join(f"| {dice.choice(_WORDS)} | {dice.randint(0, 999)} |\n" for _ in range(6))
    return f"| name | count |\n| --- | ---: |\n{rows}\n"


@contextmanager
def opened_chat() -> Iterator[Page]:
    """A page that is logged in and connected, on a server of its own with production's static files."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        server = ServerProcess(folder, migrated_database(folder))
        for command in (
            ("compile_translations",),
            ("fetch_browser_libraries",),
            ("collectstatic", "--noinput", "-v", "0"),
            ("shell", "-v", "0", "-c", _PERSON),
        ):
            done = server.manage(*command)
            if done.returncode:
                raise RuntimeError(done.stderr)
        server.start()
        browser = playwright.chromium.launch(executable_path=obtain_chromium(), args=["--no-sandbox"])
        try:
            # The plain renderer of the comparison is what the page's policy would not run.
            page = browser.new_context(base_url=server.url, bypass_csp=True).new_page()
            page.goto("/")
            page.get_by_label("User name").fill("reader")
            page.get_by_label("Password").fill(_PASSWORD)
            page.get_by_role("button", name="Log in").click()
            page.locator("#connection[data-state=open]").wait_for()
            yield page
        finally:
            browser.close()
            server.stop()


def first_paints(page: Page) -> list[float]:
    """Milliseconds from Enter to the first painted words, once a question, all in one conversation."""
    page.get_by_label("Who answers").select_option("metronome")
    costs: list[float] = []
    for _ in range(QUESTIONS):
        page.evaluate(f"() => {{ window.painted = ({_FIRST_PAINT})(); }}")
        page.wait_for_function("window.paintReady")
        page.get_by_label("Message", exact=True).fill("count=1 interval_ms=1")
        page.get_by_label("Message", exact=True).press("Enter")
        costs.append(page.evaluate("window.painted"))
        page.locator(".turn").last.and_(page.locator("[data-status=succeeded]")).wait_for()
    return costs


def weight(page: Page) -> Mapping[str, int]:
    """Bytes over the line and bytes unpacked of all that the page loads, but for what the API tells it."""
    page.reload()
    page.locator("#connection[data-state=open]").wait_for()
    found: dict[str, int] = page.evaluate("""() => {
      const entries = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
        .filter(({ name }) => !name.includes("/api/"));
      const sum = (key) => entries.reduce((total, entry) => total + entry[key], 0);
      return { files: entries.length, packed_bytes: sum("encodedBodySize"), bytes: sum("decodedBodySize") };
    }""")
    return found


def streamed(page: Page) -> Mapping[str, Any]:
    """Main-thread milliseconds a 1,000 tokens, and the longest single paint, of this page and of the plain one."""
    libraries = [path.split("chat/static/")[-1] for path in ("../vendor/marked.js", "../vendor/dompurify.js")]
    page.evaluate("(paths) => { window.libraries = paths; }", page.evaluate(_MAPPED, libraries))
    costs = page.evaluate(_STREAM, [answer(), PAINT_CHARACTERS, PLAIN_EVERY])
    thousands = ANSWER_BYTES / TOKEN_CHARACTERS / 1_000
    return {
        "own": {"ms_per_1000_tokens": sum(costs["own"]) / thousands, "longest_ms": max(costs["own"])},
        "plain": {
            "ms_per_1000_tokens": sum(costs["plain"]) * PLAIN_EVERY / thousands,
            "longest_ms": max(costs["plain"]),
        },
    }


_MAPPED = """(paths) => {
  const map = document.querySelector("script[type=importmap]");
  const imports = map ? JSON.parse(map.textContent).imports : {};
  return paths.map((path) => imports[`/static/${path.replace("../", "")}`] ?? path);
}"""


def main() -> None:
    """Print the table; `--json FILE` writes the figures too."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    with opened_chat() as page:
        load = weight(page)
        paints = first_paints(page)
        stream = streamed(page)
    cuts = quantiles(paints, n=100)
    own, plain = stream["own"], stream["plain"]
    print(f"Enter to first painted words, {QUESTIONS} questions: p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms")
    print(f"An answer of {ANSWER_BYTES // 1_000} KB, {PAINT_CHARACTERS} characters a paint:")
    for name, cost in (("this page", own), ("all anew", plain)):
        print(f"  {name:9}  {cost['ms_per_1000_tokens']:8.1f} ms a 1,000 tokens, longest {cost['longest_ms']:6.1f} ms")
    print(f"  {plain['ms_per_1000_tokens'] / own['ms_per_1000_tokens']:.0f} times less work")
    packed, unpacked = load["packed_bytes"] / 1024, load["bytes"] / 1024
    print(f"Page: {load['files']} files, {packed:.0f} KiB over the line, {unpacked:.0f} KiB unpacked")
    if arguments.json:
        arguments.json.write_text(json.dumps({"first_paint_ms": paints, "stream": stream, "weight": load}, indent=2))


if __name__ == "__main__":
    main()
