"""The rows by which several replicas share a state: leases, and a beat of each replica.

`domain.ownership` decides with them. Every method is one short transaction.
"""

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg

from otel_openai_usage.config.location import DatabaseLocation
from otel_openai_usage.domain.ownership import Beat, Claim, Lease
from otel_openai_usage.errors import StateInUse
from otel_openai_usage.storage.postgres import lease as processes
from otel_openai_usage.storage.postgres.connection import connect
from otel_openai_usage.storage.postgres.errors import translate_errors
from otel_openai_usage.storage.results import Look

_LOOKS = 10
"""How often a candidate looks at the rows while it waits for one lease."""
_LOCK_TIMEOUT = 1000
"""Milliseconds to wait for a row: whoever holds it is frozen, and is soon ended by the server."""
T = TypeVar("T")


class Replicas:
    """The rows as one replica uses them, on a connection of its own. Safe in any thread."""

    def __init__(self, location: DatabaseLocation) -> None:
        self._location = location
        self._shown = str(location)
        self.seconds = location.lease
        self._connection: psycopg.Connection[Any] | None = None
        self._lock = threading.Lock()
        # By scope. After a fail-over that lost commits the database may know older tokens only.
        self._highest: dict[str, int] = {}
        self.replica = ""
        """The name of this replica. It is another one after others took it for dead."""

    def beat(self) -> Look:
        """Say that this replica lives, and read all rows. Raises StateError."""
        return self._run(self._beat)

    def _beat(self, connection: psycopg.Connection[Any]) -> Look:
        if self._location.standby:
            # It has no row, because the others share out everything among those that have one.
            processes.Lease(self._shown, self.seconds).require_free(connection)
            return Look(replica="", is_known=True, beats=(), leases=())
        is_known = (
            connection.execute(
                "UPDATE replicas SET beats = beats + 1 WHERE replica = %s", (self.replica,)
            ).rowcount
            == 1
        )
        if not is_known:
            processes.HELD.discard(self.replica)
            self.replica = f"{processes.this_process()} {uuid.uuid4().hex}"
            processes.HELD.add(self.replica)
            self._enter(connection)
        beats = connection.execute("SELECT replica, beats FROM replicas").fetchall()
        leases = connection.execute("SELECT scope, owner, token FROM leases").fetchall()
        for scope, _, token in leases:
            self._highest[scope] = max(token, self._highest.get(scope, 0))
        return Look(
            replica=self.replica,
            is_known=is_known,
            # A process of this machine that has ended needs no waiting for.
            beats=[Beat(*row) for row in beats if not processes.has_ended(row[0])],
            leases=[Lease(*row) for row in leases if row[0] != processes.SCOPE],
        )

    def _enter(self, connection: psycopg.Connection[Any]) -> None:
        """Say that this replica is there. Raises StateInUse if one process has the whole state."""
        connection.execute("INSERT INTO replicas VALUES (%s, 1)", (self.replica,))
        try:
            # After the row, so that of the two that begin at once at least one sees the other.
            processes.Lease(self._shown, self.seconds).require_free(connection)
        except StateInUse:
            connection.execute("DELETE FROM replicas WHERE replica = %s", (self.replica,))
            self.replica = ""
            raise

    def claim(self, claim: Claim) -> int | None:
        """Take a lease. Its new token, None if it is not as it was seen. Raises StateError."""
        return self._run(lambda connection: self._claim(connection, claim))

    def _claim(self, connection: psycopg.Connection[Any], claim: Claim) -> int | None:
        seen = claim.lease
        connection.execute(f"BEGIN; SET LOCAL lock_timeout = {_LOCK_TIMEOUT}")
        try:
            if claim.dead is not None:
                connection.execute(
                    "DELETE FROM replicas WHERE replica = %s AND beats = %s",
                    (claim.dead.replica, claim.dead.beats),
                )
                # If it is still there it has just said that it lives.
                if _exists(connection, claim.dead.replica):
                    return None
            if not _exists(connection, self.replica):
                return None
            connection.execute(
                "INSERT INTO leases VALUES (%s, '', 0, 0) ON CONFLICT (scope) DO NOTHING",
                (seen.scope,),
            )
            token = max(seen.token, self._highest.get(seen.scope, 0)) + 1
            taken = connection.execute(
                "UPDATE leases SET owner = %s, token = %s"
                " WHERE scope = %s AND owner = %s AND token = %s",
                (self.replica, token, seen.scope, seen.owner, seen.token),
            ).rowcount
            connection.execute("COMMIT")
        finally:
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.rollback()
        return token if taken == 1 else None

    def begin_again(self) -> None:
        """Own nothing any more: the next beat is that of another replica. Raises StateError."""
        before = self.replica
        self.replica = ""
        processes.HELD.discard(before)

        def leave(connection: psycopg.Connection[Any]) -> None:
            # The tokens grow, because what this replica has in memory must not be written.
            sql = "UPDATE leases SET owner = '', token = token + 1 WHERE owner = %s"
            connection.execute(sql, (before,))
            connection.execute("DELETE FROM replicas WHERE replica = %s", (before,))

        self._run(leave)

    def commits_of(self, process: str) -> int:
        """How many commits of a process the database knows. Raises StateError."""

        def read(connection: psycopg.Connection[Any]) -> int:
            sql = "SELECT number FROM replica_commits WHERE replica = %s"
            found = connection.execute(sql, (process,)).fetchone()
            return found[0] if found else 0

        return self._run(read)

    def release(self, scope: str, token: int) -> None:
        """Give a lease away. Raises StateError."""
        sql = "UPDATE leases SET owner = '' WHERE scope = %s AND owner = %s AND token = %s"
        self._run(lambda connection: connection.execute(sql, (scope, self.replica, token)))

    def leave(self) -> None:
        """Give all leases away: others need not wait. Raises StateError."""

        def leave(connection: psycopg.Connection[Any]) -> None:
            values = (self.replica,)
            connection.execute("UPDATE leases SET owner = '' WHERE owner = %s", values)
            connection.execute("DELETE FROM replicas WHERE replica = %s", values)

        if self.replica:
            self._run(leave)

    def size(self) -> int:
        """Bytes of the tables. Raises StateError."""
        return self._run(size_on_server)

    def close(self) -> None:
        """Close the connection as a killed process does. A second call does nothing."""
        processes.HELD.discard(self.replica)
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _run(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        with self._lock, translate_errors(self._shown, "written"):
            if self._connection is None:
                self._connection = connect(self._location)
            try:
                return work(self._connection)
            except BaseException:
                self._connection.close()
                self._connection = None
                raise


def size_on_server(connection: psycopg.Connection[Any]) -> int:
    """Bytes of the tables, their indexes included."""
    sql = (
        "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c"
        " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'"
    )
    found = connection.execute(sql).fetchone()
    return int(found[0]) if found else 0


def _exists(connection: psycopg.Connection[Any], replica: str) -> bool:
    sql = "SELECT 1 FROM replicas WHERE replica = %s FOR SHARE"
    return connection.execute(sql, (replica,)).fetchone() is not None


def require_no_replicas(connection: psycopg.Connection[Any], shown: str, seconds: float) -> None:
    """Raise StateInUse if a replica lives. After that none of those that were there can commit."""
    first = _beats(connection)
    deadline = time.monotonic() + seconds
    while first:
        now = _beats(connection)
        for replica, beats in now.items():
            if first.get(replica) != beats:
                raise _in_use(shown, replica)
        if not now or time.monotonic() >= deadline:
            break
        time.sleep(seconds / _LOOKS)
    connection.execute("DELETE FROM replicas")
    connection.execute(
        "UPDATE leases SET owner = '', token = token + 1 WHERE scope <> %s", (processes.SCOPE,)
    )


def _beats(connection: psycopg.Connection[Any]) -> dict[str, int]:
    rows = connection.execute("SELECT replica, beats FROM replicas").fetchall()
    return {replica: beats for replica, beats in rows if not processes.has_ended(replica)}


def _in_use(shown: str, replica: str) -> StateInUse:
    who = replica.partition(" ")[0]
    return StateInUse(
        f"the state in {shown} is in use by another otel-openai-usage ({who}); end it first"
    )


def owners(connection: psycopg.Connection[Any]) -> tuple[tuple[str, str], ...]:
    """(scope, host and process) pairs of the leases that somebody has."""
    rows = connection.execute("SELECT scope, owner FROM leases ORDER BY scope").fetchall()
    return tuple(
        (scope, owner.partition(" ")[0])
        for scope, owner in rows
        if owner and not processes.has_ended(owner)
    )
