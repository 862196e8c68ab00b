"""The port `Writer` where several replicas write one state.

Each transaction checks the token of what it writes. Events belong to nobody: any replica stores
their identities, and what they add waits in a queue until the owner of the organization counts it.
So replicas do not wait for each other, and every total has one writer.
"""

import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import psycopg

from otel_openai_usage.config.location import DatabaseLocation
from otel_openai_usage.domain.commits import Created
from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.metered import (
    AddedUsage,
    Event,
    EventCommit,
    HourKey,
    Queued,
    deduplicate,
)
from otel_openai_usage.domain.model import Amounts, Dims, Width, floor
from otel_openai_usage.domain.ownership import NOBODYS, Claim, scope_of
from otel_openai_usage.domain.pricing import add
from otel_openai_usage.domain.reconciliation import total
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.errors import NotOwner, StateError
from otel_openai_usage.storage.ports import ToUsage
from otel_openai_usage.storage.postgres.replicas import Replicas
from otel_openai_usage.storage.postgres.store import Store
from otel_openai_usage.storage.results import Look
from otel_openai_usage.storage.sql import rows, series, sources
from otel_openai_usage.storage.sql.database import Database
from otel_openai_usage.storage.sql.values import (
    decode_amounts,
    decode_dims,
    encode_amounts,
    encode_dims,
)

log = logging.getLogger(__name__)

_COUNTED_AT_ONCE = 10_000
"""Rows of the queue in one transaction, at most."""
_MEASURED_EVERY = 30
"""Beats between two measurements of the size."""


