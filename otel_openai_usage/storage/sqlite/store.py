"""The port `Writer` on an SQLite file: opens the state, commits, and updates its marker.

Synchronous. Everything but `checkpoint` must be called from one thread.
"""

import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from otel_openai_usage.domain.commits import Commit, Created
from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.groupings import Groupings
from otel_openai_usage.domain.identity import Identity, Owner
from otel_openai_usage.domain.metered import Event, EventCommit, Share
from otel_openai_usage.domain.model import Amounts, Dims, Limit, Names, Window
from otel_openai_usage.domain.reconciliation import PendingDecrease, Row
from otel_openai_usage.domain.retention import Maintained, Retention
from otel_openai_usage.domain.series_marks import HighWaterMark, OverflowMember
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.results import Opening, StoredLoss
from otel_openai_usage.storage.sqlite import (
    events,
    losses,
    names,
    notes,
    organizations,
    retention,
    rows,
    series,
    sources,
)
from otel_openai_usage.storage.sqlite.checkpoints import Checkpoints
from otel_openai_usage.storage.sqlite.content_check import assume_purged, set_totals_to_rows
from otel_openai_usage.storage.sqlite.errors import translate_errors
from otel_openai_usage.storage.sqlite.file import (
    MEMORY,
    canonical,
    connect,
    create_private,
    enable_log,
    identify,
    migrate,
    refuse_emptied,
    refuse_other_name,
    why_unwritable,
)
from otel_openai_usage.storage.sqlite.lock import Lock
from otel_openai_usage.storage.sqlite.marker import Marker
from otel_openai_usage.storage.sqlite.marker_writer import MarkerWriter
from otel_openai_usage.storage.sqlite.migrations import FIRST_WITH_COMMITS
from otel_openai_usage.storage.sqlite.page_checksums import PageSums
from otel_openai_usage.storage.sqlite.start_check import CheckResult, check, check_new, position
from otel_openai_usage.storage.sqlite.state_info import size_on_disk, try_read_marker
from otel_openai_usage.storage.sqlite.values import decode_text


