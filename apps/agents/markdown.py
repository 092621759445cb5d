"""Text of others inside our Markdown. Pure.

A thread's title is a user's text; unescaped, `![](https://…)` in it would make every reader's browser call
home.
"""

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~&:@/])")
_BACKTICKS = re.compile(r"`+")
_SPACE = re.compile(r"\s+")

_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*\)")
_MARKS = re.compile(r"\*+|`+|~~|(?:^|(?<=\n))\s{0,3}(?:#{1,6}|>|[-+]|\d{1,9}[.)])\s|\\(?=[^\w\s])|\|")


def plain(text: str) -> str:
    """A piece of Markdown on one line, without the marks: for an excerpt, which shows words and no layout."""
    return _SPACE.sub(" ", _MARKS.sub("", _LINK.sub(r"\1", text))).strip()


def escape(text: str) -> str:
    """The text, on one line, shown as it is. Colons and slashes too: a bare address would become a link."""
    return _SPECIAL.sub(r"\\\1", _SPACE.sub(" ", text).strip())


def code(text: str) -> str:
    """The text as a code span, whatever backticks it holds itself."""
    line = _SPACE.sub(" ", text).strip()
    longest = max((len(run) for run in _BACKTICKS.findall(line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"
