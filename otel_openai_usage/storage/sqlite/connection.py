"""A connection to an SQLite file, with what the shared statements need."""

import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from otel_openai_usage.domain.pricing import add
from otel_openai_usage.storage.sql.database import Parameters

IDENTITY_BYTES = 16
_PAIR_BYTES = 24


def identity_pairs(pairs: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the identities and contents in one row of the table `arrived`."""
    for start in range(0, len(pairs), _PAIR_BYTES):
        middle = start + IDENTITY_BYTES
        yield pairs[start:middle], pairs[middle : start + _PAIR_BYTES]


class StateConnection(sqlite3.Connection):
    """The `Database` of SQLite. Use it as the factory of `sqlite3.connect`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.create_aggregate("decimal_sum", 1, _DecimalSum)  # type: ignore[arg-type]  # typeshed expects an int sum

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
        self.executemany(f"{_insert(table, columns)} {conflict}", rows)

    def update(self, table: str, columns: Sequence[str], rows: Iterable[Parameters], /) -> None:
        """Set these columns of many rows. A row has a value for each column, then its id."""
        updates = ", ".join(f"{column} = ?" for column in columns)
        self.executemany(f"UPDATE {table} SET {updates} WHERE id = ?", rows)

    def insert(
        self, table: str, columns: Sequence[str], rows: Sequence[Parameters], /
    ) -> dict[str, int]:
        """Insert rows with a column `key`, unique among them. Their new ids by that key."""
        sql = _insert(table, columns)
        key = columns.index("key")
        # One by one, because executemany does not return the ids.
        return {values[key]: self.execute(sql, values).lastrowid or 0 for values in rows}

    def stream(self, sql: str, /) -> Generator[Sequence[Any], None, None]:
        """Yield the rows of a query that may be many, without having all of them in memory."""
        yield from self.execute(sql)

    def columns_of(self, table: str, /) -> list[str]:
        """The names of a table's columns."""
        return [name for _, name, *_ in self.execute(f"PRAGMA table_info({table})")]

    def event_rows(self) -> Generator[tuple[bytes, bytes, int], None, None]:
        """Yield identity, content and time of every recorded event."""
        arrived: dict[bytes, tuple[bytes, int]] = {}
        for seen, pairs in self.execute("SELECT seen, pairs FROM arrived ORDER BY number"):
            for identity, content in identity_pairs(pairs):
                arrived[identity] = (content, seen)
        for identity, content, seen in self.execute("SELECT identity, content, seen FROM events"):
            if identity not in arrived:
                yield identity, content, seen
        for identity, (content, seen) in arrived.items():
            yield identity, content, seen

    def ids_were_inserted(self, table: str, /) -> None:
        """SQLite takes the next id after the greatest by itself."""

    def whole_sum(self, column: str, /) -> str:
        """SQL of the sum of a column of whole numbers.

        Beyond 64 bits the sum becomes a REAL. SQLite's `sum` would raise an error, and the rows
        could never be read or downsampled again.
        """
        # Two halves: neither sum can exceed 64 bits with fewer than two billion rows.
        return f"(sum({column} >> 32) * 4294967296 + sum({column} & 4294967295))"

    def decimal_sum(self, column: str, /) -> str:
        """SQL of the exact sum of a column of decimal text. NULL if it has no value."""
        return f"decimal_sum({column})"

    def json_keys(self, column: str, /) -> str:
        """SQL of a table `keys` whose column `key` has the names of a JSON object."""
        return f"json_each({column}) AS keys"


def _insert(table: str, columns: Sequence[str]) -> str:
    placeholders = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({placeholders})"


class _DecimalSum:
    """The SQL aggregate `decimal_sum`: the exact sum of decimal text. NULL if there is none."""

    def __init__(self) -> None:
        self._sum: Decimal | None = None

    def step(self, text: Any, /) -> None:
        if text is None:
            return
        amount = Decimal(text)
        self._sum = amount if self._sum is None else add(self._sum, amount)

    def finalize(self) -> str | None:
        return None if self._sum is None else str(self._sum)
