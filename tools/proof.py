"""`make proof`: the tests with their long budgets, in parts of under an hour that can be taken one by one.

What became of each part is kept in var/proof, with a digest of the code that it was shown on. A part that passed on
this code is not run again; whatever else there is counts as left, so that a proof that was cut off goes on from there.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree as ET

from tools import check

ROOT = Path(__file__).resolve().parent.parent
KEPT = Path("var/proof")
PART_S = 3_600
STOP_S = 60  # for the fixtures to stop the servers that they started
SHOWN = ("apps", "project", "tests", "tools", "clients", "requirements", "pyproject.toml", "package-lock.json")
ENDINGS = {".py", ".js", ".css", ".html", ".toml", ".txt", ".json", ".po"}
BUDGET = re.compile(r"time_budget\(\"(\w+)\"\)")
ROUND = re.compile(r"^seed \d+, round \d+$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """What one part gave. `rounds` counts the seeded searches that were begun."""

    part: str
    code: str
    passed: bool
    tests: int
    failures: int
    rounds: int
    seconds: float
    ended: str


def main() -> int:
    """Exit 0 when every part passed on this code or, with --part, when that part did."""
    parser = argparse.ArgumentParser(prog="tools.proof", description=__doc__)
    parser.add_argument("--part", help="run this part only, also when it has passed")
    parser.add_argument("--list", action="store_true", help="say what is done and what is left, and run nothing")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parts = parts_of(ROOT / "tests")
    if arguments.part and arguments.part not in parts:
        parser.error(f"there is no part {arguments.part!r}; there are {', '.join(parts)}")
    code = digest(ROOT)
    results = read(KEPT, code)
    print(table(parts, results), flush=True)
    if not arguments.list:
        todo = [arguments.part] if arguments.part else [name for name in parts if not _passed(results, name)]
        environment = prepared_environment() if todo else {}
        for name in todo:
            print(f"\n=== {name}: {len(parts[name])} files, at most {PART_S} s", flush=True)
            results[name] = run_part(name, parts[name], environment, code)
            keep(KEPT, results[name])
        print("\n" + table(parts, results))
    wanted = [arguments.part] if arguments.part else list(parts)
    return 0 if all(_passed(results, name) for name in wanted) else 1


def parts_of(tests: Path) -> dict[str, list[str]]:
    """Name -> files. Each test file stands in one part: that of the budget that it names, or of what it is."""
    groups = tomllib.loads((tests / "budget.toml").read_text(encoding="utf-8"))
    parts: dict[str, list[str]] = {name: [] for name in groups}
    for path in sorted(tests.rglob("test_*.py")):
        parts.setdefault(_part_of(path, tests), []).append(str(path.relative_to(tests.parent)))
    return {name: files for name, files in parts.items() if files}


def _part_of(path: Path, tests: Path) -> str:
    text = path.read_text(encoding="utf-8")
    folder = path.relative_to(tests).parts[0]
    if folder == "removal":  # runs the whole suite twice
        return "removal"
    if budget := BUDGET.search(text):
        return budget[1]
    # Thousands of examples a test instead of a hundred: a part for each folder, so that none takes the hour.
    return f"examples-{folder.removesuffix('.py')}" if "hypothesis" in text else "rest"


def digest(root: Path) -> str:
    """Of all that decides what a test gives; an archive without git has one as well."""
    total = sha256()
    for name in SHOWN:
        path = root / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and file.suffix in ENDINGS and not {"vendor", "node_modules"} & set(file.parts):
                total.update(f"{file.relative_to(root)}\0".encode() + sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


def read(folder: Path, code: str) -> dict[str, Result]:
    """The kept results that belong to this code."""
    found = [Result(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    return {result.part: result for result in found if result.code == code}


def keep(folder: Path, result: Result) -> None:
    """Write it beside and move it there: a proof that is cut off leaves no half of a result."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"{result.part}.new"
    beside.write_text(json.dumps(asdict(result)) + "\n")
    beside.replace(folder / f"{result.part}.json")


def prepared_environment() -> dict[str, str]:
    """As `make test` has it. Raises SystemExit when something that the tests need cannot be had."""
    environment = {name: value for name, value in os.environ.items() if not check.SETTINGS.fullmatch(name)}
    environment |= {"PYTHONUNBUFFERED": "1"}
    outcomes = [
        check.prepare_libraries(environment),
        check.prepare_translations(environment),
        check.prepare_chromium(environment),
    ]
    if not all(outcome.passed for outcome in outcomes):
        check.report(outcomes)
        raise SystemExit(1)
    return environment


def run_part(name: str, files: Sequence[str], environment: dict[str, str], code: str) -> Result:
    """Run its tests to their end, or to the end of its hour."""
    KEPT.mkdir(parents=True, exist_ok=True)
    report = KEPT / f"{name}.xml"
    report.unlink(missing_ok=True)
    options = ["--no-skips", "--proof", "--timeout=0", "--numprocesses=3", "--dist=loadfile", "-q"]
    options += [f"--junitxml={report}", "-o", "junit_logging=system-out", "-o", "junit_log_passing_tests=true"]
    began = time.monotonic()
    pytest = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *files], env=environment, stdin=subprocess.DEVNULL
    )
    try:
        status = pytest.wait(PART_S)
    except subprocess.TimeoutExpired:
        print(f"{name} took more than {PART_S} s and was stopped", flush=True)
        status = _stop(pytest)
    except BaseException:
        _stop(pytest)
        raise
    tests, failures, rounds = figures(report)
    seconds = round(time.monotonic() - began, 1)
    ended = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    return Result(name, code, status == 0 and tests > 0, tests, failures, rounds, seconds, ended)


def _stop(pytest: subprocess.Popen[bytes]) -> int:
    """End it as Ctrl-C does; what is stopped has not passed, whatever it exits with."""
    pytest.send_signal(signal.SIGINT)
    try:
        pytest.wait(STOP_S)
    except subprocess.TimeoutExpired:
        pytest.kill()
        pytest.wait()
    return 1


def figures(report: Path) -> tuple[int, int, int]:
    """Tests, failures and rounds of pytest's report; zeros where it was stopped before it wrote one."""
    if not report.exists():
        return 0, 0, 0
    suites = list(ET.parse(report).getroot().iter("testsuite"))  # noqa: S314 - pytest has just written it
    failures = sum(int(suite.get("failures", 0)) + int(suite.get("errors", 0)) for suite in suites)
    rounds = sum(len(ROUND.findall(out.text or "")) for suite in suites for out in suite.iter("system-out"))
    return sum(int(suite.get("tests", 0)) for suite in suites), failures, rounds


def table(parts: Mapping[str, Sequence[str]], results: Mapping[str, Result]) -> str:
    """One line a part, and one that sums up."""
    lines = [f"{'part':<22} {'':<8} {'tests':>6} {'failed':>6} {'rounds':>8} {'seconds':>8}  ended (UTC)"]
    for name in parts:
        result = results.get(name)
        if result is None:
            lines.append(f"{name:<22} left")
            continue
        verdict = "passed" if result.passed else "FAILED"
        counts = f"{result.tests:>6} {result.failures:>6} {result.rounds:>8} {result.seconds:>8.1f}"
        lines.append(f"{name:<22} {verdict:<8} {counts}  {result.ended}")
    done = sum(_passed(results, name) for name in parts)
    lines.append(f"{done} of {len(parts)} parts passed on this code, {len(parts) - done} left.")
    return "\n".join(lines)


def _passed(results: Mapping[str, Result], name: str) -> bool:
    return name in results and results[name].passed


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
