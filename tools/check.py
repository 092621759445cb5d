"""`make test`: everything that must hold before a change lands, in one run that ends with pytest's own summary.

Two lanes, since two cores are common: the checks of the code run beside pytest, their output kept apart and shown
afterwards. What cannot be run (no Chromium, no libraries, no server) is a failure that says why, never a silence.
"""

import argparse
import os
import re
import secrets
import select
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tools.chromium import NoChromiumError, obtain_chromium

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
# A developer's own settings must not decide what a test sees.
SETTINGS = re.compile(
    r"(DEBUG|SECRET_KEY|DATABASE_URL|REDIS_URL|HOST|PORT|ALLOWED_HOSTS|LOG_LEVEL|DJANGO_\w+|TURNOUT_\w+)"
)
SUMMARY = re.compile(r"^=+ .* in [\d.]+s.*=+$", re.MULTILINE)
TAIL_BYTES = 100_000  # a complaint of an interpreter that ends may follow the summary
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Check:
    """One command that must exit with 0."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """What became of a check; `output` is shown when it failed."""

    name: str
    passed: bool
    seconds: float
    output: str


def main() -> int:
    """Exit 0 when all passed, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="tools.check", description=__doc__)
    parser.add_argument("--lint", action="store_true", help="run no test")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    environment = {name: value for name, value in os.environ.items() if not SETTINGS.fullmatch(name)}
    environment |= {"PYTHONUNBUFFERED": "1"}
    checks = code_checks(environment)
    if arguments.lint:
        outcomes = [run(check) for check in checks]
        report(outcomes)
    else:
        outcomes, summary = run_all(checks, environment)
        report(outcomes)
        print(summary)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def code_checks(environment: dict[str, str]) -> list[Check]:
    """Style, types, layers, migrations, production settings: cheap ones first."""
    scripts = Path(sysconfig.get_path("scripts"))
    development = environment | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    production = environment | {
        "SECRET_KEY": secrets.token_urlsafe(60),
        "ALLOWED_HOSTS": "turnout.example",
        "CSRF_TRUSTED_ORIGINS": "https://turnout.example",
    }
    ruff, one_line_each = (PYTHON, "-m", "ruff"), ("--output-format", "concise", ".")
    deploy = (PYTHON, "manage.py", "check", "--deploy", "--fail-level", "WARNING")
    return [
        Check("ruff check", (*ruff, "check", *one_line_each), environment),
        Check("ruff format", (*ruff, "format", "--check", *one_line_each), environment),
        Check("import layers", (str(scripts / "lint-imports"),), environment),
        Check("migrations", (PYTHON, "manage.py", "makemigrations", "--check", "--dry-run"), development),
        Check("check --deploy", deploy, production),
        Check("mypy --strict", (PYTHON, "-m", "mypy"), environment),
    ]


def run(check: Check) -> Outcome:
    """Run it to its end and keep what it printed."""
    began = time.monotonic()
    done = subprocess.run(
        check.command,
        env=check.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output = done.stdout.decode(errors="replace")
    return Outcome(check.name, done.returncode == 0, time.monotonic() - began, output)


def run_all(checks: list[Check], environment: dict[str, str]) -> tuple[list[Outcome], str]:
    """All outcomes, and pytest's last line, which the caller prints last."""
    outcomes: list[Outcome] = []
    lane = threading.Thread(target=lambda: outcomes.extend(run(check) for check in checks), daemon=True)
    lane.start()
    prepared = [prepare_libraries(environment), prepare_translations(environment), prepare_chromium(environment)]
    tests, summary = run_pytest(environment)
    lane.join()
    return [*prepared, *outcomes, tests], summary


def prepare_libraries(environment: dict[str, str]) -> Outcome:
    """The page's libraries, without which the browser tests would test another page."""
    command = (PYTHON, "manage.py", "fetch_browser_libraries")
    return run(Check("browser libraries", command, environment | {"DJANGO_SETTINGS_MODULE": "tests.settings"}))


def prepare_translations(environment: dict[str, str]) -> Outcome:
    """The pages' words in other languages, which git does not hold compiled."""
    command = (PYTHON, "manage.py", "compile_translations")
    return run(Check("translations", command, environment | {"DJANGO_SETTINGS_MODULE": "tests.settings"}))


def prepare_chromium(environment: dict[str, str]) -> Outcome:
    """Puts the browser's path into `environment` as CHROMIUM, where the browser tests' fixture looks first."""
    began = time.monotonic()
    try:
        environment["CHROMIUM"] = obtain_chromium()
    except NoChromiumError as error:
        return Outcome("chromium", passed=False, seconds=time.monotonic() - began, output=f"{error}\n")
    return Outcome("chromium", passed=True, seconds=time.monotonic() - began, output="")


def run_pytest(environment: dict[str, str]) -> tuple[Outcome, str]:
    """Run it with its output passed on as it comes, so that a hang can be seen where it is."""
    command = [PYTHON, "-m", "pytest", "--no-skips", "--continue-on-collection-errors", "--durations=10"]
    # One more than two cores, for a test waits much of its time; the tests of a file share their server.
    command += ["--numprocesses=3", "--dist=loadfile", "--no-loadscope-reorder"]
    command += ["--color=yes"] if sys.stdout.isatty() else []
    began = time.monotonic()
    pytest = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        tail = _pass_on(pytest)
    except BaseException:
        pytest.terminate()  # its fixtures then stop the servers that they started
        pytest.wait()
        raise
    summaries = SUMMARY.findall(ANSI.sub("", tail.decode(errors="replace")))
    summary = summaries[-1] if summaries else "pytest ended without a summary"
    return Outcome("pytest", pytest.wait() == 0, time.monotonic() - began, ""), summary


def _pass_on(process: subprocess.Popen[bytes]) -> bytes:
    """Copy its output to ours until it ends; the last bytes are returned.

    The end of the output is no sign: a server that a broken test left behind may hold the pipe open for ever.
    """
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    tail = b""
    while True:
        if select.select([pipe], [], [], 0.5)[0]:
            piece = os.read(pipe, 65_536)
            if not piece:
                return tail
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            tail = (tail + piece)[-TAIL_BYTES:]
        elif process.poll() is not None:
            return tail


def report(outcomes: list[Outcome]) -> None:
    """Details of what broke only, then one line each."""
    for outcome in outcomes:
        if not outcome.passed and outcome.output:
            print(f"\n--- {outcome.name} " + "-" * (75 - len(outcome.name)))
            print(outcome.output.rstrip()[-20_000:])
    print()
    for outcome in outcomes:
        print(f"{outcome.name:<20} {'passed' if outcome.passed else 'FAILED':<8} {outcome.seconds:6.1f} s")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
