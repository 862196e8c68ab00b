"""The columns that today's endpoints need.

They are added after the migrations, in a step that can run any number of times. So a new endpoint
needs no migration.
"""

import sqlite3
from decimal import Decimal

from otel_openai_usage.storage.sql.columns import needed_columns
from otel_openai_usage.storage.sql.values import quoted


def missing_columns(db: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Table, name and type of each column that an endpoint needs and the file lacks."""
    found = []
    for table, columns in needed_columns().items():
        existing = _existing_columns(db, table)
        for name, value_type in columns.items():
            if name not in existing:
                found.append((table, name, _TYPES[value_type]))
    return found


def add_missing_columns(db: sqlite3.Connection) -> None:
    """Add the columns that the endpoints need. Running it again does nothing.

    Runs inside its caller's transaction. Columns that no endpoint needs any longer stay.
    """
    for table, name, column_type in missing_columns(db):
        db.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {column_type}")


_TYPES = {Decimal: "TEXT", int: "INTEGER", str: "TEXT"}
"""Money is text, so that no digit is lost."""


def _existing_columns(db: sqlite3.Connection, table: str) -> set[str]:
    return {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
