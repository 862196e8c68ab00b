"""The columns that today's endpoints need.

They are added after the migrations, in a step that can run any number of times. So a new endpoint
needs no migration.
"""

import sqlite3
from collections.abc import Iterable, Mapping

from otel_openai_usage.domain.endpoints import STORED, Endpoint
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.storage.sqlite.values import quoted


def missing_columns(db: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Table, name and type of each column that an endpoint needs and the file lacks."""
    found = []
    for table, columns in _columns((*STORED.values(), METERED)).items():
        existing = _existing_columns(db, table)
        for name, column_type in columns.items():
            if name not in existing:
                found.append((table, name, column_type))
    return found


def add_missing_columns(db: sqlite3.Connection) -> None:
    """Add the columns that the endpoints need. Running it again does nothing.

    Runs inside its caller's transaction. Columns that no endpoint needs any longer stay.
    """
    for table, name, column_type in missing_columns(db):
        db.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {column_type}")


def _columns(endpoints: Iterable[Endpoint]) -> Mapping[str, Mapping[str, str]]:
    """The columns that these endpoints need: table → name → type."""
    measures: dict[str, str] = {}
    dimensions: dict[str, str] = {}
    for endpoint in endpoints:
        for measure in endpoint.measures:
            # Money is text, so that no digit is lost.
            measures[measure.name] = "TEXT" if measure.money else "INTEGER"
        for dimension in endpoint.group_by + endpoint.derived:
            dimensions[dimension] = "TEXT"
    return {"readings": measures, "dims": dimensions}


def _existing_columns(db: sqlite3.Connection, table: str) -> set[str]:
    return {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
