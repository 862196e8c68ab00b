"""The port `Writer`, as far as both stores share it: one transaction for each method.

A store adds how it is opened, what a transaction is, and its losses.
"""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Protocol, TypeVar

from otel_openai_usage.domain.budgets import CostLine
from otel_openai_usage.domain.commits import Commit, Created
from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS, Endpoint
from otel_openai_usage.domain.groupings import Groupings
from otel_openai_usage.domain.identity import Identity, Owner
from otel_openai_usage.domain.metered import Event, EventCommit, Share
from otel_openai_usage.domain.model import Dims, Limit, Names, Window
from otel_openai_usage.domain.month_costs import DayCosts
from otel_openai_usage.domain.ownership import NOBODYS, organization_scope, scope_of
from otel_openai_usage.domain.reconciliation import PendingDecrease, Row
from otel_openai_usage.domain.retention import Maintained, Retention
from otel_openai_usage.domain.series_marks import HighWaterMark, OverflowMember
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.domain.unusual import HourlyCost
from otel_openai_usage.storage.sql import (
    copying,
    day_costs,
    forgetting,
    hourly_costs,
    measures,
    names,
    notes,
    organizations,
    overflow,
    retention,
    rows,
    series,
    shares,
    sources,
)
from otel_openai_usage.storage.sql.database import Database

T = TypeVar("T")


def _scope(source_state: SourceState) -> str:
    return scope_of(source_state.organization, source_state.endpoint)


class EventIdentities(Protocol):
    """The identities of recorded events. `write` and `purge` run inside the caller's transaction."""

    def known(self, identities: Sequence[bytes], since: int) -> dict[bytes, bytes]:
        """The content of those of these events that were recorded since `since`, by identity."""
        ...

    def write(self, events: Sequence[Event], now: int) -> None:
        """Store these identities."""
        ...

    def committed(self, events: Iterable[Event], now: int) -> None:
        """The transaction of the last `write` was committed."""
        ...

    def purge(self, slice_number: int, before: int) -> int:
        """Delete the identities in one of 256 slices that were seen before `before`. Their number."""
        ...


