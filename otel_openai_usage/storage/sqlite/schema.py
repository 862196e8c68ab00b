"""The columns that today's endpoints need.

They are added after the migrations, in a step that can run any number of times. So a new endpoint
needs no migration.
"""

import sqlite3
from decimal import Decimal
from typing import cast

from otel_openai_usage.storage.sql import measures
from otel_openai_usage.storage.sql.columns import needed_columns
from otel_openai_usage.storage.sql.database import Database
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
    missing = missing_columns(db)
    added = {name for table, name, _ in missing if table == "readings"}
    # The statements need no more of a `Database` than any connection has.
    measures.remember_known(cast(Database, db), added)
    for table, name, column_type in missing:
        # Older rows have nothing of a number that was not stored.
        default = " DEFAULT 0" if column_type == _TYPES[int] else ""
        db.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {column_type}{default}")


_TYPES = {Decimal: "TEXT", int: "INTEGER", str: "TEXT"}
"""Money is text, so that no digit is lost."""


def _existing_columns(db: sqlite3.Connection, table: str) -> set[str]:
    return {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
