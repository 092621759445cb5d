import json
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

from apps.rollout.singletons import RULES, Risk, UnreadableSourceError, findings_in, parse, search


def kinds(source):
    return {(found.kind.value, found.name) for found in findings_in(source.encode(), "x.py")}


@pytest.mark.parametrize(
    ("source", "kind", "name"),
    [
        ("_client = None\ndef get():\n    global _client\n    _client = Client()", "global-rebound", "_client"),
        ("runs = {}\ndef start(id):\n    runs[id] = 1", "module-state-changed", "runs"),
        ("RUNS = [1]\nasync def start(id):\n    RUNS.append(id)", "module-state-changed", "RUNS"),
        ("try:\n    runs = {}\nfinally:\n    pass\ndef f():\n    del runs[1]", "module-state-changed", "runs"),
        ("runs = {}", "module-container-empty", "runs"),
        ("runs: dict = defaultdict(list)", "module-container-empty", "runs"),
        ("names = ['a']", "module-container", "names"),
        ("engine = Engine()", "module-instance", "engine"),
        ("_engine = Engine()\ndef get_engine():\n    return _engine", "singleton", "_engine"),
        ("_engine = lib.Engine()\ndef get_engine():\n    return _engine", "singleton", "_engine"),
        ("_engine = Engine()\nasync def use(c):\n    yield _engine.bind(c)", "singleton", "_engine"),
        ("NOBODY = User()\ndef get():\n    return NOBODY", "module-constant-instance", "NOBODY"),
        ("engine = create_engine(URL)", "module-instance", "engine"),
        ("client = redis.from_url(URL)\ndef get_client():\n    return client", "singleton", "client"),
        ("@lru_cache\ndef get_engine():\n    return Engine()", "singleton", "get_engine"),
        ("@functools.lru_cache(maxsize=None)\ndef name_of(user_id): ...", "cached-function", "name_of"),
        ("class A:\n    @lru_cache(maxsize=1)\n    def f(self): ...", "cached-method", "A.f"),
        ("class A:\n    _instance = None\n    def __new__(cls): ...", "singleton", "A._instance"),
        ("class A:\n    def __new__(cls):\n        cls.it = 1", "singleton", "A.__new__"),
        ("class A:\n    @classmethod\n    def get_instance(cls): ...", "singleton", "A.get_instance"),
        (
            "class A:\n    runs = []\n    def add(self, x):\n        self.runs.append(x)",
            "class-state-changed",
            "A.runs",
        ),
        ("class A:\n    runs = {}\n    def f(self):\n        type(self).runs[1] = 2", "class-state-changed", "A.runs"),
        ("class A:\n    runs = {}", "class-container", "A.runs"),
        ("def f(x=[]):\n    return x", "mutable-default", "f(x)"),
        ("def f(*, x={}):\n    x['a'] = 1", "mutable-default-changed", "f(x)"),
        ("def f(a, /, b, x=set()):\n    x.add(b)", "mutable-default-changed", "f(x)"),
        ("user = ContextVar('user')", "context-variable", "user"),
        ("state = threading.local()", "context-variable", "state"),
        ("class A:\n    class B:\n        def f(self, x=[]): ...", "mutable-default", "B.f(x)"),
        ("if DEBUG:\n    cache = Cache()", "module-instance", "cache"),
    ],
)
def test_what_is_shared_is_found(source, kind, name):
    assert (kind, name) in kinds(source)


@pytest.mark.parametrize(
    "source",
    [
        "LIMITS = {'a': 1}\ndef f():\n    return LIMITS['a']",
        "logger = logging.getLogger(__name__)",
        "PATTERN = re.compile('x')",
        "T = TypeVar('T')",
        "KEYS = frozenset({'a'})",
        "__all__ = ['a']",
        "def f():\n    runs = {}\n    runs[1] = 2\n    return runs",
        "class A:\n    def __init__(self):\n        self.runs = []\n    def f(self):\n        self.runs.append(1)",
        "class A:\n    runs = []\n    def __init__(self):\n        self.runs = []",
        "class A(BaseModel):\n    runs: list[str] = []",
        "class A:\n    class Meta:\n        ordering = []",
        "class A:\n    __slots__ = ('a',)",
        "def f(x=(), y=None, z=frozenset()):\n    return x",
        "register = template.Library()",
        "read = foreign_function('read')\ndef f(x):\n    return read(x)",
        "class A:\n    @cached_property\n    def f(self): ...",
    ],
)
def test_what_is_not_shared_or_never_changes_is_passed_over(source):
    assert kinds(source) == set()


