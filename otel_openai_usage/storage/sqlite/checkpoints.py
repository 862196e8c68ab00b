"""Writes the write-ahead log back into the main file."""

import sqlite3
from threading import Lock

from otel_openai_usage.storage.sqlite.errors import translate_errors
from otel_openai_usage.storage.sqlite.file import connect


class Checkpoints:
    """Uses its own connection, so that the writer's thread does not wait. Safe in any thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._closed = False
        self._lock = Lock()

    def run(self) -> None:
        """Write back what no reader needs in the log. Does nothing after `close`.

        Raises StateError.
        """
        with self._lock, translate_errors(self._path, "written"):
            if self._closed:
                return
            if self._db is None:
                self._db = connect(self._path)
            # PASSIVE never blocks the writer or a reader.
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close the file when a running checkpoint ends. A second call does nothing."""
        with self._lock:
            self._closed = True
            if self._db is not None:
                self._db.close()
                self._db = None
