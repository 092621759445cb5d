"""A disposable copy of a deployment: its own database, its own processes, its own Redis, all on the loopback.

It refuses the database that this command itself is configured for, and one on which a process lives: a drill kills
whatever serves it.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

_STARTED: Final = re.compile(r"Turnout serves http://[^:]+:(\d+)/")
_START_S = 60.0
_KEPT_LINES = 200  # of a server's output, for the report of a drill that failed

_PROBE = """
import json
from apps.operations.models import ProcessReport
print(json.dumps([str(process) for process in ProcessReport.objects.running(60.0)]))
"""
_MAKE_USERS = """
import json, sys
from django.contrib.auth import get_user_model
from apps.chat.authentication import issue_token
from apps.chat.models import Thread
made = []
asked = json.loads(sys.stdin.read())
for name in asked["names"]:
    user, _ = get_user_model().objects.get_or_create(username=name)
    threads = [Thread.objects.create(user_id=user.pk).pk for _ in range(asked["threads"])]
    made.append({"id": str(user.pk), "token": issue_token(user.pk, "drill"), "threads": threads})
print(json.dumps(made))
"""


class NotDisposable(Exception):  # noqa: N818 - the reason to refuse
    """The database that was named must not be drilled on; the message says why."""


class CopyFailed(RuntimeError):  # noqa: N818 - says what happened
    """The copy could not be made or started; the message holds its last output."""


def refuse_the_live_one(url: str, live: Mapping[str, Any], parsed: Mapping[str, Any]) -> None:
    """Raises NotDisposable when `url`, parsed as Django settings, is the database that is configured here."""
    if "sqlite" in str(parsed["ENGINE"]):
        same = "sqlite" in str(live["ENGINE"]) and _path(parsed["NAME"]) == _path(live["NAME"])
    else:
        places = [(str(one.get("HOST") or ""), str(one.get("PORT") or ""), str(one["NAME"])) for one in (parsed, live)]
        same = "sqlite" not in str(live["ENGINE"]) and places[0] == places[1]
    if same:
        raise NotDisposable(
            f"{url.rsplit('@', maxsplit=1)[-1]} is the database of this deployment: make a copy, and name that"
        )


def _path(name: object) -> Path:
    return Path(str(name)).resolve()


class Server:
    """One web process of the copy; it keeps its port over restarts."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self.port = 0
        self.output: deque[str] = deque(maxlen=_KEPT_LINES)

    async def start(self, extra: Mapping[str, str] | None = None) -> None:
        """Returns when it serves. Raises CopyFailed."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "django", "serve", "--host", "127.0.0.1", "--port", str(self.port)),
            env={**self._environment, **(extra or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        serving: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(self._process, serving))
        try:
            self.port = await asyncio.wait_for(serving, _START_S)
        except (TimeoutError, CopyFailed) as error:
            await self.kill()
            raise CopyFailed("a server did not start:\n" + "".join(self.output)) from error

    async def _read(self, process: Process, serving: "asyncio.Future[int]") -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            text = line.decode("utf-8", "replace")
            self.output.append(text)
            if not serving.done() and (found := _STARTED.match(text)):
                serving.set_result(int(found[1]))
        if not serving.done():
            serving.set_exception(CopyFailed("it ended"))

    async def kill(self) -> None:
        """SIGKILL, as the machine does."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        await self._ended()

    async def terminate(self, within_s: float) -> int | None:
        """SIGTERM, as an orchestrator does; the exit code, None when it had to be killed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), within_s)
        except TimeoutError:
            await self.kill()
            return None
        await self._ended()
        return self._process.returncode

    async def _ended(self) -> None:
        if self._process is not None:
            await self._process.wait()
        if self._reading is not None:
            await self._reading

    def resident_bytes(self) -> int | None:
        """Its memory; None where the system does not tell."""
        if self._process is None:
            return None
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
            if found := re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE):
                return int(found[1]) * 1024
        return None


class Redis:
    """A Redis, or Valkey, of the copy's own, without anything on disk."""

    def __init__(self, program: str, port: int) -> None:
        self._program = program
        self._process: Process | None = None
        self.port = port

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Returns when it was started; whoever connects tries again until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *(self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def kill(self) -> None:
        """SIGKILL: it comes back empty."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class DisposableCopy:
    """`async with`: the database is migrated, servers and Redis run; leaving kills all that it started."""

    def __init__(
        self, folder: Path, database_url: str, servers: int, redis_program: str | None, redis_port: int
    ) -> None:
        self.folder = folder
        self.redis = None if redis_program is None else Redis(redis_program, redis_port)
        self.environment = {
            **os.environ,
            "DATABASE_URL": database_url,
            "REDIS_URL": "" if self.redis is None else self.redis.url,
            "TURNOUT_WITNESS_FILE": str(folder / "witness"),
            "INSECURE_HTTP": "1",
            "ALLOWED_HOSTS": "127.0.0.1",
            "PYTHONUNBUFFERED": "1",
        }
        self.servers = [Server(self.environment) for _ in range(servers)]

    async def __aenter__(self) -> Self:
        await self.manage("migrate", "-v", "0")
        if living := json.loads((await self.manage("shell", "-v", "0", "-c", _PROBE)).splitlines()[-1]):
            raise NotDisposable(f"processes live on this database: {', '.join(living)}")
        if self.redis is not None:
            await self.redis.start()
        try:
            for server in self.servers:
                await server.start()
        except BaseException:
            await self._kill_all()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._kill_all()

    async def _kill_all(self) -> None:
        for server in self.servers:
            await server.kill()
        if self.redis is not None:
            await self.redis.kill()

    @property
    def ports(self) -> Sequence[int]:
        """Where the servers listen."""
        return [server.port for server in self.servers]

    async def users(self, names: Sequence[str], threads: int) -> list[dict[str, Any]]:
        """Users of these names: id, token and so many threads each."""
        asked = json.dumps({"names": list(names), "threads": threads})
        made: list[dict[str, Any]] = json.loads(
            (await self.manage("shell", "-v", "0", "-c", _MAKE_USERS, stdin=asked)).splitlines()[-1]
        )
        return made

    async def manage(self, *arguments: str, stdin: str = "", accepted: Sequence[int] = (0,)) -> str:
        """Run a management command on the copy and return what it printed. Raises CopyFailed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "django", *arguments),
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin.encode())
        if process.returncode not in accepted:
            raise CopyFailed(f"manage.py {arguments[0]} ended with {process.returncode}: {err.decode()[-2000:]}")
        return out.decode()


def find_redis() -> str | None:
    """A Redis or Valkey server on the path."""
    return shutil.which("valkey-server") or shutil.which("redis-server")
