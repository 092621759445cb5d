import pytest

from apps.rollout.references import find_references, references_in
from apps.rollout.singletons import parse

TARGET = "acme.billing.get_client"


def references(source, module="acme.views"):
    return list(references_in(parse(source.encode()), module, TARGET))


@pytest.mark.parametrize(
    "source",
    [
        "from acme.billing import get_client",
        "from acme.billing import build_client, get_client as old",
        "from .billing import get_client",
        "from acme.billing import *",
        "import acme.billing\nacme.billing.get_client()",
        "import acme.billing as money\nmoney.get_client()",
        "from acme import billing\nclient = billing.get_client",
        "from . import billing\nbilling.get_client()",
        "import_string('acme.billing.get_client')",
        "def f():\n    from acme.billing import get_client",
        "if TYPE_CHECKING:\n    from acme.billing import get_client",
    ],
)
def test_every_way_of_naming_the_path_is_found_once(source):
    assert len(references(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from acme.billing import build_client",
        "from other.billing import get_client",
        "from ..billing import get_client",
        "import acme.billing\nacme.billing.build_client()",
        "get_client()",
        "class A:\n    def get_client(self): ...",
        "'see acme.billing.get_client'",
    ],
)
def test_what_only_looks_like_it_is_passed_over(source):
    assert references(source) == []


def test_a_relative_import_in_a_package_is_read_from_the_package():
    assert references("from .billing import get_client", module="acme.__init__")
    assert references("from ..billing import get_client", module="acme.shop.views")


def test_what_lies_below_the_target_is_named_by_it():
    found = list(references_in(parse(b"from acme.billing.Client import x"), "a.b", "acme.billing.Client"))
    assert [line for line, _ in found] == [1]


def test_files_are_named_with_their_line_but_for_those_that_may_name_it(tmp_path):
    for name in ("acme/billing.py", "acme/seams.py", "acme/views.py", "acme/broken.py", "acme/other.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x = 1\nfrom acme.billing import get_client\n")
    (tmp_path / "acme/broken.py").write_text("get_client(\n")
    (tmp_path / "acme/other.py").write_text("def f(:\n")  # does not even hold the words
    unread = []
    left_out = {tmp_path / "acme/billing.py", tmp_path / "acme/seams.py"}
    found = find_references(TARGET, tmp_path, [tmp_path / "acme"], left_out=left_out, on_unread=unread.append)
    assert [str(reference) for reference in found] == ["acme/views.py:2"]
    assert [text.partition(":")[0] for text in unread] == ["acme/broken.py"]
