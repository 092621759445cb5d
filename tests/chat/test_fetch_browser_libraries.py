"""Fetching the page's libraries: with an npm of the test's own on PATH, whose every call is written down."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from apps.chat.management.commands.fetch_browser_libraries import FILES

ROOT = Path(__file__).resolve().parent.parent.parent

GOOD_NPM = """#!/bin/sh
echo "$@" >> "{calls}"
for file in {files}; do
  mkdir -p "node_modules/$(dirname "$file")"
  printf 'export default "%s";\\n//# sourceMappingURL=lost.map\\n' "$file" > "node_modules/$file"
done
"""
BAD_NPM = """#!/bin/sh
echo "npm error code E404" >&2
echo "npm error the rest of a long story" >&2
exit 1
"""


class Folder:
    """A project that has nothing but the lock, and a PATH that has nothing but this npm."""

    def __init__(self, root: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root / "project"
        self.tools = root / "tools"
        self.calls = root / "calls"
        self.root.mkdir()
        self.tools.mkdir()
        shutil.copy(ROOT / "package-lock.json", self.root)
        settings.BASE_DIR = self.root
        monkeypatch.setenv("PATH", f"{self.tools}:/usr/bin:/bin")
        self.install("node", "#!/bin/sh\n")

    def install(self, name: str, script: str) -> None:
        path = self.tools / name
        path.write_text(script.replace("{calls}", str(self.calls)).replace("{files}", " ".join(FILES)))
        path.chmod(0o755)

    @property
    def vendor(self) -> Path:
        return self.root / "apps" / "chat" / "static" / "vendor"

    def times_fetched(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0


@pytest.fixture
def folder(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path, settings, monkeypatch)


def test_the_libraries_are_fetched_once_and_again_only_when_the_lock_changed(folder: Folder):
    folder.install("npm", GOOD_NPM)
    for _ in range(2):
        call_command("fetch_browser_libraries", verbosity=0)
    assert folder.times_fetched() == 1
    lock = folder.root / "package-lock.json"
    lock.write_text(lock.read_text().replace('"lockfileVersion": 3', '"lockfileVersion":  3'))
    call_command("fetch_browser_libraries", verbosity=0)
    assert folder.times_fetched() == 2


def test_a_copy_that_lost_a_file_is_fetched_again(folder: Folder):
    folder.install("npm", GOOD_NPM)
    call_command("fetch_browser_libraries", verbosity=0)
    (folder.vendor / "marked.js").unlink()
    call_command("fetch_browser_libraries", verbosity=0)
    assert (folder.vendor / "marked.js").exists()


def test_no_copy_names_a_map_that_is_not_there(folder: Folder):
    folder.install("npm", GOOD_NPM)
    call_command("fetch_browser_libraries", verbosity=0)
    for name in FILES.values():
        assert "sourceMappingURL" not in (folder.vendor / name).read_text()


def test_scripts_of_packages_are_not_run(folder: Folder):
    folder.install("npm", GOOD_NPM)
    call_command("fetch_browser_libraries", verbosity=0)
    assert "--ignore-scripts" in folder.calls.read_text()


def test_a_fetch_that_fails_is_one_line_with_the_reason_and_what_to_do(folder: Folder):
    folder.install("npm", BAD_NPM)
    with pytest.raises(CommandError) as refused:
        call_command("fetch_browser_libraries", verbosity=0)
    words = str(refused.value)
    assert "\n" not in words
    assert "E404" in words
    assert "check the network" in words
    assert not folder.vendor.exists()


def test_the_lock_names_each_package_by_version_and_hash_and_no_address():
    lock = json.loads((ROOT / "package-lock.json").read_text())
    wanted = json.loads((ROOT / "package.json").read_text())["dependencies"]
    for name, version in wanted.items():
        locked = lock["packages"][f"node_modules/{name}"]
        assert locked["version"] == version
        assert locked["integrity"].startswith("sha512-")
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
