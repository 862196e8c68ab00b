"""The port `Writer` on PostgreSQL: connects again, commits, and checks in every transaction that
nobody else writes.

Everything but `checkpoint`, `size` and the renewal of the lease runs in the recorder's thread.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg

from otel_openai_usage.config.location import DatabaseLocation
from otel_openai_usage.domain.model import Amounts
from otel_openai_usage.domain.ownership import NOBODYS
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.errors import StateError, StateUnavailable
from otel_openai_usage.storage.ports import SharedState
from otel_openai_usage.storage.postgres.connection import PostgresDatabase, connect
from otel_openai_usage.storage.postgres.errors import REPEATABLE, translate_errors, translated
from otel_openai_usage.storage.postgres.events import EventIdentities
from otel_openai_usage.storage.postgres.lease import Lease
from otel_openai_usage.storage.postgres.replicas import require_no_replicas, size_on_server
from otel_openai_usage.storage.postgres.schema import migrate, version_of
from otel_openai_usage.storage.results import Opening, StoredLoss
from otel_openai_usage.storage.sql import notes
from otel_openai_usage.storage.sql.database import Database
from otel_openai_usage.storage.sql.writer import SqlWriter, T

log = logging.getLogger(__name__)

_REPEATS = 5
"""How often a transaction is repeated if the database asks for it."""
_PAUSE = 1.0
"""Seconds between two attempts to connect. Calls in between fail at once."""
_UNSURE_SECONDS = 60.0
"""How long a commit whose answer was lost is looked for."""
_LOOPBACK = ("", "localhost", "127.0.0.1", "::1")


class Store(SqlWriter):
    """A state in a database that is open for writing. Every method raises StateError.

    Owns the lease until `close`. `now` returns Unix seconds. `strict` has no meaning here: this
    store has no losses.
    """

    def __init__(
        self,
        location: DatabaseLocation,
        *,
        now: Callable[[], float] = time.time,
        strict: bool = False,
    ) -> None:
        self._location = location
        self.path = str(location)
        self._now = now
        self._stopped = threading.Event()
        self._failed_at = -_PAUSE
        self._unavailable: StateUnavailable | None = None
        self._stale = False
        self._is_up = True
        self._size = 0
        self._lease = Lease(self.path, location.lease)
        with translate_errors(self.path, "opened"):
            connection = connect(location)
            try:
                was_new = version_of(connection, self.path) == 0
                migrate(connection, self.path)
                self._own(connection)
            except BaseException:
                connection.close()
                raise
        self._db: PostgresDatabase = PostgresDatabase(connection)
        self._events = EventIdentities(self._db)
        self._renewal = threading.Thread(target=self._renew_forever, name="lease", daemon=True)
        try:
            self._load(was_new=was_new)
        except BaseException:
            self.close()
            raise
        self._start_renewal()

    def _start_renewal(self) -> None:
        self._renewal.start()

    def _own(self, connection: psycopg.Connection[Any]) -> None:
        """Become the only writer. Raises StateInUse."""
        self._lease.take(connection)
        try:
            require_no_replicas(connection, self.path, self._lease.seconds)
        except BaseException:
            self._lease.release(connection)
            self._lease.drop()
            raise

    def _load(self, *, was_new: bool) -> None:
        with translate_errors(self.path, "read"):
            _, written = newest_commit(self._db)
            (began,) = self._db.execute(
                "SELECT min(epoch) FROM sources WHERE epoch > 0"
            ).fetchone() or (None,)
            self._size = size_on_server(self._db.connection)
        self.instance_id: str = self._transact(
            "read", lambda db: notes.initial(db, notes.INSTANCE_ID, str(uuid.uuid4()))
        )
        self.opening = Opening(
            is_new=was_new,
            counting_since=began,
            last_write=written or None,
            warnings=tuple(safety_warnings(self._location.url)),
        )

    # --- losses: this store has none, since a commit that returned is on the server

    shared: SharedState | None = None
    losses: Sequence[StoredLoss] = ()
    lost_seconds = 0
    needs_reread = False
    acceptance_requested = False

    def set_reread(self) -> None:
        """There is no lost time."""

    def accept(self) -> tuple[list[StoredLoss], Mapping[int, tuple[Amounts, Amounts]]]:
        """There is nothing to accept."""
        return [], {}

    # --- the connection

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._connected()
        with translate_errors(self.path, "read"):
            yield

    def _connected(self) -> None:
        """Connect again if the connection broke. Raises StateUnavailable, StateInUse."""
        if self._stale:
            raise StateError(
                f"the state in {self.path} was away while a commit was under way, and it is not"
                " known in time whether it was made; restart otel-openai-usage, which reads it anew"
            )
        if not self._db.connection.closed and not self._db.connection.broken:
            return
        now = time.monotonic()
        if self._unavailable is not None and now - self._failed_at < _PAUSE:
            raise self._unavailable
        self._is_up = False
        try:
            with translate_errors(self.path, "connected to"):
                connection = connect(self._location)
        except StateUnavailable as error:
            self._failed_at = time.monotonic()
            self._unavailable = error
            raise
        self._db.connection = connection
        self._unavailable = None
        self._is_up = True
        # Another process may have taken the state over meanwhile.
        with translate_errors(self.path, "read"):
            self._require_owned(connection, NOBODYS)

    def _require_owned(self, connection: psycopg.Connection[Any], scope: str | None) -> None:
        """Raise StateInUse if another process has the state. One process owns every scope."""
        self._lease.renew(connection)

    def _note_commit(self, connection: psycopg.Connection[Any], mark: str) -> None:
        """Count a commit, with a mark by which it is found if its answer is lost."""
        sql = "UPDATE commits SET number = number + 1, time = %s, mark = %s"
        connection.execute(sql, (int(self._now()), mark))

    def _newest_mark(self, connection: psycopg.Connection[Any]) -> str | None:
        """The mark of this process's newest commit."""
        found = connection.execute("SELECT mark FROM commits").fetchone()
        return found[0] if found else None

    def _transact(
        self, action: str, work: Callable[[Database], T], *, scope: str | None = None
    ) -> T:
        for attempt in range(_REPEATS):
            self._connected()
            try:
                return self._once(work, scope)
            except REPEATABLE as error:
                if attempt + 1 == _REPEATS:
                    raise translated(self.path, action, error) from error
            except psycopg.Error as error:
                self._is_up = not self._db.connection.broken
                raise translated(self.path, action, error) from error
        raise AssertionError("unreachable")

    def _once(self, work: Callable[[Database], T], scope: str | None) -> T:
        """One transaction. A transaction that changes something gets a number."""
        db = self._db
        # A process that is frozen in a transaction must not keep its locks for long.
        idle = max(1000, int(self._location.lease * 1000 / 3))
        db.connection.execute(f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = {idle}")
        mark = ""
        try:
            before = db.changes
            result = work(db)
            if db.changes != before:
                mark = uuid.uuid4().hex
                # In the same transaction: a process that lost the lease commits nothing.
                self._require_owned(db.connection, scope)
                self._note_commit(db.connection, mark)
        except BaseException:
            with suppress(psycopg.Error):
                db.connection.execute("ROLLBACK")
            raise
        try:
            db.connection.execute("COMMIT")
        except psycopg.OperationalError:
            if not mark or not self._was_committed(mark):
                raise
        if mark:
            self._commit_made()
        return result

    def _commit_made(self) -> None:
        """A transaction that changed something was committed."""

    def _was_committed(self, mark: str) -> bool:
        """Whether a commit whose answer was lost was made. Waits until the database says it.

        What is in memory must agree with the database, so nothing else may happen before.
        """
        deadline = time.monotonic() + _UNSURE_SECONDS
        while time.monotonic() < deadline:
            try:
                connection = connect(self._location)
                found = self._newest_mark(connection)
            except psycopg.Error:
                self._stopped.wait(_PAUSE)
                continue
            self._db.connection = connection
            return found == mark
        self._stale = True
        return False

    def _renew_forever(self) -> None:
        """Renew the lease, on a connection of its own: the writer's may be in a transaction."""
        connection: psycopg.Connection[Any] | None = None
        while not self._stopped.wait(self._lease.seconds / 3):
            try:
                connection = connection or connect(self._location)
                self._lease.renew(connection)
                self._size = size_on_server(connection)
                self._is_up = True
            except (psycopg.Error, StateError) as error:
                self._is_up = False
                log.debug(
                    "the lease was not renewed",
                    extra={"event": "lease_not_renewed", "error": str(error)},
                )
                if connection is not None:
                    connection.close()
                    connection = None
        if connection is not None:
            connection.close()

    def _source_opened(self, source_state: SourceState) -> None:
        """Nothing outside the database says since when it counts."""

    # --- the rest of the port

    @property
    def is_up(self) -> bool:
        """Whether the server answered at the last attempt."""
        return self._is_up

    def why_unwritable(self) -> str | None:
        """Why nothing can be stored now, in a sentence; None if writing works."""
        try:
            with self._reading():
                (answer,) = self._db.execute("SHOW transaction_read_only").fetchone() or ("on",)
        except StateError as error:
            return str(error)
        if answer == "on":
            return f"the state in {self.path} cannot be written: the server is read-only"
        return None

    def size(self) -> int:
        """Bytes of the tables on the server, as of the last renewal of the lease."""
        return self._size

    def checkpoint(self) -> None:
        """The server looks after its log itself."""

    def sync(self) -> None:
        """The server looks after its log itself."""

    def close(self) -> None:
        """Give the lease back and close the connection."""
        self._stop()
        with suppress(psycopg.Error):
            if not self._db.connection.closed:
                self._lease.release(self._db.connection)
        self.abandon()

    def abandon(self) -> None:
        """Close the connection as a killed process does: the lease is not given back."""
        self._stop()
        self._lease.drop()
        self._db.connection.close()

    def _stop(self) -> None:
        self._stopped.set()
        if self._renewal.is_alive():
            self._renewal.join(timeout=5)


def newest_commit(db: PostgresDatabase) -> tuple[int, int]:
    """How many commits all processes made, and the Unix time of the newest."""
    sql = (
        "SELECT CAST(sum(number) AS BIGINT), max(time) FROM (SELECT number, time FROM commits"
        " UNION ALL SELECT number, time FROM replica_commits) made"
    )
    number, time = db.execute(sql).fetchone() or (0, 0)
    return number, time


def safety_warnings(url: str) -> Iterator[tuple[str, str]]:
    """What is allowed but not safe, as pairs of log event and sentence."""
    parts = urlsplit(url)
    parameters = parse_qs(parts.query)
    hosts = parts.netloc.rpartition("@")[2].split(",") + parameters.get("host", [])
    names = [_host_name(host) for host in hosts if host]
    if all(name in _LOOPBACK or name.startswith("/") for name in names):
        return
    mode = parameters.get("sslmode", ["prefer"])[-1]
    if mode != "verify-full":
        sentence = (
            f"the state is on another machine with sslmode {mode}: somebody between may read and"
            " change it; use sslmode=verify-full in state.url"
        )
        yield "state_tls", sentence


def _host_name(host: str) -> str:
    """The host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
