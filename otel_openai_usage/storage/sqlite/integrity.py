"""Is the database sound, and what does its content say: errors as StateError."""

import sqlite3

from otel_openai_usage.errors import StateCorrupt
from otel_openai_usage.storage.sql import content_check
from otel_openai_usage.storage.sqlite.connection import StateConnection
from otel_openai_usage.storage.sqlite.errors import ADVICE, translate_errors


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
    with translate_errors(path, "read"):
        return content_check.totals_disagreeing(db)
