from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from apps.agents.markdown import code, escape

TEXT = st.text(alphabet="ab \n\t*_`[]()!<>#&;:./\\~|-+={}1", max_size=60) | st.text(max_size=60)


def inline_types(source):
    (opening, inline, closing) = MarkdownIt("gfm-like", {"linkify": False}).parse(source)
    assert (opening.type, closing.type) == ("paragraph_open", "paragraph_close")
    return inline.children


@given(TEXT)
def test_escaped_text_is_shown_as_it_is_and_starts_nothing(text):
    escaped = escape(text)
    if escaped:
        children = inline_types(f"x {escaped} x")
        assert {child.type for child in children} <= {"text", "text_special"}


@given(TEXT)
def test_code_holds_the_text_whatever_backticks_it_has(text):
    shown = " ".join(text.replace("\0", "\N{REPLACEMENT CHARACTER}").split())
    if shown:
        (before, span, after) = inline_types(f"x {code(text)} x")
        assert (before.content, span.type, after.content) == ("x ", "code_inline", " x")
        assert " ".join(span.content.split()) == shown


def test_an_image_that_calls_home_becomes_text():
    html = MarkdownIt("commonmark").render(escape("![](https://evil.example/x.png) <img src=x>"))
    assert "<img" not in html
