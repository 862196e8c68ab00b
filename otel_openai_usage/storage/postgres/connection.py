"""A connection to PostgreSQL, with what the shared statements need."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg

from otel_openai_usage.config.location import DatabaseLocation
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.sql.database import Parameters

CONNECT_TIMEOUT = 5
"""Seconds for one attempt to connect, where the URL has no connect_timeout."""
_ROWS_PER_STATEMENT = 10_000
_NUL = "\0"
_REPLACEMENT = "\ufffd"


def connect(location: DatabaseLocation) -> psycopg.Connection[Any]:
    """Open a connection. Raises psycopg.Error, or StateError for an unreadable password file."""
    parameters: dict[str, Any] = {"application_name": "otel-openai-usage"}
    if location.password_file is not None:
        parameters["password"] = _password(location.password_file)
    if "connect_timeout=" not in location.url:
        parameters["connect_timeout"] = CONNECT_TIMEOUT
    connection = psycopg.connect(location.url, autocommit=True, **parameters)
    # pgbouncer may give each transaction another server connection, which does not know statements
    # that were prepared on an earlier one.
    connection.prepare_threshold = None
    return connection


def _password(file: Path) -> str:
    try:
        return file.read_text().strip("\r\n")
    except OSError as error:
        raise StateError(
            f"read the password of the state in {file}: {error.strerror or error};"
            " check state.password_file"
        ) from error


class PostgresDatabase:
    """The `Database` of PostgreSQL. `connection` may be replaced by a new one."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.changes = 0
        """How many rows were changed since this object was created."""
        self._types: dict[str, Mapping[str, str]] = {}

    def execute(self, sql: str, parameters: Parameters = (), /) -> psycopg.Cursor[Any]:
        """Run one statement."""
        cursor = self.connection.execute(_translated(sql), tuple(parameters) or None)
        self._count(cursor)
        return cursor

    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> None:
        """Run one statement for each of `parameters`."""
        values = list(parameters)
        if not values:
            return
        with self.connection.cursor() as cursor:
            cursor.executemany(_translated(sql), values)
            self._count(cursor)

    def write(
        self,
        table: str,
        columns: Sequence[str],
        rows: Iterable[Parameters],
        /,
        *,
        conflict: str = "",
    ) -> None:
        """Insert many rows. `conflict` is the ON CONFLICT clause."""
        sql = (
            f"INSERT INTO {table} ({', '.join(columns)})"
            f" SELECT * FROM {self._arrays(table, columns)} {conflict}"
        )
        for part in _parts(rows):
            self._count(self.connection.execute(sql, _columns(part)))

    def update(self, table: str, columns: Sequence[str], rows: Iterable[Parameters], /) -> None:
        """Set these columns of many rows. A row has a value for each column, then its id."""
        names = [*columns, "id"]
        updates = ", ".join(f"{column} = changed.{column}" for column in columns)
        arrays = self._arrays(table, names)
        sql = (
            f"UPDATE {table} SET {updates} FROM {arrays} AS changed ({', '.join(names)})"
            f" WHERE {table}.id = changed.id"
        )
        for part in _parts(rows):
            self._count(self.connection.execute(sql, _columns(part)))

    def insert(
        self, table: str, columns: Sequence[str], rows: Sequence[Parameters], /
    ) -> dict[str, int]:
        """Insert rows with a column `key`, unique among them. Their new ids by that key."""
        sql = (
            f"INSERT INTO {table} ({', '.join(columns)})"
            f" SELECT * FROM {self._arrays(table, columns)} RETURNING key, id"
        )
        found: dict[str, int] = {}
        for part in _parts(rows):
            cursor = self.connection.execute(sql, _columns(part))
            self._count(cursor)
            found.update(cursor.fetchall())
        return found

    def stream(self, sql: str, /) -> Generator[Sequence[Any], None, None]:
        """Yield the rows of a query that may be many, without having all of them in memory.

        Must be used in a transaction.
        """
        with self.connection.cursor(name="stream") as cursor:
            cursor.itersize = _ROWS_PER_STATEMENT
            yield from cursor.execute(sql)

    def columns_of(self, table: str, /) -> list[str]:
        """The names of a table's columns."""
        return list(self._types_of(table))

    def event_rows(self) -> Generator[tuple[bytes, bytes, int], None, None]:
        """Yield identity, content and time of every recorded event."""
        for row in self.stream("SELECT identity, content, seen FROM events"):
            identity, content, seen = row
            yield bytes(identity), bytes(content), seen

    def ids_were_inserted(self, table: str, /) -> None:
        """Rows were inserted with their ids: the next new id must be greater."""
        self.connection.execute(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"
        )

    def whole_sum(self, column: str, /) -> str:
        """SQL of the exact sum of a column of whole numbers: a NUMERIC, so it cannot overflow."""
        return f"sum({column})"

    def decimal_sum(self, column: str, /) -> str:
        """SQL of the exact sum of a NUMERIC column. NULL if it has no value."""
        return f"sum({column})"

    def json_keys(self, column: str, /) -> str:
        """SQL of a table `keys` whose column `key` has the names of a JSON object."""
        return f"LATERAL json_object_keys({column}::json) AS keys(key)"

    def _arrays(self, table: str, columns: Sequence[str]) -> str:
        """SQL of a table that is made of one array for each column."""
        types = self._types_of(table)
        casts = [f"%s::{types[column.strip(chr(34))]}[]" for column in columns]
        return f"unnest({', '.join(casts)})"

    def _types_of(self, table: str) -> Mapping[str, str]:
        if table not in self._types:
            found = self.connection.execute(
                "SELECT column_name, data_type FROM information_schema.columns"
                " WHERE table_schema = current_schema() AND table_name = %s"
                " ORDER BY ordinal_position",
                (table,),
            )
            self._types[table] = dict(found.fetchall())
        return self._types[table]

    def _count(self, cursor: psycopg.Cursor[Any]) -> None:
        status = cursor.statusmessage or ""
        if status.startswith(("INSERT", "UPDATE", "DELETE")):
            self.changes += max(cursor.rowcount, 0)


@lru_cache(1024)
def _translated(sql: str) -> str:
    """The statement with the placeholders of psycopg. Ours have no `?` or `%` elsewhere."""
    return sql.replace("?", "%s")


def _parts(rows: Iterable[Parameters]) -> Iterator[list[Parameters]]:
    """The rows in parts, so that a statement has a bounded size."""
    iterator = iter(rows)
    while part := list(islice(iterator, _ROWS_PER_STATEMENT)):
        yield part


def _columns(rows: Sequence[Parameters]) -> list[list[Any]]:
    """One list of values for each column."""
    return [_column(values) for values in zip(*rows, strict=True)]


def _column(values: tuple[Any, ...]) -> list[Any]:
    if not any(isinstance(value, str) and _NUL in value for value in values):
        return list(values)
    # PostgreSQL stores no NUL in text. The key of an attribute set escapes it, so it stays unique.
    return [
        value.replace(_NUL, _REPLACEMENT) if isinstance(value, str) else value for value in values
    ]
