"""The port `Writer` on an SQLite file: opens the state, commits, and updates its marker.

Synchronous. Everything but `checkpoint` must be called from one thread.
"""

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from otel_openai_usage.domain.model import Amounts
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.ports import SharedState
from otel_openai_usage.storage.results import Opening, StoredLoss
from otel_openai_usage.storage.sql import notes
from otel_openai_usage.storage.sql.content_check import assume_purged, set_totals_to_rows
from otel_openai_usage.storage.sql.database import Database
from otel_openai_usage.storage.sql.writer import SqlWriter, T
from otel_openai_usage.storage.sqlite import events, losses
from otel_openai_usage.storage.sqlite.checkpoints import Checkpoints
from otel_openai_usage.storage.sqlite.connection import StateConnection
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


class Store(SqlWriter):
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
            self._db: StateConnection = self._connect(opening)
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

    def _connect(self, opening: ExitStack) -> StateConnection:
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
            self._events: events.EventIdentities = events.EventIdentities(self._db)
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
            return notes.initial(db, key, default)

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

    @property
    def is_up(self) -> bool:
        """A file needs no server."""
        return True

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

    def forget(self, is_meant: Callable[[str], bool]) -> int:
        """Move customers to `(forgotten)`. How many there were."""
        # Else the names would stay in free pages of the file.
        self._db.execute("PRAGMA secure_delete = ON")
        return super().forget(is_meant)

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
    def _transaction(self, action: str) -> Iterator[StateConnection]:
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

    shared: SharedState | None = None

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

    # --- what differs between the stores

    def _transact(
        self, action: str, work: Callable[[Database], T], *, scope: str | None = None
    ) -> T:
        # One process owns the whole file, so the scope does not matter.
        with self._transaction(action) as db:
            return work(db)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with translate_errors(self.path, "read"):
            yield

    def _source_opened(self, source_state: SourceState) -> None:
        """Counting may have begun with this source: the marker says since when."""
        began = source_state.progress.epoch
        if began and (self._began is None or began < self._began):
            self._began = began
            if self._marker is not None:
                self._marker.counting_began(self._number, self._time, began)