class Store:
    """A state file that is open for writing. Every method raises StateError.

    Holds the lock on the file until `close`. `now` returns Unix seconds. With `strict` a state with
    losses is refused.
    """

    def __init__(
        self, path: Path | str, *, now: Callable[[], float] = time.time, strict: bool = False
    ) -> None:
        self.path = canonical(path)
        self._now = now
        self._marker: MarkerWriter | None = None
        self._checkpoints = Checkpoints(self.path)
        with ExitStack() as opening:
            self._lock = self._take_lock(opening)
            self._db = self._connect(opening)
            version = identify(self._db, self.path)
            has_log = enable_log(self._db, self.path)
            marker, marker_error = self._read_marker()
            result = self._check(version, marker, marker_error)
            found_losses = result.losses or losses.unaccepted(self._db, version)
            if strict and found_losses:
                raise losses.refused(self.path, found_losses)
            if self._lock is not None:
                self._marker = MarkerWriter(self.path, result.sums, has_log=has_log)
                opening.callback(self._marker.close)
            # Only now: a refused state must not be migrated.
            migrate(self._db, self.path, version)
            self._load(version, marker, result)
            self._begin_marker()
            self._opened = opening.pop_all()

    # --- opening

    def _take_lock(self, opening: ExitStack) -> Lock | None:
        """Create and lock the file. A state in memory needs no lock."""
        if self.path == MEMORY:
            return None
        with translate_errors(self.path, "opened"):
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            lock = Lock(self.path)
            opening.callback(lock.release)
            refuse_emptied(Path(self.path))
            create_private(self.path)
            lock.hold_state()
        return lock

    def _connect(self, opening: ExitStack) -> sqlite3.Connection:
        """The connection of the writer."""
        db = connect(self.path)
        opening.callback(db.close)
        if self._lock is not None:
            refuse_other_name(db, self.path)
        return db

    def _read_marker(self) -> tuple[Marker | None, str | None]:
        """The marker, and why it cannot be read."""
        if self._lock is None:
            return None, None
        return try_read_marker(self.path)

    def _check(self, version: int, marker: Marker | None, marker_error: str | None) -> CheckResult:
        if self._lock is None:
            return CheckResult(PageSums())
        if not version:
            return check_new(self._lock.descriptor, marker)
        return check(self._db, self.path, self._lock.descriptor, marker, marker_error)

    def _load(self, version: int, marker: Marker | None, result: CheckResult) -> None:
        """Read what is needed in memory, and record what the check found."""
        with translate_errors(self.path, "read"):
            here = position(self._db)
            self._events = events.EventIdentities(self._db)
        # Beyond the marker's number, so that a backup that is restored twice is noticed twice.
        self._number = max(here.number, marker.number if marker else 0)
        self._time = here.time
        self._began = here.began
        if self._events.has_many_to_move:
            with self._transaction("written"):
                self._events.move_all()
            self._events.moved_all()
        if 0 < version < FIRST_WITH_COMMITS:
            with self._transaction("read") as db:
                assume_purged(db)
        self.instance_id = self._initial_note(notes.INSTANCE_ID, str(uuid.uuid4()))
        self.opening = Opening(
            is_new=not version,
            counting_since=here.began,
            last_write=here.time if version else None,
            warnings=tuple(result.notes),
        )
        self._load_losses()
        if self.acceptance_requested:
            # An earlier process ended before it accepted its losses.
            self.accept()
        if result.losses:
            with self._transaction("written") as db:
                losses.add(db, result.losses, int(self._now()))
        self._load_losses()

    def _load_losses(self) -> None:
        with translate_errors(self.path, "read"):
            self.losses = losses.unaccepted(self._db, FIRST_WITH_COMMITS)

    def _initial_note(self, key: str, default: str) -> str:
        """The value of a note, which is set to `default` if there is none."""
        with self._transaction("read") as db:
            db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, default))
            return notes.read(db, key) or default

    def _begin_marker(self) -> None:
        """Write everything into the main file, and start the marker with it."""
        if self._lock is None or self._marker is None:
            return
        # The path by which the file was opened; see `refuse_other_name`.
        if self._initial_note(notes.STATE_PATH, self.path) != self.path:
            self.set_note(notes.STATE_PATH, self.path)
        with translate_errors(self.path, "written"):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._lock.record_state()
            self._lock.hold_log()
        self._marker.begin(self.instance_id, self._number, self._time, self._began)

    # --- the file

    def close(self) -> None:
        """Close the file and release its lock."""
        self._checkpoints.close()
        self._opened.close()

    def abandon(self) -> None:
        """Close the file as a killed process does: nothing is written back. `close` may follow.

        SQLite writes its log back when the last connection to a file is closed. So a second
        connection, which may only read, is closed after the writer's.
        """
        self._opened.pop_all()
        with closing(self._second_connection()):
            self._checkpoints.close()
            self._db.close()
        if self._marker is not None:
            self._marker.close()
        if self._lock is not None:
            self._lock.release()

    def _second_connection(self) -> sqlite3.Connection:
        """A connection that may only read, or one to nothing if the file cannot be read."""
        if self.path == MEMORY:
            return sqlite3.connect(MEMORY)
        try:
            reader = sqlite3.connect(f"{Path(self.path).absolute().as_uri()}?mode=ro", uri=True)
            reader.execute("SELECT count(*) FROM meta")
        except sqlite3.Error:
            # The file is gone or damaged, so nothing can be written back to it.
            return sqlite3.connect(MEMORY)
        return reader

    def gone(self) -> str | None:
        """Why a write would be lost, None while the files are where they were opened."""
        return self._lock.gone() if self._lock is not None else None

    def why_unwritable(self) -> str | None:
        """Why nothing can be stored now, in a sentence; None if writing works.

        Writes a file beside the state: a poll without news writes nothing, so it would not notice.
        """
        if self.path == MEMORY:
            return None
        if gone := self.gone():
            return f"{gone}; put it back, or stop this program and restore it from a backup"
        if refused := why_unwritable(Path(self.path).parent):
            return f"the state file {self.path} cannot be written: {refused}"
        return None

    def size(self) -> int:
        """Bytes of the state on disk. Raises OSError."""
        return size_on_disk(self.path)

    def checkpoint(self) -> None:
        """Write the log back into the main file, as far as no reader needs it.

        May be called in any thread, while the writer's thread goes on.
        """
        if self._lock is not None and not self.gone():
            self._checkpoints.run()

    def sync(self) -> None:
        """Make the marker survive a power cut, and shorten a long one."""
        if self._marker is not None and not self.gone():
            with translate_errors(self.path, "read"):
                self._began = position(self._db).began
            self._marker.sync(self._number, self._time, self._began)

    @contextmanager
    def _transaction(self, action: str) -> Iterator[sqlite3.Connection]:
        """Commit everything or nothing. A transaction that changes something gets a number."""
        with translate_errors(self.path, action):
            if gone := self.gone():
                raise StateError(
                    f"{action} the state: {gone}, so what is written now would be lost;"
                    " put it back, or stop otel-openai-usage and restore it from a backup"
                )
            # IMMEDIATE: fail at the start if another program holds the lock, not half-way.
            self._db.execute("BEGIN IMMEDIATE")
            changes_before = self._db.total_changes
            now = int(self._now())
            number = self._number + 1
            try:
                yield self._db
                is_changed = self._db.total_changes != changes_before
                # In the same transaction, so that number and content always agree.
                if is_changed:
                    self._db.execute("UPDATE commits SET number = ?, time = ?", (number, now))
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            if is_changed:
                self._number = number
                self._time = now
                if self._marker is not None:
                    self._marker.committed(number, now)

    # --- losses

    @property
    def lost_seconds(self) -> int:
        """How much time is missing or in doubt because of unaccepted losses."""
        return sum(loss.seconds for loss in self.losses)

    @property
    def needs_reread(self) -> bool:
        """Whether the time of a loss must still be marked as unread."""
        return any(not loss.reread for loss in self.losses)

    def set_reread(self) -> None:
        """The time of every loss was marked as unread."""
        with self._transaction("written") as db:
            db.execute("UPDATE losses SET reread = 1")
        self.losses = [replace(loss, reread=True) for loss in self.losses]

    @property
    def acceptance_requested(self) -> bool:
        """Whether `state accept` asked this process to accept the losses."""
        return self._lock is not None and losses.acceptance_requested(self.path)

    def accept(self) -> tuple[list[StoredLoss], Mapping[int, tuple[Amounts, Amounts]]]:
        """Accept every reported loss. Totals that are not the sum of their rows are set to it.

        Returns the accepted losses, and total and shown of the changed series by id. The caller
        must update the source states that it has in memory.
        """
        accepted = self.losses
        changed: Mapping[int, tuple[Amounts, Amounts]] = {}
        with self._transaction("written") as db:
            if any(loss.reason in losses.CONTENT_REASONS for loss in accepted):
                changed = set_totals_to_rows(db)
            now = int(self._now())
            db.execute("UPDATE losses SET accepted = ? WHERE accepted IS NULL", (now,))
        self.losses = []
        losses.remove_acceptance_request(self.path)
        return accepted, changed

    # --- sources, their rows and totals

    def source_state(
        self, organization: str, endpoint: Endpoint, epoch: int, group_by: tuple[str, ...]
    ) -> SourceState:
        """The state of a source. A new source begins counting at `epoch`."""
        with self._transaction("read") as db:
            sources.add_source(db, organization, endpoint, epoch, group_by)
            source_state = sources.read_source(db, organization, endpoint)
            if source_state is None:
                raise LookupError(f"the source {endpoint.name} of {organization} was not stored")
            # After a kill the rows are one commit ahead of the source's own column.
            newest_end = rows.newest_end(db, source_state.id)
        newest_bucket = max(source_state.status.newest_bucket or 0, newest_end)
        source_state.status.newest_bucket = newest_bucket or None
        began = source_state.progress.epoch
        if began and (self._began is None or began < self._began):
            self._began = began
            if self._marker is not None:
                self._marker.counting_began(self._number, self._time, began)
        return source_state

    def save_groupings(self, source_state: SourceState, groupings: Groupings) -> None:
        """Replace the stored groupings of a source."""
        with self._transaction("written") as db:
            sources.write_groupings(db, source_state.id, groupings)

    def rows(self, source_state: SourceState, width: int, starts: Sequence[int]) -> list[Row]:
        """The rows of one width whose bucket begins at one of `starts`."""
        found = []
        with translate_errors(self.path, "read"):
            for start in starts:
                found += rows.rows_between(self._db, source_state, (width,), start, start + 1)
        return found

    def rows_within(
        self, source_state: SourceState, widths: Iterable[int], start: int, end: int
    ) -> list[Row]:
        """The rows of these widths whose bucket begins in [start, end)."""
        with translate_errors(self.path, "read"):
            return rows.rows_between(self._db, source_state, tuple(widths), start, end)

    def pending_decreases(
        self, source_state: SourceState, width: int, start: int, end: int
    ) -> dict[tuple[int, int, Dims], PendingDecrease]:
        """The unconfirmed lower readings of buckets that begin in [start, end)."""
        with translate_errors(self.path, "read"):
            return rows.pending_decreases(self._db, source_state, width, start, end)

    def commit(self, source_state: SourceState, commit: Commit) -> Created:
        """Store all of a commit or nothing. Returns the ids of the created series."""
        with self._transaction("written") as db:
            ids = series.add_series(db, source_state, commit.created)
            series.update_series(db, commit.updated)
            id_of = series.id_lookup(source_state, ids)
            rows.write_change(db, source_state, commit.change, id_of)
            series.add_estimates(db, source_state.id, id_of, commit.estimates)
            if commit.compact_before is not None:
                rows.compact(db, source_state, commit.compact_before)
            sources.write_progress(db, source_state, commit.progress)
        return Created(ids)

    def mark_released(self, released: Iterable[StoredSeries]) -> None:
        """These series were exported as 0 first; from now on their totals are exported."""
        with self._transaction("written") as db:
            series.mark_released(db, released)

    def backfilled(self, source_state: SourceState) -> list[Window]:
        """The windows before counting began that a backfill read."""
        with translate_errors(self.path, "read"):
            return sources.read_backfilled(self._db, source_state.id)

    def mark_backfilled(self, source_state: SourceState, window: Window) -> None:
        """A backfill read this window."""
        with self._transaction("written") as db:
            sources.add_backfilled(db, source_state.id, window)

    def apply_retention(self, source_state: SourceState, keep: Retention) -> Maintained | None:
        """Downsample or purge one day. None if nothing is that old."""
        with self._transaction("downsampled") as db:
            changed = retention.apply_retention(db, source_state, keep)
            purged_before = sources.purged_before(db, source_state.id)
        return Maintained(changed, purged_before) if changed else None

    def estimated_and_billed(
        self, organization: str, start: int, end: int
    ) -> dict[int, tuple[Decimal, Decimal]]:
        """Estimated and billed cost in US dollars of the UTC days in [start, end) with both."""
        with translate_errors(self.path, "read"):
            return retention.estimated_and_billed(self._db, organization, start, end)

    # --- overflow of instruments

    def overflow_members(self) -> list[OverflowMember]:
        """The series that were ever part of an overflow series."""
        with translate_errors(self.path, "read"):
            found = self._db.execute("SELECT instrument, dims FROM folds").fetchall()
        return [OverflowMember(instrument, series_id) for instrument, series_id in found]

    def high_water_marks(self) -> list[HighWaterMark]:
        """The highest exported values below which no series may fall."""
        found = []
        with translate_errors(self.path, "read"):
            sql = "SELECT instrument, series, amount FROM floors"
            for instrument, key, text in self._db.execute(sql):
                attributes = tuple(json.loads(key))
                found.append(HighWaterMark(instrument, attributes, decode_text(text)))
        return found

    def add_overflow(
        self, members: Iterable[OverflowMember], marks: Iterable[HighWaterMark] = ()
    ) -> None:
        """Store members of overflow series, and high-water marks."""
        member_values = [(member.instrument, member.stored_series) for member in members]
        mark_values = [(mark.instrument, json.dumps(mark.key), str(mark.amount)) for mark in marks]
        with self._transaction("written") as db:
            db.executemany("INSERT OR IGNORE INTO folds VALUES (?, ?)", member_values)
            db.executemany("INSERT OR REPLACE INTO floors VALUES (?, ?, ?)", mark_values)

    # --- metered events

    def event_attributes(self) -> list[str]:
        """The attributes of recorded events beyond those of every event."""
        with translate_errors(self.path, "read"):
            return events.event_attributes(self._db)

    def known_events(self, identities: Sequence[bytes], since: int) -> dict[bytes, bytes]:
        """The content of those of these events that were recorded since `since`, by identity."""
        with translate_errors(self.path, "read"):
            return self._events.known(identities, since)

    def record_events(
        self, new_events: Sequence[Event], commits: Sequence[EventCommit], now: int
    ) -> list[Created]:
        """Store the identities of events and what they add, all of it or nothing.

        Returns the ids of the created series, for each of `commits`.
        """
        created = []
        # One transaction, so that an event that counted is always known as a duplicate.
        with self._transaction("written") as db:
            self._events.write(new_events, now)
            for commit in commits:
                source_state = commit.source_state
                ids = series.add_series(db, source_state, commit.created)
                series.update_series(db, commit.updated)
                id_of = series.id_lookup(source_state, ids)
                rows.add_to_hours(db, source_state, commit.hours, id_of)
                created.append(Created(ids))
        self._events.committed(new_events, now)
        return created

    def purge_events(self, slice_number: int, before: int) -> int:
        """Delete the event identities of one slice that were seen before `before`. Their number."""
        with self._transaction("written"):
            return self._events.purge(slice_number, before)

    def shares(self, day: int) -> list[Share]:
        """The tokens used on a UTC day, and those that events explain, by model."""
        with translate_errors(self.path, "read"):
            return events.shares(self._db, day)

    # --- names, limits, notes

    def names(self, organization: str) -> Names:
        """The stored names of projects, API keys and users."""
        with translate_errors(self.path, "read"):
            return names.read(self._db, organization)

    def set_names(self, organization: str, known: Names) -> None:
        """Replace the stored names. An id without a name is looked up again after a restart."""
        with self._transaction("written") as db:
            names.write(db, organization, known)

    def set_limits(self, organization: str, limits: Iterable[Limit]) -> None:
        """Replace the stored spend limits."""
        with self._transaction("written") as db:
            names.write_limits(db, organization, limits)

    def note(self, key: str) -> str | None:
        """The value of a note, None if there is none."""
        with translate_errors(self.path, "read"):
            return notes.read(self._db, key)

    def set_note(self, key: str, value: str) -> None:
        """Set a note."""
        with self._transaction("written") as db:
            notes.write(db, key, value)

    def owner(self, organization: str) -> Owner:
        """The OpenAI organization whose data is stored under this name."""
        with translate_errors(self.path, "read"):
            return organizations.read_owner(self._db, organization)

    def set_owner(self, organization: str, seen: Identity, marks: tuple[str, ...]) -> None:
        """Store what answers say of the organization, and the fingerprints of its keys."""
        with self._transaction("written") as db:
            organizations.write_owner(db, organization, seen, marks)