class SharedStore(Store):
    """A state in a database that several replicas write. Every method raises StateError."""

    def __init__(
        self,
        location: DatabaseLocation,
        *,
        now: Callable[[], float] = time.time,
        strict: bool = False,
    ) -> None:
        self._replicas = Replicas(location)
        self._tokens: Mapping[str, int] = {}
        self._process = uuid.uuid4().hex
        self._beats = 0
        self._made = 0
        self.lost_commits = 0
        super().__init__(location, now=now, strict=strict)
        self.shared = self

    # --- who may write

    def _own(self, connection: psycopg.Connection[Any]) -> None:
        """Say that this replica is there. Raises StateInUse if one process has the whole state."""
        self._replicas.beat()

    def _start_renewal(self) -> None:
        """`engine.ownership` does it, with `beat`."""

    def _require_owned(self, connection: psycopg.Connection[Any], scope: str | None) -> None:
        """Raise NotOwner unless the tokens of these scopes are still the newest ones.

        Their rows stay locked until the transaction ends, so nobody takes them over before.
        """
        tokens = self._tokens
        if scope is None:
            wanted = sorted(tokens)
        elif scope == NOBODYS:
            wanted = []
        else:
            wanted = [scope]
        if not wanted:
            return
        values = [tokens.get(name, -1) for name in wanted]
        sql = (
            "SELECT count(*) FROM (SELECT 1 FROM leases WHERE (scope, token) IN"
            " (SELECT * FROM unnest(%s::text[], %s::bigint[])) FOR SHARE) held"
        )
        (held,) = connection.execute(sql, (wanted, values)).fetchone() or (0,)
        if held != len(wanted):
            raise NotOwner(
                f"wrote the state in {self.path}: another replica owns {', '.join(wanted)} now;"
                " nothing was written"
            )

    def _note_commit(self, connection: psycopg.Connection[Any], mark: str) -> None:
        # A row for each process, so that replicas do not wait for each other.
        connection.execute(
            "INSERT INTO replica_commits VALUES (%s, 1, %s, %s) ON CONFLICT (replica) DO UPDATE"
            " SET number = replica_commits.number + 1, time = excluded.time, mark = excluded.mark",
            (self._process, int(self._now()), mark),
        )

    def _commit_made(self) -> None:
        self._made += 1

    def _newest_mark(self, connection: psycopg.Connection[Any]) -> str | None:
        sql = "SELECT mark FROM replica_commits WHERE replica = %s"
        found = connection.execute(sql, (self._process,)).fetchone()
        return found[0] if found else None

    @property
    def seconds(self) -> float:
        """How long a replica may be silent before another takes over."""
        return self._location.lease

    def beat(self) -> Look:
        """Say that this replica lives, and read all rows."""
        try:
            self._leave_what_is_unsure()
            look = self._replicas.beat()
            self._look_for_lost_commits()
        except StateError:
            self._is_up = False
            raise
        self._is_up = True
        self._beats += 1
        if self._beats % _MEASURED_EVERY == 0:
            self._size = self._replicas.size()
        return look

    def _look_for_lost_commits(self) -> None:
        """After a fail-over the database may be behind: everything is read from it again."""
        made = self._made
        found = self._replicas.commits_of(self._process)
        if found >= made:
            return
        self.lost_commits += made - found
        self._made = found
        log.error(
            "the database lost commits, as after a fail-over without synchronous replication."
            " What OpenAI still reports is read again; metered events of that time are gone",
            extra={"event": "state_lost_commits", "commits": made - found},
        )
        self._replicas.begin_again()

    def _leave_what_is_unsure(self) -> None:
        """Whether a commit was made is not known: what it was about is read again."""
        if self._stale:
            self._replicas.begin_again()
            self._made = self._replicas.commits_of(self._process)
            self._stale = False

    def claim(self, claim: Claim) -> int | None:
        """Take a lease. Its new token, None if it is not as it was seen."""
        return self._replicas.claim(claim)

    def release(self, scope: str, token: int) -> None:
        """Give a lease away."""
        self._replicas.release(scope, token)

    def leave(self) -> None:
        """Give all leases away, so that others need not wait."""
        self._replicas.leave()

    def sources_of(self, organization: str) -> Sequence[SourceState]:
        """The sources of an organization that another replica owns, without their series."""
        with self._reading():
            return sources.read_without_series(self._db, organization)

    def hold(self, tokens: Mapping[str, int]) -> None:
        """From now on transactions check these tokens, by scope, and no others."""
        self._tokens = dict(tokens)

    def close(self) -> None:
        """Give everything back and close the connections."""
        try:
            self._replicas.leave()
            self._fold_commits()
        except (StateError, psycopg.Error):
            pass  # The others wait for the length of a lease.
        self.abandon()

    def _fold_commits(self) -> None:
        """Add this process's commits to those of all, so that its row is not left behind."""
        sql = (
            "WITH mine AS (DELETE FROM replica_commits WHERE replica = %s RETURNING number, time)"
            " UPDATE commits SET number = commits.number + mine.number,"
            " time = greatest(commits.time, mine.time) FROM mine"
        )
        self._db.connection.execute(sql, (self._process,))

    def abandon(self) -> None:
        """Close the connections as a killed process does: leases are not given back."""
        self._replicas.close()
        super().abandon()

    # --- events

    def queue_events(
        self, events: Sequence[Event], endpoint: Endpoint, since: int, now: int, to_usage: ToUsage
    ) -> Queued:
        """Store events that were not seen since `since`, in the hours in which they count."""
        contents: dict[bytes, bytes] = {}
        for event in events:
            contents.setdefault(event.identity, event.content)
        # Sorted, so that two replicas lock rows in the same order.
        identities = sorted(contents)

        def write(db: Database) -> Queued:
            new = set(_store_identities(db, identities, contents, since, now))
            old = [identity for identity in identities if identity not in new]
            known = db.execute(
                "SELECT identity, content FROM events WHERE identity = ANY(?)", (old,)
            )
            found = deduplicate(events, dict(known.fetchall()))
            columns = ("organization", "start", "dims", "amounts", "cost")
            values = [
                (organization, *row)
                for organization, usage in to_usage(found.fresh).items()
                for row in _rows(usage, endpoint)
            ]
            db.write("queued_usage", columns, values)
            return Queued(len(found.fresh), found.duplicates, found.conflicts)

        return self._transact("written", write, scope=NOBODYS)

    def waiting_organizations(self) -> Collection[str]:
        """The organizations with events that are not counted yet."""
        with self._reading():
            found = self._db.execute("SELECT DISTINCT organization FROM queued_usage").fetchall()
        return [name for (name,) in found]

    def count_queued(
        self, source_state: SourceState, decide: Callable[[AddedUsage], EventCommit]
    ) -> tuple[EventCommit, Created] | None:
        """Count stored events of the source's organization. None if there are none."""
        endpoint = source_state.endpoint
        sql = (
            "DELETE FROM queued_usage WHERE id IN (SELECT id FROM queued_usage"
            f" WHERE organization = ? ORDER BY id LIMIT {_COUNTED_AT_ONCE})"
            " RETURNING start, dims, amounts, cost"
        )

        def count(db: Database) -> tuple[EventCommit, Created] | None:
            hours: dict[HourKey, Amounts] = {}
            costs: dict[tuple[Dims, int], Decimal] = {}
            found = db.execute(sql, (source_state.organization,)).fetchall()
            for start, key, text, cost in found:
                dims = decode_dims(key, endpoint)
                amounts = decode_amounts(text, endpoint)
                place = (start, dims)
                hours[place] = total(hours[place], amounts) if place in hours else amounts
                if cost is not None:
                    day = (dims, floor(start, Width.DAY))
                    costs[day] = add(costs.get(day, Decimal(0)), Decimal(cost))
            if not hours:
                return None
            commit = decide(AddedUsage(hours, costs))
            ids = series.add_series(db, source_state, commit.created)
            series.update_series(db, commit.updated)
            id_of = series.id_lookup(source_state, ids)
            rows.add_to_hours(db, source_state, hours, id_of)
            series.add_estimates(db, source_state.id, id_of, commit.costs)
            return commit, Created(ids)

        scope = scope_of(source_state.organization, endpoint)
        return self._transact("written", count, scope=scope)


def _rows(usage: AddedUsage, endpoint: Endpoint) -> Iterator[tuple[int, str, str, str | None]]:
    """Start of the hour, attribute set, amounts, and the cost of its day in one of its hours."""
    costs = dict(usage.costs)
    for (start, dims), amounts in usage.hours.items():
        cost = costs.pop((dims, floor(start, Width.DAY)), None)
        yield (
            start,
            encode_dims(dims, endpoint),
            encode_amounts(amounts),
            None if cost is None else str(cost),
        )


def _store_identities(
    db: Database,
    identities: Sequence[bytes],
    contents: Mapping[bytes, bytes],
    since: int,
    now: int,
) -> list[bytes]:
    """Store identities. Those that were not seen since `since`: nobody else stores them, too."""
    sql = (
        "INSERT INTO events (identity, content, seen)"
        " SELECT identity, content, ? FROM unnest(?::bytea[], ?::bytea[]) AS new (identity, content)"
        " ON CONFLICT (identity) DO UPDATE SET content = excluded.content, seen = excluded.seen"
        " WHERE events.seen < ? RETURNING identity"
    )
    kept = [contents[identity] for identity in identities]
    found = db.execute(sql, (now, list(identities), kept, since)).fetchall()
    return [identity for (identity,) in found]
