"""The port `Queries` on PostgreSQL. It needs SELECT only."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from otel_openai_usage.config.location import DatabaseLocation
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.postgres.connection import PostgresDatabase, connect
from otel_openai_usage.storage.postgres.errors import translate_errors
from otel_openai_usage.storage.postgres.migrations import VERSION
from otel_openai_usage.storage.postgres.schema import missing_columns, version_of
from otel_openai_usage.storage.postgres.store import newest_commit
from otel_openai_usage.storage.sql.database import Database
from otel_openai_usage.storage.sql.queries import SqlQueries


@contextmanager
def open_queries(location: DatabaseLocation) -> Iterator["PostgresQueries"]:
    """Open the state for reading.

    Raises StateError, also if there is no state or it is of an older version.
    """
    shown = str(location)
    with translate_errors(shown, "opened"):
        connection = connect(location)
    with closing(connection):
        with translate_errors(shown, "read"):
            version = version_of(connection, shown)
            if not version:
                raise StateError(
                    f"looked for a state in {shown}: there is none; `otel-openai-usage run` makes it"
                )
            if version < VERSION or missing_columns(connection):
                raise StateError(
                    f"the state in {shown} is of an older version;"
                    " start `otel-openai-usage run` once"
                )
        yield PostgresQueries(PostgresDatabase(connection), shown)


class PostgresQueries(SqlQueries):
    """The port `Queries` on PostgreSQL. Created by `open_queries`."""

    def __init__(self, db: PostgresDatabase, shown: str) -> None:
        self._db: PostgresDatabase = db
        self._shown = shown

    @contextmanager
    def whole(self) -> Iterator[Database]:
        """The tables as they are now, for a copy of the whole state.

        Raises StateError while events wait that nobody counted yet.
        """
        with super().whole() as db:
            (waiting,) = db.execute("SELECT count(*) FROM queued_usage").fetchone()
            if waiting:
                raise StateError(
                    f"copied the state in {self._shown}: events wait that no replica counted yet;"
                    " start `otel-openai-usage run` on it for a moment, then copy it"
                )
            yield db

    def version(self) -> int:
        """A number that changes whenever the store was written."""
        with self._reading():
            number, _ = newest_commit(self._db)
        return number

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with translate_errors(self._shown, "read"):
            yield

    @contextmanager
    def _one_state(self) -> Iterator[None]:
        with self._reading():
            self._db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")
