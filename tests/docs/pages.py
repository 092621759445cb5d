"""Reading the documentation as tests need it: pages, headings, tables, links."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^(\s*)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def text(self):
        return self.path.read_text()

    @property
    def prose(self):
        """The text without its code blocks."""
        return FENCE.sub("", self.text)

    @property
    def links(self):
        """All link and picture targets outside of code."""
        return [plain or picture for plain, picture in LINK.findall(self.prose)]

    @property
    def anchors(self):
        """The anchors of the headings, as GitHub makes them."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def fences(self, language):
        """The code blocks of one language."""
        return [body for _, found, body in FENCE.findall(self.text) if found == language]

    def rows(self, section=None):
        """The rows of all tables of a section (up to the next heading of any level), as lists of cells."""
        prose = self.prose
        if section is not None:
            _, found, rest = prose.partition(f"# {section}\n")
            assert found, f"{self.path.name} has no section {section!r}"
            prose = re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]
        lines = [line for line in prose.splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
        rules = [index for index, row in enumerate(cells) if all(set(cell) <= set("-: ") for cell in row)]
        skipped = {index for rule in rules for index in (rule - 1, rule)}
        return [row for index, row in enumerate(cells) if index not in skipped]


def page(name):
    """A page of the documentation by its path below docs/."""
    return Page(DOCS / name)


def all_pages():
    """Every page of the documentation, and the Markdown files beside manage.py."""
    return [Page(path) for path in sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])]


def code(cell):
    """What stands in backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)
