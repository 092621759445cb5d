"""Another process' transaction, for tests on PostgreSQL: a connection beside the ORM's, which holds what it is told."""

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
from django.db import connection


def another_connection() -> "psycopg.Connection[Any]":
    """To the same database, in a transaction of its own from its first statement on."""
    settings = connection.settings_dict
    return psycopg.connect(
        dbname=settings["NAME"],
        user=settings["USER"],
        password=settings["PASSWORD"] or None,
        host=settings["HOST"] or settings["OPTIONS"].get("host"),
        port=settings["PORT"] or None,
    )


@contextlib.contextmanager
def held(table: str, column: str, key: object) -> Iterator[None]:
    """Somebody else holds this row for the length of the block."""
    with another_connection() as other:
        found = other.execute(f"SELECT 1 FROM {table} WHERE {column} = %s FOR NO KEY UPDATE", (key,)).fetchone()
        assert found is not None, f"no {table} with {column} {key} to hold"
        yield
        other.rollback()
