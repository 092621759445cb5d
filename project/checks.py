"""What `manage.py check` says of an installation that would lose, leak or wait: read from settings and database."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.db import connections

MOUNTS: Final = Path("/proc/self/mounts")
# WAL needs memory shared by all who open the file, and locks that hold: over a network there are neither.
NETWORK_DISKS: Final = frozenset(
    {"afs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "gfs2", "lustre", "nfs", "nfs4", "smb3", "smbfs"}
)
SQLITE: Final = "project.sqlite"
POSTGRESQL: Final = "django.db.backends.postgresql"
IN_MEMORY_LAYER: Final = "channels.layers.InMemoryChannelLayer"
SIGNED_COOKIES: Final = "django.contrib.sessions.backends.signed_cookies"
POOL_CONNECTIONS: Final = 4  # of psycopg_pool, where nothing is said


def check_layer(**_: Any) -> list[CheckMessage]:
    """Processes that share runs hear of each other's commits."""
    layer = settings.CHANNEL_LAYERS["default"]["BACKEND"]
    if settings.CONFIGURATION.execution != "workers" or layer != IN_MEMORY_LAYER:
        return []
    message = "TURNOUT_EXECUTION=workers with a channel layer in memory: tabs learn of what a worker wrote by polling"
    hint = f"set REDIS_URL; without it each event waits up to {settings.CONFIGURATION.head_poll_s:g} s"
    return [CheckWarning(message, hint=hint, id="turnout.W201")]


def check_disk(**_: Any) -> list[CheckMessage]:
    """SQLite's file lies on a disk of this machine."""
    database = settings.DATABASES["default"]
    if database["ENGINE"] != SQLITE or not MOUNTS.exists():
        return []
    kind = file_system(Path(database["NAME"]).absolute(), MOUNTS.read_text(errors="replace"))
    if kind not in NETWORK_DISKS:
        return []
    message = f"SQLite's file lies on a network disk ({kind}), where its log and its locks do not hold"
    return [Error(message, hint="move it to a local disk, or set DATABASE_URL to PostgreSQL", id="turnout.E202")]


def file_system(path: Path, mounts: str) -> str:
    """The kind of the file system that holds a path, by the lines of /proc/self/mounts; a later mount hides others."""
    found, depth = "", -1
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split(" ")
        mount = Path(point.replace("\\040", " "))
        if path.is_relative_to(mount) and len(mount.parts) >= depth:
            found, depth = kind, len(mount.parts)
    return found


def check_pool(**_: Any) -> list[CheckMessage]:
    """Each thread that uses the database can have a connection."""
    pool = settings.DATABASES["default"].get("OPTIONS", {}).get("pool")
    if not pool:
        return []
    given = {} if pool is True else pool
    size = given.get("max_size") or given.get("min_size", POOL_CONNECTIONS)
    threads = settings.CONFIGURATION.database_threads
    if size >= threads:
        return []
    message = f"the database's pool has {size} connections for {threads} threads, which wait for each other"
    hint = 'raise OPTIONS["pool"]["max_size"], or lower TURNOUT_DATABASE_THREADS'
    return [CheckWarning(message, hint=hint, id="turnout.W202")]


def check_sessions(**_: Any) -> list[CheckMessage]:
    """A session can be ended by the server."""
    if settings.SESSION_ENGINE != SIGNED_COOKIES:
        return []
    message = "sessions are kept in signed cookies: nobody can end one, so a log-out would not close its sockets"
    hint = 'set SESSION_ENGINE to "django.contrib.sessions.backends.db"'
    return [CheckWarning(message, hint=hint, id="turnout.W205")]


def check_redis_password(**_: Any) -> list[CheckMessage]:
    """Who reaches Redis must know a password. With `check --deploy` only."""
    url = urlsplit(settings.REDIS_URL)
    if not url.hostname or url.password:
        return []
    message = "REDIS_URL has no password: whoever reaches that server can send hints and read who is active"
    return [CheckWarning(message, hint="set one there, and here: redis://:PASSWORD@HOST:6379/0", id="turnout.W203")]


def check_commits(databases: Sequence[str] | None = None, **_: Any) -> Iterable[CheckMessage]:
    """PostgreSQL has stored what it says it has. Runs with `migrate` and `check --database`."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        if connections[alias].settings_dict["ENGINE"] != POSTGRESQL:
            continue
        with connections[alias].cursor() as cursor:
            cursor.execute("SHOW synchronous_commit")
            (value,) = cursor.fetchone()
        if value == "off":
            message = f"synchronous_commit is off on {alias!r}: a crash loses events that users have already seen"
            hint = "set it to on, or to local, for Turnout's role: ALTER ROLE turnout SET synchronous_commit = on"
            found.append(CheckWarning(message, hint=hint, id="turnout.W204"))
    return found
