"""Links lead somewhere, and files and modules that pages name are there."""

import importlib
import re

import pytest

from tests.docs.pages import DOCS, ROOT, Page, all_pages, page

PAGES = all_pages()
KINDS = ("tutorial", "how-to", "reference", "explanation")


def names(pages):
    return [str(one.path.relative_to(ROOT)) for one in pages]


@pytest.mark.parametrize("one", PAGES, ids=names(PAGES))
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(one):
    broken = []
    for target in one.links:
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        path = (one.path.parent / file).resolve() if file else one.path
        if not path.exists() or (anchor and anchor not in Page(path).anchors):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("one", PAGES, ids=names(PAGES))
def test_every_source_file_that_is_named_exists(one):
    named = re.findall(r"`((?:apps|project|tests|benchmarks|tools|docs)/[\w./-]+)`", one.text)
    named += re.findall(r"\b((?:apps|project)/[\w/]+\.py)\b", one.text)
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("one", PAGES, ids=names(PAGES))
def test_every_dotted_name_of_ours_can_be_imported(one):
    wrong = []
    for dotted in re.findall(r"(?<![\w/.])((?:apps|project)\.[\w.]*\w)", one.prose):
        parts = dotted.split(".")
        for cut in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:cut]))
            except ModuleNotFoundError:
                continue
            for part in parts[cut:]:
                found = getattr(found, part, None)
            break
        else:
            found = None
        if found is None and dotted != "apps.get_app_config":
            wrong.append(dotted)
    assert wrong == []


def test_there_are_pages_of_all_four_kinds_and_the_index_leads_to_every_one():
    index = {(DOCS / target.partition("#")[0]).resolve() for target in page("README.md").links}
    for kind in KINDS:
        pages = sorted((DOCS / kind).glob("*.md"))
        assert pages, kind
        assert [path.name for path in pages if path.resolve() not in index] == []


def test_every_page_begins_with_its_title():
    assert [one.path.name for one in PAGES if not one.text.startswith("# ")] == []
