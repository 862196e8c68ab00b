"""The tables of a state in a database: which version they have, and how they are brought up to date."""

from decimal import Decimal
from typing import Any

import psycopg
from psycopg import errors as pg

from otel_openai_usage.errors import StateCorrupt, StateError, StateTooNew
from otel_openai_usage.storage.postgres.connection import PostgresDatabase
from otel_openai_usage.storage.postgres.migrations import MIGRATIONS, VERSION
from otel_openai_usage.storage.sql import measures
from otel_openai_usage.storage.sql.columns import needed_columns
from otel_openai_usage.storage.sql.values import quoted

OLDEST_SERVER = 140000
"""`server_version_num` of PostgreSQL 14."""
_TYPES = {Decimal: "NUMERIC", int: "BIGINT", str: "TEXT"}
_BEGUN_BY_ANOTHER = (pg.UniqueViolation, pg.DuplicateTable, pg.DuplicateColumn, pg.DuplicateObject)
_ATTEMPTS = 20


def version_of(connection: psycopg.Connection[Any], shown: str) -> int:
    """The version of the tables, 0 if there are none.

    Raises StateTooNew for a newer version, StateCorrupt for the tables of another program, and
    StateError for a server that is too old.
    """
    if connection.info.server_version < OLDEST_SERVER:
        major = connection.info.server_version // 10000
        raise StateError(
            f"opened the state in {shown}: the server is PostgreSQL {major}; 14 or newer is needed"
        )
    if connection.execute("SELECT to_regclass('otel_openai_usage_migrations')").fetchone() == (
        None,
    ):
        if connection.execute("SELECT to_regclass('readings')").fetchone() != (None,):
            raise StateCorrupt(
                f"opened the state in {shown}: the schema has tables of another program; name a"
                " schema of its own (options=-csearch_path=NAME in state.url)"
            )
        return 0
    (newest,) = connection.execute(
        "SELECT coalesce(max(version), 0) FROM otel_openai_usage_migrations"
    ).fetchone() or (0,)
    if newest > VERSION:
        raise StateTooNew(
            f"the state in {shown} has version {newest}, this program knows up to {VERSION};"
            " install a newer otel-openai-usage"
        )
    return int(newest)


def migrate(connection: psycopg.Connection[Any], shown: str) -> None:
    """Bring the tables up to date, whichever process comes first.

    Each step is one transaction. Two processes cannot do the same step: its number is the primary
    key of a row that is inserted first, so the second one waits, and then finds it done.
    """
    _repeated(
        connection,
        "CREATE TABLE IF NOT EXISTS otel_openai_usage_migrations (version BIGINT PRIMARY KEY)",
    )
    for number in range(version_of(connection, shown), VERSION):
        insert = f"INSERT INTO otel_openai_usage_migrations VALUES ({number + 1})"
        _repeated(connection, f"BEGIN; {insert}; {MIGRATIONS[number]}; COMMIT")
    missing = missing_columns(connection)
    # First: if this process ends before the columns are there, the next one finds the same notes.
    added = {name for table, name, _ in missing if table == "readings"}
    measures.remember_known(PostgresDatabase(connection), added)
    for table, name, column_type in missing:
        # Older rows have nothing of a number that was not stored.
        default = " DEFAULT 0" if column_type == _TYPES[int] else ""
        column = f"{quoted(name)} {column_type}{default}"
        _repeated(connection, f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column}")


def _repeated(connection: psycopg.Connection[Any], sql: str) -> None:
    """Run SQL. That another process did the same at the same time is no error."""
    for _ in range(_ATTEMPTS):
        try:
            connection.execute(sql)
        except _BEGUN_BY_ANOTHER:
            connection.rollback()
            return
        except (pg.SerializationFailure, pg.DeadlockDetected):
            connection.rollback()
        else:
            return
    raise StateError(f"created tables: the database asked {_ATTEMPTS} times to repeat it")


def missing_columns(connection: psycopg.Connection[Any]) -> list[tuple[str, str, str]]:
    """Table, name and type of each column that an endpoint needs and the tables lack."""
    found = []
    for table, columns in needed_columns().items():
        rows = connection.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND table_name = %s",
            (table,),
        )
        existing = {name for (name,) in rows.fetchall()}
        for name, value_type in columns.items():
            if name not in existing:
                found.append((table, name, _TYPES[value_type]))
    return found
