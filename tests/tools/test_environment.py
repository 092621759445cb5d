"""tools/environment.sh on machines that are set up in ways that have broken such scripts before."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


class Machine:
    """A folder with a copy of what the script reads, an own home and an own PATH."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "pro ject"
        self.home = folder / "home"
        self.bin = folder / "bin"
        self.pyenv = self.home / ".pyenv" / "versions" / "3.13.0" / "bin" / "python3"
        for path in (self.project / "tools", self.project / "requirements", self.bin, self.pyenv.parent):
            path.mkdir(parents=True)
        shutil.copy(ROOT / "tools" / "environment.sh", self.project / "tools")
        # Nothing to install: this is about finding a Python.
        for lock in ("production", "development"):
            (self.project / "requirements" / f"{lock}.txt").write_text("# nothing\n")
        for name in ("node", "npm"):
            self.program(self.bin / name, "exit 0")
        for name in ("sh", "dirname", "mkdir", "cmp", "cp", "rm", "tail", "grep", "awk"):
            (self.bin / name).symlink_to(shutil.which(name) or name)

    def program(self, path: Path, line: str) -> None:
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def real_python(self, path: Path) -> None:
        self.program(path, f'exec "{sys.base_prefix}/bin/python3" "$@"')

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "tools/environment.sh", "production"],
            cwd=self.project,
            env={"PATH": str(self.bin), "HOME": str(self.home), **environment},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_pyenvs_python_is_found_behind_a_shim_that_only_says_command_not_found(machine):
    machine.program(machine.bin / "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    machine.program(machine.bin / "python3", "echo 'Python 3.9'; exit 1")
    machine.real_python(machine.pyenv)
    first = machine.run()
    assert first.returncode == 0, first.stderr
    assert str(machine.pyenv) in first.stderr
    assert (machine.project / ".venv" / "bin" / "python").exists()
    second = machine.run()
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")


def test_without_any_python_one_line_says_what_to_do(machine):
    done = machine.run()
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith("turnout: no Python 3.12 or 3.13")
    assert "PYTHON=" in last
    assert len(done.stderr.splitlines()) == 2


def test_a_named_python_that_does_not_fit_is_refused_and_none_other_taken(machine):
    machine.real_python(machine.pyenv)
    machine.program(machine.bin / "python3.13", "exit 1")
    done = machine.run(PYTHON=str(machine.bin / "python3.13"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert not (machine.project / ".venv").exists()


def test_a_lock_that_cannot_be_had_is_one_line_and_is_tried_again(machine):
    machine.real_python(machine.pyenv)
    lock = machine.project / "requirements" / "production.txt"
    lock.write_text("turnout-no-such-package==1 --hash=sha256:" + "0" * 64 + "\n")
    offline = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    done = machine.run(**offline)
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith("turnout: pip could not install requirements/production.txt")
    lock.write_text("# nothing\n")
    assert machine.run(**offline).returncode == 0
