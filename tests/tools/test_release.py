import subprocess
import tarfile

import pytest

from tools.release import NotReleasableError, release


def git(root, *arguments):
    who = ("-c", "user.name=Tests", "-c", "user.email=tests@turnout.example")
    subprocess.run(("git", *who, *arguments), cwd=root, check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path):
    root = tmp_path / "clone"
    root.mkdir()
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 (2026-01-01)\n")
    git(root, "init", "--quiet")
    git(root, "add", "CHANGELOG.md")
    git(root, "commit", "--quiet", "--message=First")
    return root


def test_the_archive_holds_what_git_holds_under_the_versions_name(clone, tmp_path):
    (clone / "secret").write_text("lies about")
    with tarfile.open(release(clone, "1.2.3", tmp_path / "out")) as archive:
        assert [member.name for member in archive if member.isfile()] == ["turnout-1.2.3/CHANGELOG.md"]


def test_a_version_without_its_section_of_the_changelog_is_not_released(clone, tmp_path):
    for version in ("1.2.4", "1.2", "1x2.3"):
        with pytest.raises(NotReleasableError, match="has no section"):
            release(clone, version, tmp_path / "out")


def test_what_is_not_committed_is_not_released(clone, tmp_path):
    (clone / "CHANGELOG.md").write_text("## 1.2.3\nchanged\n")
    with pytest.raises(NotReleasableError, match=r"CHANGELOG\.md"):
        release(clone, "1.2.3", tmp_path / "out")


def test_without_git_it_says_so(tmp_path):
    (tmp_path / "CHANGELOG.md").write_text("## 1.2.3\n")
    with pytest.raises(NotReleasableError, match="git status failed"):
        release(tmp_path, "1.2.3", tmp_path / "out")