class SqlWriter(ABC):
    """The methods of the port `Writer` that read and write tables. Each raises StateError."""

    path: str
    _db: Database
    _events: EventIdentities

    @abstractmethod
    def _transact(
        self, action: str, work: Callable[[Database], T], *, scope: str | None = None
    ) -> T:
        """Commit everything that `work` does, or nothing. Returns what it returns.

        `work` may be called again, if the database asks to repeat a transaction. `action` is for
        an error's text. Where several replicas share the state, nothing is committed unless this
        one owns `scope`: a scope of `domain.ownership`, `NOBODYS`, or None for all that it owns.
        """

    @abstractmethod
    def _reading(self) -> AbstractContextManager[None]:
        """Turns errors of the database into StateError."""

    @abstractmethod
    def _source_opened(self, source_state: SourceState) -> None:
        """A source was read or created."""

    def fill(self, source: Database, progress: copying.Progress, *, replace: bool = False) -> None:
        """Copy a whole state into this store, completely or not at all.

        A store that has data is refused, unless `replace` is true. Close the store afterwards: what
        it has in memory is not of the copy.
        """

        def fill(db: Database) -> None:
            if replace:
                copying.remove_all(db)
            else:
                copying.require_empty(db, self.path)
            copying.copy_all(source, db, progress)

        self._transact("copied", fill)

    # --- sources, their rows and totals

    def source_state(
        self, organization: str, endpoint: Endpoint, epoch: int, group_by: tuple[str, ...]
    ) -> SourceState:
        """The state of a source. A new source begins counting at `epoch`."""

        def open_source(db: Database) -> tuple[SourceState, int]:
            sources.add_source(db, organization, endpoint, epoch, group_by)
            found = sources.read_source(db, organization, endpoint)
            if found is None:
                raise LookupError(f"the source {endpoint.name} of {organization} was not stored")
            measures.begin(db, found.id, endpoint)
            return found, rows.newest_end(db, found.id)

        source_state, newest_end = self._transact(
            "read", open_source, scope=scope_of(organization, endpoint)
        )
        # After a kill the rows are one commit ahead of the source's own column.
        newest_bucket = max(source_state.status.newest_bucket or 0, newest_end)
        source_state.status.newest_bucket = newest_bucket or None
        self._source_opened(source_state)
        return source_state

    def save_groupings(self, source_state: SourceState, groupings: Groupings) -> None:
        """Replace the stored groupings of a source."""
        self._transact(
            "written",
            lambda db: sources.write_groupings(db, source_state.id, groupings),
            scope=_scope(source_state),
        )

    def save_counted_from(self, source_state: SourceState, counted: Mapping[int, int]) -> None:
        """Store from when the measures of a source count, by place."""
        self._transact(
            "written",
            lambda db: measures.write(db, source_state.id, source_state.endpoint, counted),
        )

    def rows(self, source_state: SourceState, width: int, starts: Sequence[int]) -> list[Row]:
        """The rows of one width whose bucket begins at one of `starts`."""
        with self._reading():
            return rows.rows_at(self._db, source_state, width, starts)

    def rows_within(
        self, source_state: SourceState, widths: Iterable[int], start: int, end: int
    ) -> list[Row]:
        """The rows of these widths whose bucket begins in [start, end)."""
        with self._reading():
            return rows.rows_between(self._db, source_state, tuple(widths), start, end)

    def pending_decreases(
        self, source_state: SourceState, width: int, start: int, end: int
    ) -> dict[tuple[int, int, Dims], PendingDecrease]:
        """The unconfirmed lower readings of buckets that begin in [start, end)."""
        with self._reading():
            return rows.pending_decreases(self._db, source_state, width, start, end)

    def commit(self, source_state: SourceState, commit: Commit) -> Created:
        """Store all of a commit or nothing. Returns the ids of the created series."""

        def write(db: Database) -> Created:
            ids = series.add_series(db, source_state, commit.created)
            series.update_series(db, commit.updated)
            id_of = series.id_lookup(source_state, ids)
            rows.write_change(db, source_state, commit.change, id_of)
            series.add_estimates(db, source_state.id, id_of, commit.estimates)
            if source_state.endpoint.name in USAGE_ENDPOINTS:
                hourly_costs.add_hours(db, source_state.organization, commit.hours)
            if commit.compact_before is not None:
                rows.compact(db, source_state, commit.compact_before)
            sources.write_progress(db, source_state, commit.progress)
            return Created(ids)

        return self._transact("written", write, scope=_scope(source_state))

    def mark_released(self, released: Iterable[StoredSeries]) -> None:
        """These series were exported as 0 first; from now on their totals are exported."""
        kept = list(released)
        self._transact("written", lambda db: series.mark_released(db, kept))

    def backfilled(self, source_state: SourceState) -> list[Window]:
        """The windows before counting began that a backfill read."""
        with self._reading():
            return sources.read_backfilled(self._db, source_state.id)

    def mark_backfilled(self, source_state: SourceState, window: Window) -> None:
        """A backfill read this window."""
        self._transact(
            "written",
            lambda db: sources.add_backfilled(db, source_state.id, window),
            scope=_scope(source_state),
        )

    def apply_retention(self, source_state: SourceState, keep: Retention) -> Maintained | None:
        """Downsample or purge one day. None if nothing is that old."""

        def apply(db: Database) -> Maintained | None:
            changed = retention.apply_retention(db, source_state, keep)
            if changed is None:
                return None
            return Maintained(changed, sources.purged_before(db, source_state.id))

        return self._transact("downsampled", apply, scope=_scope(source_state))

    def estimated_and_billed(
        self, organization: str, start: int, end: int
    ) -> dict[int, tuple[Decimal, Decimal]]:
        """Estimated and billed cost in US dollars of the UTC days in [start, end) with both."""
        with self._reading():
            return retention.estimated_and_billed(self._db, organization, start, end)

    def day_costs(self, organization: str, start: int, end: int, estimated_from: int) -> DayCosts:
        """Billed costs of the UTC days in [start, end), and estimated ones of those from
        `estimated_from` on, by project.
        """
        with self._reading():
            return day_costs.read(self._db, organization, start, end, estimated_from)

    def cost_lines(
        self, organization: str, start: int, end: int, estimated_from: int, by: Sequence[str]
    ) -> tuple[list[CostLine], list[CostLine]]:
        """Billed costs of the UTC days in [start, end), and estimated ones from `estimated_from`
        on, by the attributes in `by` that each has.
        """
        with self._reading():
            billed = day_costs.billed_lines(self._db, organization, start, end, by)
            estimated = day_costs.estimated_lines(self._db, organization, estimated_from, end, by)
            return billed, estimated

    def hourly_costs(self, organization: str, start: int, end: int) -> list[HourlyCost]:
        """Estimated costs of the hours in [start, end), as far as they are kept."""
        with self._reading():
            return hourly_costs.read(self._db, organization, start, end)

    # --- overflow of instruments

    def overflow_members(self) -> list[OverflowMember]:
        """The series that were ever part of an overflow series."""
        with self._reading():
            return overflow.read_members(self._db)

    def high_water_marks(self) -> list[HighWaterMark]:
        """The highest exported values below which no series may fall."""
        with self._reading():
            return overflow.read_marks(self._db)

    def add_overflow(
        self, members: Iterable[OverflowMember], marks: Iterable[HighWaterMark] = ()
    ) -> None:
        """Store members of overflow series, and high-water marks."""
        kept_members = list(members)
        kept_marks = list(marks)
        self._transact("written", lambda db: overflow.add(db, kept_members, kept_marks))

    # --- metered events

    def event_attributes(self) -> list[str]:
        """The attributes of recorded events beyond those of every event."""
        with self._reading():
            return shares.event_attributes(self._db)

    def known_events(self, identities: Sequence[bytes], since: int) -> dict[bytes, bytes]:
        """The content of those of these events that were recorded since `since`, by identity."""
        with self._reading():
            return self._events.known(identities, since)

    def record_events(
        self, new_events: Sequence[Event], commits: Sequence[EventCommit], now: int
    ) -> list[Created]:
        """Store the identities of events and what they add, all of it or nothing.

        Returns the ids of the created series, for each of `commits`.
        """

        def write(db: Database) -> list[Created]:
            self._events.write(new_events, now)
            created = []
            for commit in commits:
                source_state = commit.source_state
                ids = series.add_series(db, source_state, commit.created)
                series.update_series(db, commit.updated)
                id_of = series.id_lookup(source_state, ids)
                rows.add_to_hours(db, source_state, commit.hours, id_of)
                series.add_estimates(db, source_state.id, id_of, commit.costs)
                created.append(Created(ids))
            return created

        # One transaction, so that an event that counted is always known as a duplicate.
        created = self._transact("written", write)
        self._events.committed(new_events, now)
        return created

    def purge_events(self, slice_number: int, before: int) -> int:
        """Delete the event identities of one slice that were seen before `before`. Their number."""
        return self._transact(
            "written", lambda _: self._events.purge(slice_number, before), scope=NOBODYS
        )

    def shares(self, day: int) -> list[Share]:
        """The tokens used on a UTC day, and those that events explain, by model."""
        with self._reading():
            return shares.shares(self._db, day)

    # --- names, limits, notes

    def names(self, organization: str) -> Names:
        """The stored names of projects, API keys and users."""
        with self._reading():
            return names.read(self._db, organization)

    def set_names(self, organization: str, known: Names) -> None:
        """Replace the stored names. An id without a name is looked up again after a restart."""
        self._transact(
            "written",
            lambda db: names.write(db, organization, known),
            scope=organization_scope(organization),
        )

    def set_limits(self, organization: str, limits: Iterable[Limit]) -> None:
        """Replace the stored spend limits."""
        kept = list(limits)
        self._transact(
            "written",
            lambda db: names.write_limits(db, organization, kept),
            scope=organization_scope(organization),
        )

    def note(self, key: str) -> str | None:
        """The value of a note, None if there is none."""
        with self._reading():
            return notes.read(self._db, key)

    def set_note(self, key: str, value: str) -> None:
        """Set a note."""
        self._transact("written", lambda db: notes.write(db, key, value))

    def hash_key(self) -> bytes:
        """The key of `attributes.hash`, made if there is none."""
        fresh = secrets.token_hex(32)
        found = self._transact(
            "written", lambda db: notes.initial(db, notes.HASH_KEY, fresh), scope=NOBODYS
        )
        return bytes.fromhex(found)

    def forget(self, is_meant: Callable[[str], bool]) -> int:
        """Move customers to `(forgotten)`. How many there were."""
        return self._transact("written", lambda db: forgetting.forget(db, is_meant))

    def owner(self, organization: str) -> Owner:
        """The OpenAI organization whose data is stored under this name."""
        with self._reading():
            return organizations.read_owner(self._db, organization)

    def set_owner(self, organization: str, seen: Identity, marks: tuple[str, ...]) -> None:
        """Store what answers say of the organization, and the fingerprints of its keys."""
        self._transact(
            "written",
            lambda db: organizations.write_owner(db, organization, seen, marks),
            scope=organization_scope(organization),
        )
