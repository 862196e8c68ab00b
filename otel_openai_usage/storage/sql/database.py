"""The connection that the shared statements need.

Parameters are written as `?`. A value may be None, bool, int, str or bytes; money is passed as text
and comes back as text or Decimal.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

Parameters: TypeAlias = Sequence[Any]


class Result(Protocol):
    """The rows that a statement returned, and how many it changed."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, None at the end."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Database(Protocol):
    """A connection to a store. Its errors are those of its driver."""

    def execute(self, sql: str, parameters: Parameters = (), /) -> Result:
        """Run one statement."""
        ...

    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> object:
        """Run one statement for each of `parameters`."""
        ...

    def write(
        self,
        table: str,
        columns: Sequence[str],
        rows: Iterable[Parameters],
        /,
        *,
        conflict: str = "",
    ) -> None:
        """Insert many rows. `conflict` is the ON CONFLICT clause, without which one is an error.

        No two of `rows` may have the same key.
        """
        ...

    def update(self, table: str, columns: Sequence[str], rows: Iterable[Parameters], /) -> None:
        """Set these columns of many rows. A row has a value for each column, then its id."""
        ...

    def insert(
        self, table: str, columns: Sequence[str], rows: Sequence[Parameters], /
    ) -> dict[str, int]:
        """Insert rows with a column `key`, unique among them. Their new ids by that key."""
        ...

    def stream(self, sql: str, /) -> Generator[Sequence[Any], None, None]:
        """Yield the rows of a query that may be many, without having all of them in memory."""
        ...

    def columns_of(self, table: str, /) -> list[str]:
        """The names of a table's columns."""
        ...

    def event_rows(self) -> Generator[tuple[bytes, bytes, int], None, None]:
        """Yield identity, content and time of every recorded event, each identity once."""
        ...

    def ids_were_inserted(self, table: str, /) -> None:
        """Rows were inserted with their ids: the next new id must be greater."""
        ...

    def whole_sum(self, column: str, /) -> str:
        """SQL of the exact sum of a column of whole numbers, which may exceed 64 bits."""
        ...

    def decimal_sum(self, column: str, /) -> str:
        """SQL of the exact sum of a column of money. NULL if it has no value."""
        ...

    def json_keys(self, column: str, /) -> str:
        """SQL of a table `keys` whose column `key` has the names of a JSON object."""
        ...
