"""Is the database sound, and what does its content say: errors as StateError."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from otel_openai_usage.errors import StateCorrupt
from otel_openai_usage.storage.sql import content_check
from otel_openai_usage.storage.sql.values import quoted
from otel_openai_usage.storage.sqlite.connection import StateConnection
from otel_openai_usage.storage.sqlite.errors import ADVICE, translate_errors
from otel_openai_usage.storage.sqlite.schema import missing_columns


def require_sound(db: sqlite3.Connection, path: str) -> None:
    """Raise StateCorrupt if SQLite finds that the database is damaged."""
    with translate_errors(path, "read"):
        (result,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if result != "ok":
        raise StateCorrupt(f"the state file {path} is damaged ({result}); {ADVICE}")


def totals_disagreeing(db: StateConnection, path: str) -> str | None:
    """A sentence about the totals that are not the sum of their rows, None if all are.

    Raises StateCorrupt for values that cannot be decoded.
    """
    with translate_errors(path, "read"), _with_every_column(db):
        return content_check.totals_disagreeing(db)


@contextmanager
def _with_every_column(db: StateConnection) -> Iterator[None]:
    """Read the columns that a state of an older version lacks as 0, without changing the state."""
    missing = [name for table, name, _ in missing_columns(db) if table == "readings"]
    if not missing:
        yield
        return
    zeros = ", ".join(f"0 AS {quoted(name)}" for name in missing)
    # A temporary view comes before the table of the same name.
    db.execute(f"CREATE TEMP VIEW readings AS SELECT *, {zeros} FROM main.readings")
    try:
        yield
    finally:
        db.execute("DROP VIEW temp.readings")
