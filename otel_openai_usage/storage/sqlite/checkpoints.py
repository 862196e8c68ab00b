"""Writes the log back into the main file beside the one writer."""

import sqlite3
from threading import Lock

from otel_openai_usage.storage.sqlite.file import connect, translate_errors


class Checkpoints:
    """Has a connection of its own, so that the writer's thread need not wait. Used from any
    thread.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._closed = False
        self._turn = Lock()

    def run(self) -> None:
        """Write back what no reader needs in the log. After `close` it does nothing. Raises
        StateError.
        """
        with self._turn, translate_errors(self._path, "written"):
            if self._closed:
                return
            if self._db is None:
                self._db = connect(self._path)
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Let go of the file, after what is being written back. Doing so twice does no harm."""
        with self._turn:
            self._closed = True
            if self._db is not None:
                self._db.close()
                self._db = None