def test_a_local_variable_of_the_same_name_is_not_the_modules():
    source = "names = ['a']\ndef f(names):\n    names.append('b')\ndef g():\n    names = []\n    names.append('c')"
    assert kinds(source) == {("module-container", "names")}


def test_every_kind_is_ranked_and_says_what_to_do_instead():
    assert {rule.risk for rule in RULES.values()} == set(Risk)
    assert all(rule.why and rule.instead for rule in RULES.values())


@pytest.mark.parametrize(
    "source",
    [
        b"def f(:",
        b"x = '\0'",
        b"# coding: no-such-encoding\n",
        b"\xff\xfe\x00",
        b"x = " + b"(" * 50_000,
        b"print 'two'",
    ],
)
def test_what_is_no_python_is_said_to_be_unreadable(source):
    with pytest.raises(UnreadableSourceError):
        parse(source)


@pytest.mark.parametrize(
    "source",
    ["# coding: latin-1\nname\u00e9 = {}".encode("latin-1"), "\ufeffruns = {}".encode(), b"", b"x = '\\d'\nruns = {}"],
)
def test_files_are_read_in_the_encoding_that_they_declare(source):
    findings_in(source, "x.py")


STATE = """names = ['a']
_client = None
def set_client(c):
    global _client
    _client = c
"""


@pytest.fixture
def code(tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "state.py").write_text(
        "names = ['a']\n_client = None\ndef set_client(c):\n    global _client\n    _client = c\n"
    )
    (tmp_path / "app" / "broken.py").write_text("def f(:\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "lib.py").write_text("runs = {}\n")
    (tmp_path / "app" / "loop").symlink_to(tmp_path, target_is_directory=True)
    return tmp_path


def run(capsys, *arguments):
    status = 0
    try:
        call_command("audit_singletons", *map(str, arguments))
    except SystemExit as ended:
        status = ended.code
    return status, capsys.readouterr().out


def test_the_most_dangerous_comes_first_and_what_could_not_be_read_is_named(code, capsys):
    status, text = run(capsys, code)
    lines = text.splitlines()
    assert status == 1
    assert lines[0].split() == ["HIGH", "app/state.py:5", "global-rebound", "_client", "(set", "by", "a", "function)"]
    assert lines[1].startswith("LOW ")
    assert lines[2].startswith("UNREAD  app/broken.py: no Python")
    assert lines[3].startswith(
        "Singletons: 1 high, 0 medium, 1 low in 2 files, 1 not read.  Next: _client in app/state.py"
    )
    assert len(lines) == 4


def test_less_dangerous_findings_can_be_left_out(code, capsys):
    status, text = run(capsys, code / "app" / "state.py", "--at-least", "high", "--json")
    assert status == 1
    assert [found["name"] for found in json.loads(text)["findings"]] == ["_client"]


def test_sarif_names_the_rule_the_place_and_what_was_not_read(code, capsys):
    status, text = run(capsys, code, "--sarif")
    (run_of_tool,) = json.loads(text)["runs"]
    rules = run_of_tool["tool"]["driver"]["rules"]
    first = run_of_tool["results"][0]
    assert status == 1
    assert json.loads(text)["version"] == "2.1.0"
    assert rules[first["ruleIndex"]]["id"] == first["ruleId"] == "global-rebound"
    assert first["level"] == "error"
    place = first["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("app/state.py", 5)
    notices = run_of_tool["invocations"][0]["toolExecutionNotifications"]
    assert "no Python" in notices[0]["message"]["text"]


def test_nothing_found_is_only_said_where_everything_was_read(tmp_path, capsys):
    (tmp_path / "clean.py").write_text("X = 1\n")
    assert run(capsys, tmp_path)[0] == 0
    (tmp_path / "broken.py").write_text("def f(:\n")
    assert run(capsys, tmp_path)[0] == 2


@pytest.mark.parametrize("output", [[], ["--json"], ["--sarif"]])
def test_a_path_without_python_could_not_be_looked_at(tmp_path, capsys, output):
    for path in (tmp_path, tmp_path / "missing"):
        status, text = run(capsys, path, *output)
        assert status == 2
        assert "holds no Python file" in text


def test_a_package_that_is_searched_is_never_imported(tmp_path):
    (tmp_path / "bomb.py").write_text("raise SystemExit('imported')\nruns = {}\n")
    assert [found.name for found in search(tmp_path).findings] == ["runs"]


def test_a_well_known_package_is_searched_whole():
    code = "from pathlib import Path; import waffle, channels.layers as c; print(Path(c.__file__).parent)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    report = search(Path(done.stdout.strip()))
    assert ("module-instance", "layers.py", "channel_layers") in {(f.kind, f.path, f.name) for f in report.findings}
    assert report.unread == ()
