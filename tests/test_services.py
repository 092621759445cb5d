"""The real servers that other tests stand on: that they are there, and that Django's own work is done on them."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

ROOT = Path(__file__).parent.parent


@pytest.mark.services
def test_postgresql_answers_and_is_the_version_that_ships(postgresql_url):
    with psycopg.connect(postgresql_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert connection.info.server_version >= 180_000


@pytest.mark.services
def test_valkey_answers_at_the_address_that_redis_py_reads(valkey_url):
    with redis.Redis.from_url(valkey_url) as client:
        assert client.ping()


def manage(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.services
def test_an_empty_postgresql_takes_all_migrations_and_no_model_is_without_one(postgresql_url):
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrated")
        url = postgresql_url.replace("/postgres?", "/migrated?")
        migrated = manage(url, "migrate", "--verbosity", "0")
        assert migrated.returncode == 0, migrated.stderr
        missing = manage(url, "makemigrations", "--check", "--dry-run")
        assert missing.returncode == 0, missing.stdout + missing.stderr
        # Flushing is what every test with real transactions does. Waffle's own tables, which the project's flag model
        # replaces, refer to auth_user and would make PostgreSQL refuse to truncate it.
        flushed = manage(url, "flush", "--no-input")
        assert flushed.returncode == 0, flushed.stderr
        connection.execute("DROP DATABASE migrated")
