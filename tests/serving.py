"""A real server for tests: `manage.py serve` in a process of its own, on a free port, with its own database.

Nothing here is a stand-in: the port, the socket, the signals and the SQLite file are real. A migrated database is
made once and copied, since migrating takes longer than most tests.
"""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Users whom a server's database holds from the start, each with a token: making one takes a process of its own.
KNOWN = ("anna", "ann", "ben", "bert", "bob", *(f"user{number}" for number in range(10)))
STARTED = "Turnout serves "
WORKS = "Turnout's worker claims runs"

_MAKE_TOKENS = """
import json, sys
from django.contrib.auth import get_user_model
from apps.chat.authentication import issue_token
User = get_user_model()
names = json.loads(sys.stdin.read())
found = {}
for name in names:
    user, _ = User.objects.get_or_create(username=name)
    found[name] = issue_token(user.pk, "test")
print(json.dumps(found))
"""


class ServerFailed(AssertionError):  # noqa: N818 - says what happened
    """The server did not start, or not stop; the message holds its output."""


class ServerProcess:
    """One server. `start` returns when it serves; `stop` sends SIGTERM and returns the exit code."""

    def __init__(self, folder: Path, template: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.database = folder / "turnout.sqlite3"
        shutil.copy(template, self.database)
        self._known: dict[str, str] = {}
        beside = template.with_suffix(".json")
        if "DATABASE_URL" not in (environment or {}) and beside.exists():
            self._known = json.loads(beside.read_text(encoding="utf-8"))
        self.environment = {
            **os.environ,
            "SECRET_KEY": "tests-" + "k" * 50,
            "DEBUG": "0",
            "INSECURE_HTTP": "1",
            "ALLOWED_HOSTS": "127.0.0.1,localhost",
            "DATABASE_URL": f"sqlite:///{self.database}",
            "TURNOUT_FAULTY_AGENT": "1",
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }
        self.program = ["manage.py"]
        self.process: subprocess.Popen[str] | None = None
        self.most_files: int | None = None
        self.url = ""
        self.port = 0
        self.output: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader: threading.Thread | None = None

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/chat/"

    def start(self, port: int = 0, timeout_s: float = 60, host: str = "127.0.0.1") -> "ServerProcess":
        """Start, and wait until it serves. A restart may ask for the port that it had."""
        line = self._launch(["serve", "--host", host, "--port", str(port)], STARTED, timeout_s)
        self.url = line.removeprefix(STARTED).strip().rstrip("/")
        self.port = int(self.url.rsplit(":", 1)[1])
        return self

    def _launch(self, command: list[str], started: str, timeout_s: float) -> str:
        """Start a command; the line by which it says that it is there."""
        limit = [] if self.most_files is None else ["prlimit", f"--nofile={self.most_files}:{self.most_files}"]
        self.process = subprocess.Popen(
            [*limit, sys.executable, *self.program, *command],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(self.process, self._lines), daemon=True)
        self._reader.start()
        while True:
            try:
                line = self._lines.get(timeout=timeout_s)
            except queue.Empty:
                line = None
            if line is None:
                self.kill()
                raise ServerFailed(f"{command[0]} did not start:\n" + "".join(self.output))
            if line.startswith(started):
                return line

    def _read(self, process: subprocess.Popen[str], lines: "queue.Queue[str | None]") -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.output.append(line)
                lines.put(line)
        lines.put(None)

    def stop(self, timeout_s: float = 40) -> int:
        """SIGTERM, as an orchestrator does; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 40) -> int:
        """Wait for the end of the process."""
        assert self.process is not None
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed(f"the server did not stop in {timeout_s} s:\n" + "".join(self.output)) from None
        if self._reader is not None:
            self._reader.join(5)
        return code

    def kill(self) -> None:
        """SIGKILL, as the machine does."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._reader is not None:
            self._reader.join(5)

    def manage(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a management command against this server's database."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def tokens(self, names: Iterable[str]) -> dict[str, str]:
        """Users of these names, each with a bearer token."""
        names = list(names)
        if not self._known.keys() >= set(names):
            return _make_tokens(self.environment, names)
        return {name: self._known[name] for name in names}

    def token(self, name: str) -> str:
        return self.tokens([name])[name]


class WorkerProcess(ServerProcess):
    """One `manage.py run_worker`."""

    def start_working(self, timeout_s: float = 60) -> "WorkerProcess":
        """Start, and wait until it claims runs."""
        self._launch(["run_worker"], WORKS, timeout_s)
        return self


def migrated_database(folder: Path) -> Path:
    """A migrated SQLite file to copy from, made once in `folder`."""
    template = folder / "template.sqlite3"
    if not template.exists():
        environment = {**os.environ, "SECRET_KEY": "x" * 50, "DATABASE_URL": f"sqlite:///{template}"}
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "-v", "0"],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
        )
        known = _make_tokens(environment, KNOWN)
        template.with_suffix(".json").write_text(json.dumps(known), encoding="utf-8")
    return template


def _make_tokens(environment: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "-v", "0", "-c", _MAKE_TOKENS],
        cwd=ROOT,
        env=dict(environment),
        input=json.dumps(names),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tokens: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return tokens


@contextlib.contextmanager
def serving(
    folder: Path, template: Path, environment: Mapping[str, str] | None = None, most_files: int | None = None
) -> Iterator[ServerProcess]:
    """A started server, stopped at the end whatever happened. It may have `most_files` descriptors."""
    folder.mkdir(parents=True, exist_ok=True)
    server = ServerProcess(folder, template, environment)
    server.most_files = most_files
    try:
        yield server.start()
    finally:
        server.kill()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty database file; copied by every server."""
    return migrated_database(tmp_path_factory.mktemp("database"))


@pytest.fixture
def server(tmp_path: Path, migrated: Path) -> Iterator[ServerProcess]:
    """A real server with an empty database, for one test."""
    with serving(tmp_path / "server", migrated) as started:
        yield started
        assert "Traceback" not in "".join(started.output), "".join(started.output)
