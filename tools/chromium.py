"""Find a Chromium that runs, or bring one: from PATH, from Playwright, or, for root, from the system's packages."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

# Ubuntu's chromium-browser may be a stub that only tells people to install a snap, so each is asked for its version.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLAYWRIGHTS_OWN = (
    "from playwright.sync_api import sync_playwright\n"
    "with sync_playwright() as playwright:\n"
    "    print(playwright.chromium.executable_path)"
)
VERSION_TIMEOUT_S = 30
INSTALL_TIMEOUT_S = 600


class NoChromiumError(Exception):
    """There is none and none could be fetched; the text says what was tried and what to do."""


def find_chromium() -> str | None:
    """The path of a Chromium that runs. CHROMIUM in the environment is asked first."""
    return next((path for path in _candidates() if _output(path, "--version")), None)


def obtain_chromium() -> str:
    """As `find_chromium`, but installs one where there is none. Raises NoChromiumError."""
    found = find_chromium()
    if found:
        return found
    tried = [f"none of {', '.join(NAMES)} on PATH runs"]
    for name, commands in _installations():
        print(f"No Chromium yet: trying {name}", flush=True)
        failures = (_failure(command) for command in commands)
        tried.append(f"{name}: {next(filter(None, failures), 'brought none')}")
        found = find_chromium()
        if found:
            return found
    if os.geteuid() != 0:
        tried.append("the system's packages are for root to install")
    raise NoChromiumError(
        f"no Chromium ({'; '.join(tried)}): install Debian's package `chromium` or Google Chrome, "
        "or name one in the environment variable CHROMIUM"
    )


def _candidates() -> Iterator[str]:
    given = os.environ.get("CHROMIUM")
    if given:
        yield given
    for name in NAMES:
        path = shutil.which(name)
        if path:
            yield path
    playwrights = _output(sys.executable, "-c", PLAYWRIGHTS_OWN)
    if playwrights:
        yield playwrights


def _installations() -> Iterator[tuple[str, list[list[str]]]]:
    yield "playwright install", [[sys.executable, "-m", "playwright", "install", "chromium"]]
    apt = shutil.which("apt-get")
    if apt and os.geteuid() == 0:
        install = [apt, "-qq", "install", "-y", "--no-install-recommends", "chromium"]
        yield "apt-get install", [[apt, "-qq", "update"], install]


def _output(*command: str) -> str:
    """What it printed; empty when it failed."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=VERSION_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _failure(command: list[str]) -> str:
    """The first line of its complaint; empty when it succeeded."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {INSTALL_TIMEOUT_S} s"
    complaints = [line for line in done.stderr.splitlines() if line.strip()]
    return (complaints[0] if complaints else f"exit code {done.returncode}")[:200] if done.returncode else ""
