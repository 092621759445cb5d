"""The rollout room works in another project: what the tutorial says is done there, word for word.

The project is Django's own, fresh; of Turnout it has the room and the two files that the room needs, and nothing else.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import FENCE, page

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = page("tutorial/your-own-singleton.md")
FILE = re.compile(r"# (\S+\.py)(, at the end)?\n")
MAY_FIND_SOMETHING = ("audit_rollout", "audit_singletons")  # exit 1 is an answer


class Reader:
    """Somebody who does what the tutorial says, in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.printed = ""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "COV_", "PYTEST"))}
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        (bin_folder / "python").symlink_to(sys.executable)
        packages = next(path for path in sys.path if path.endswith("site-packages"))
        self.environment = kept | {
            "TURNOUT": str(ROOT),
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "PYTHONPATH": packages,  # the link above is no virtual environment
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def do(self, language, body):
        {"python": self.write, "sh": self.run, "text": self.compare}[language](body)

    def write(self, body):
        name, added = FILE.match(body).groups()
        path = self.folder / "project" / name
        before = path.read_text() if added else ""
        path.write_text(before + body.partition("\n")[2])

    def run(self, body):
        self.printed = ""
        for command in body.splitlines():
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=self.folder / "project",
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            allowed = {0, 1} if any(name in command for name in MAY_FIND_SOMETHING) else {0}
            assert done.returncode in allowed, f"{command}\n{done.stdout}\n{done.stderr}"
            self.printed += done.stdout

    def compare(self, body):
        for line in body.splitlines():
            assert line in self.printed, f"the tutorial shows {line!r}; printed was\n{self.printed}"


def test_the_tutorial_takes_a_singleton_through_all_stages_in_a_project_with_nothing_else_of_turnout(tmp_path):
    reader = Reader(tmp_path)
    (tmp_path / "project").mkdir()
    for _, language, body in FENCE.findall(TUTORIAL.text):
        reader.do(language, body)
    ours = {
        path.relative_to(tmp_path / "project" / "apps").parts[0] for path in (tmp_path / "project/apps").rglob("*.py")
    }
    assert ours == {"__init__.py", "rollout", "vocabulary.py", "findings.py"}


@pytest.mark.parametrize("stage", ["off", "shadow", "ramp", "on", "retired"])
def test_the_tutorial_passes_every_stage(stage):
    commands = "\n".join(TUTORIAL.fences("sh")) + "default: off"
    assert re.search(rf"\b{stage}\b", commands)
