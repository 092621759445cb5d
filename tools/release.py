"""`make release`: the source archive of the commit that is checked out, in var/release, and its SHA-256.

It holds what git holds, and nothing that lies about; whoever unpacks it has the two commands of the README.
"""

import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from project.version import VERSION

ROOT = Path(__file__).resolve().parent.parent


class NotReleasableError(Exception):
    """What is checked out is not what a release would say that it is."""


def main() -> int:
    """Exit 0 with the archive's path and digest, 1 with the reason why there is none."""
    try:
        path = release(ROOT, VERSION, ROOT / "var" / "release")
    except NotReleasableError as reason:
        print(f"no release: {reason}", file=sys.stderr)
        return 1
    print(f"{sha256(path.read_bytes()).hexdigest()}  {path}")
    return 0


def release(root: Path, version: str, folder: Path) -> Path:
    """Make the archive of HEAD. Raises NotReleasableError."""
    if not re.search(
        rf"^## {re.escape(version)}(\s|$)", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    ):
        raise NotReleasableError(f"CHANGELOG.md has no section {version}; write what users can and must do")
    if changed := _git(root, "status", "--porcelain", "--untracked-files=no"):
        raise NotReleasableError(f"these files are not as committed; commit them, or put them back:\n{changed}")
    folder.mkdir(parents=True, exist_ok=True)
    name = f"turnout-{version}"
    path = folder / f"{name}.tar.gz"
    _git(root, "archive", f"--prefix={name}/", f"--output={path}", "HEAD")
    return path


def _git(root: Path, *arguments: str) -> str:
    command = ("git", *arguments)
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotReleasableError(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.rstrip()


if __name__ == "__main__":
    sys.exit(main())
