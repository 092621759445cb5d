"""Answers as Markdown: what a model writes is shown, and does nothing else. In the page itself, under its policy."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page, Request, expect

from tests.browser.conftest import open_chat

pytestmark = pytest.mark.browser

_OPEN_WORKBENCH = """async () => {
  const address = [...document.querySelectorAll("link[rel=modulepreload]")]
    .map((link) => link.href).find((href) => href.includes("/markdown."));
  window.markdown = await import(address);
  await window.markdown.ready;
  const transcript = document.getElementById("transcript");
  transcript.replaceChildren = transcript.append = () => {};  // what the chat has to say does not come between
  window.render = (text) => {
    const place = document.createElement("div");
    Element.prototype.replaceChildren.call(transcript, place);
    new window.markdown.GrowingMarkdown(place).show(text, true);
    return place;
  };
}"""

_GROW = """([text, cuts]) => {
  const place = document.createElement("div");
  const growing = new window.markdown.GrowingMarkdown(place);
  for (const cut of cuts) growing.show(text.slice(0, cut), false);
  growing.show(text, true);
  return [place.innerHTML, window.render(text).innerHTML];
}"""

HOSTILE = [
    "<script>window.harmed = 1</script>",
    "<img src=x onerror='window.harmed = 1'>",
    "<svg/onload=window.harmed=1>",
    "<iframe srcdoc='<script>parent.harmed=1</script>'></iframe>",
    "<a href='javascript:window.harmed=1'>x</a>",
    "[x](javascript:window.harmed=1)",
    "[x](JaVaScRiPt:window.harmed=1)",
    "[x](java\tscript:window.harmed=1)",
    "[x](&#106;avascript:window.harmed=1)",
    "[x](data:text/html,<script>parent.harmed=1</script>)",
    "[x](vbscript:window.harmed)",
    "![x](https://tracker.example/pixel.png)",
    "![x](data:image/svg+xml,<svg onload=window.harmed=1>)",
    "![x][1]\n\n[1]: https://tracker.example/pixel.png",
    '<https://tracker.example/"onmouseover="window.harmed=1>',
    "<style>body{display:none}</style>",
    "<div style='position:fixed;inset:0'>over all</div>",
    "<form action='https://evil.example'><input name=q><button>go</button></form>",
    "<base href='https://evil.example/'>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<div id=app></div><form name=cookie></form>",
    '```" onload=window.harmed=1\n<script>window.harmed=1</script>\n```',
    "| a |\n| - |\n| <img src=x onerror=window.harmed=1> |",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.harmed=1>",
    "[x](//evil.example/relative)",
    "[x](/accounts/logout/)",
]
NEVER = (
    "script,style,img,svg,iframe,form,input,base,meta,link,object,embed,math,"
    "[style],[id],[name],[onerror],[onload],[onmouseover]"
)


@pytest.fixture
def workbench(tab: Page) -> Page:
    open_chat(tab)
    tab.evaluate(_OPEN_WORKBENCH)
    return tab


def rendered(page: Page, text: str) -> Any:
    return page.evaluate("(text) => window.render(text).innerHTML", text)


def test_hostile_markdown_renders_inert_and_loads_nothing(workbench: Page):
    asked_elsewhere: list[str] = []

    def note(request: Request) -> None:
        asked_elsewhere.append(request.url)

    workbench.on("request", note)
    for text in [*HOSTILE, "\n\n".join(HOSTILE)]:
        workbench.evaluate("(text) => window.render(text)", text)
        assert workbench.locator("#transcript").locator(NEVER).count() == 0, text
        for link in workbench.locator("#transcript a").all():
            assert (link.get_attribute("href") or "").startswith(("https://", "http://", "mailto:")), text
    assert workbench.evaluate("window.harmed") is None
    assert asked_elsewhere == []


def test_raw_html_is_shown_as_the_text_that_it_is(workbench: Page):
    workbench.evaluate("(text) => window.render(text)", "before <b onclick=x>bold</b> after")
    expect(workbench.locator("#transcript")).to_have_text("before <b onclick=x>bold</b> after")


def test_a_link_says_which_host_it_leads_to_and_opens_apart(workbench: Page):
    text = (
        "[your bank](https://\u0430pple.example/login) and https://docs.example.org/page "
        "and [good.example](https://evil.example/)"
    )
    workbench.evaluate("(text) => window.render(text)", text)
    links = workbench.locator("#transcript a")
    expect(links).to_have_text(
        [
            "your bank (xn--pple-43d.example)",  # the first letter is Cyrillic
            "https://docs.example.org/page",
            "good.example (evil.example)",
        ]
    )
    for link in links.all():
        assert link.get_attribute("target") == "_blank"
        assert set((link.get_attribute("rel") or "").split()) >= {"noopener", "noreferrer"}


def test_an_image_is_a_link_that_the_reader_may_follow(workbench: Page):
    workbench.evaluate("(text) => window.render(text)", "![a map](https://maps.example/1.png)")
    expect(workbench.locator("#transcript a")).to_have_text("Image: a map (maps.example)")


def test_code_is_coloured_and_can_be_copied(workbench: Page):
    code = "def double(x):\n    return 2 * x  # <b>not bold</b>"
    workbench.context.grant_permissions(["clipboard-read", "clipboard-write"])
    workbench.evaluate("(text) => window.markdown.highlight(window.render(text))", f"```python\n{code}\n```")
    expect(workbench.locator("#transcript .hljs-keyword").first).to_have_text("def")
    expect(workbench.locator("#transcript pre")).to_have_text(code)
    workbench.get_by_role("button", name="Copy code").click()
    expect(workbench.get_by_role("button", name="Copied")).to_be_visible()
    assert workbench.evaluate("navigator.clipboard.readText()") == code


PIECES = [
    "# Head\n", "words ", "*it* ", "**bold", "** ", "\n", "\n\n", "- item\n", "  - inner\n", "1. one\n", "> quoted\n",
    "```js\n", "let a = 1;\n", "```\n", "| a | b |\n", "| - | - |\n", "| 1 | 2 |\n", "---\n", "===\n", "[link][r] ",
    "[r]: https://r.example\n", "<i>", "    indented\n", "- [x] done\n", "`code` ", "\\", "é", "𝄞 ", "![x](y) ",
    "~~gone~~",
]  # fmt: skip


@given(pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=40), chance=st.randoms(use_true_random=False))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_answer_that_grew_is_the_same_as_one_that_came_whole(workbench: Page, pieces: list[str], chance: Any):
    text = "".join(pieces)
    cuts = sorted(chance.randint(0, len(text)) for _ in range(12))
    grown, whole = workbench.evaluate(_GROW, [text, cuts])
    assert grown == whole


def test_nesting_without_end_is_shown_and_does_not_hold_up_the_page(workbench: Page):
    for text in (">" * 20_000 + " x", "- " * 5_000 + "x", "[" * 20_000, "*a " * 10_000, "`" * 20_000, "![" * 10_000):
        took = workbench.evaluate(
            "(text) => { const began = performance.now(); window.render(text); return performance.now() - began; }",
            text,
        )
        assert took < 4_000, text[:10]
        assert workbench.locator("#transcript > div").inner_text() != ""


def test_without_the_libraries_answers_are_plain_text(tab: Page):
    tab.route("**/vendor/**", lambda route: route.fulfill(status=200, content_type="text/javascript", body="throw 1"))
    open_chat(tab)
    tab.get_by_label("Message", exact=True).fill("2 * 21")
    tab.get_by_role("button", name="Send").click()
    expect(tab.locator(".text .plain").last).to_contain_text("**42**")
