"""The port `Queries` on an SQLite file: reads it while the exporter may be writing it.

with open_queries(path) as queries:
    queries.usage(start, end, by=("model", "project_id"))
    queries.costs(start, end, by=("project_id", "line_item"))
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from otel_openai_usage.storage.sql.queries import SqlQueries
from otel_openai_usage.storage.sqlite.connection import StateConnection
from otel_openai_usage.storage.sqlite.errors import no_state, translate_errors
from otel_openai_usage.storage.sqlite.file import open_read_only


@contextmanager
def open_queries(path: Path) -> Iterator["SqliteQueries"]:
    """Open the state at `path` for reading.

    Raises StateError, also if there is no state or it is of an older version.
    """
    with open_read_only(path) as db:
        yield SqliteQueries(db, path)


class SqliteQueries(SqlQueries):
    """The port `Queries` on an SQLite file. Created by `open_queries`."""

    def __init__(self, db: StateConnection, path: Path) -> None:
        self._db: StateConnection = db
        self._path = path

    def version(self) -> int:
        """A number that changes whenever the store was written."""
        # An open connection would go on reading a deleted file.
        if not self._path.exists():
            raise no_state(self._path)
        return int(self._all("PRAGMA data_version")[0][0])

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with translate_errors(str(self._path), "read"):
            yield

    @contextmanager
    def _one_state(self) -> Iterator[None]:
        with self._reading():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")
