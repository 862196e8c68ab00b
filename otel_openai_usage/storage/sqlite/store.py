"""The Store: books in, books out. Synchronous; used from one thread."""

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
from otel_openai_usage.domain.metered import METERED, Event, EventCommit, Share
from otel_openai_usage.domain.model import Amounts, Dims, Limit, Names, Window
from otel_openai_usage.domain.reconciliation import PendingDecrease, Row
from otel_openai_usage.domain.retention import Maintained, Retention
from otel_openai_usage.domain.series_marks import HighWaterMark, OverflowMember
from otel_openai_usage.domain.source_state import SourceKey, SourceState, StoredSeries
from otel_openai_usage.domain.windows import Progress
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.sqlite import metered, owners, retention, rows
from otel_openai_usage.storage.sqlite.acceptance import acceptance_done, acceptance_requested
from otel_openai_usage.storage.sqlite.audit import assume_purged, set_totals_to_rows
from otel_openai_usage.storage.sqlite.checkpoints import Checkpoints
from otel_openai_usage.storage.sqlite.examine import (
    Examined,
    Loss,
    Position,
    examine,
    older,
    position,
)
from otel_openai_usage.storage.sqlite.file import (
    MEMORY,
    Lock,
    canonical,
    connect,
    identify,
    keep_private,
    migrate,
    refuse_emptied,
    refuse_other_name,
    translate_errors,
    use_log,
)
from otel_openai_usage.storage.sqlite.identities import Identities
from otel_openai_usage.storage.sqlite.losses import StoredLoss, refused, unaccepted
from otel_openai_usage.storage.sqlite.marker import Marker, MarkerDamaged, marker_path, read_marker
from otel_openai_usage.storage.sqlite.pages import PageSums, main_file_sums
from otel_openai_usage.storage.sqlite.schema import FIRST_WITH_COMMITS
from otel_openai_usage.storage.sqlite.tracking import Tracker


class Store:
    """Holds the lock on its file from the start to `close`. Every method raises StateError.

    `now` gives Unix seconds. With `strict` a state that lost something is refused.
    """

    def __init__(
        self, path: Path | str, *, now: Callable[[], float] = time.time, strict: bool = False
    ) -> None:
        self.path = canonical(path)
        self._now = now
        self._lock: Lock | None = None
        self._tracker: Tracker | None = None
        self._checkpoints = Checkpoints(self.path)
        self.losses: list[StoredLoss] = []
        with ExitStack() as opening:
            if self.path != MEMORY:
                with translate_errors(self.path, "opened"):
                    Path(self.path).parent.mkdir(parents=True, exist_ok=True)
                    self._lock = Lock(self.path)
                    opening.callback(self._lock.release)
                    refuse_emptied(Path(self.path))
                    keep_private(self.path)
                    self._lock.hold_state()
            self._db = connect(self.path)
            opening.callback(self._db.close)
            if self._lock is not None:
                refuse_other_name(self._db, self.path)
            version = identify(self._db, self.path)
            has_log = use_log(self._db, self.path)
            marker, failure_log = self._read_marker()
            found = self._examine(version, marker, failure_log)
            self.is_new = not version
            self.notes = found.notes
            if strict and (found.losses or unaccepted(self._db, version)):
                raise refused(self.path, found.losses or unaccepted(self._db, version))
            if self._lock is not None:
                self._tracker = Tracker(self.path, found.sums, has_log=has_log)
                opening.callback(self._tracker.close)
            migrate(self._db, self.path, version)
            self._load(version, marker)
            self.instance_id = self._meta("instance_id", str(uuid.uuid4()))
            if self.acceptance_requested:  # of the life before, which ended before it did it
                self.accept()
            self._record(found.losses)
            self._begin_marker()
            self._opened = opening.pop_all()

    def close(self) -> None:
        """Let go of the file."""
        self._checkpoints.close()
        self._opened.close()

    def gone(self) -> str | None:
        """Why what is written now would be lost: the file was deleted, moved or replaced. None if
        all is well.
        """
        return self._lock.gone() if self._lock is not None else None

    # --- the state itself

    def _read_marker(self) -> tuple[Marker | None, str | None]:
        """The marker, or why it cannot be read."""
        if self._lock is None:
            return None, None
        try:
            return read_marker(marker_path(self.path)), None
        except MarkerDamaged:
            return None, "it is damaged"
        except OSError as error:
            return None, error.strerror or str(error)

    def _examine(self, version: int, marker: Marker | None, failure_log: str | None) -> Examined:
        if self._lock is None:
            return Examined(PageSums())
        if version:
            return examine(self._db, self.path, self._lock.descriptor, marker, failure_log)
        found = Examined(main_file_sums(self._lock.descriptor))
        if marker and (loss := older(Position(None, 0, 0, None), marker)):
            found.losses.append(loss)
        return found

    def _load(self, version: int, marker: Marker | None) -> None:
        with translate_errors(self.path, "read"):
            here = position(self._db)
            # Beyond the marker's number, so that a copy that is put back again is noticed again.
            self._number = max(here.number, marker.number if marker else 0)
            self._time = here.time
            self.began = here.began
            self.last_write = here.time if version else None
            if 0 < version < FIRST_WITH_COMMITS:
                self._adopt()
            self._identities = Identities(self._db)
        self._load_losses()

    def _begin_marker(self) -> None:
        """What was done so far goes into the main file, and the marker begins with it."""
        if self._lock is None or self._tracker is None:
            return
        self._remember_path()
        with translate_errors(self.path, "written"):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._lock.began()
            self._lock.hold_log()
        self._tracker.begin(self.instance_id, self._number, self._time, self.began)

    def _adopt(self) -> None:
        """A state of a version that did not keep what it purged."""
        with self._transaction("read") as db:
            assume_purged(db)

    def _record(self, losses: Iterable[Loss]) -> None:
        """Keep what was found, so that every start tells of it until it is accepted."""
        losses = list(losses)
        if losses:
            with self._transaction("written") as db:
                db.executemany(
                    "INSERT INTO losses (found, reason, seconds, details) VALUES (?, ?, ?, ?)",
                    [
                        (int(self._now()), loss.reason, loss.seconds, loss.details)
                        for loss in losses
                    ],
                )
        self._load_losses()

    def _load_losses(self) -> None:
        with translate_errors(self.path, "read"):
            self.losses = unaccepted(self._db, FIRST_WITH_COMMITS)

    @property
    def lost_seconds(self) -> int:
        """How much time is missing, or in doubt, by the losses that nobody accepted."""
        return sum(loss.seconds for loss in self.losses)

    @property
    def must_read_again(self) -> bool:
        """Whether a loss was found whose time is still to be marked as unread."""
        return any(not loss.reread for loss in self.losses)

    def marked_unread(self) -> None:
        """All that can be read again is marked as unread now."""
        with self._transaction("written") as db:
            db.execute("UPDATE losses SET reread = 1")
        self.losses = [replace(loss, reread=True) for loss in self.losses]

    def accept(self) -> tuple[list[StoredLoss], Mapping[int, tuple[Amounts, Amounts]]]:
        """Acknowledge every reported loss; totals that are not the sum of their rows become it.

        What was accepted; and total and shown of the totals that changed, by the id of the leaf,
        which open books have to take over.
        """
        accepted = self.losses
        changed: Mapping[int, tuple[Amounts, Amounts]] = {}
        with self._transaction("written") as db:
            if any(loss.reason in ("totals", "pages") for loss in accepted):
                changed = set_totals_to_rows(db)
            db.execute("UPDATE losses SET accepted = ? WHERE accepted IS NULL", (int(self._now()),))
        self.losses = []
        acceptance_done(self.path)
        return accepted, changed

    @property
    def acceptance_requested(self) -> bool:
        """Whether `state accept` asked for it while this process had the state."""
        return self._lock is not None and acceptance_requested(self.path)

    def checkpoint(self) -> None:
        """Write what is in the log back into the main file, as far as no reader is in the way. May
        be called in any thread; the store's own may write meanwhile.
        """
        if self._lock is not None and not self.gone():
            self._checkpoints.run()

    def settle(self) -> None:
        """Have the marker survive a power cut, and be short."""
        if self._tracker is not None and not self.gone():
            with translate_errors(self.path, "read"):
                self.began = position(self._db).began
            self._tracker.settle(self._number, self._time, self.began)

    def abandon(self) -> None:
        """Let go of the file as a killed process does: nothing is written.

        SQLite writes its log back when the last connection to a file closes, so a second one that
        may only read is closed after it. `close` may follow.
        """
        self._opened.pop_all()
        with closing(self._second_connection()):
            self._checkpoints.close()
            self._db.close()
        if self._tracker is not None:
            self._tracker.close()
        if self._lock is not None:
            self._lock.release()

    def _second_connection(self) -> sqlite3.Connection:
        if self.path == MEMORY:
            return sqlite3.connect(MEMORY)
        try:
            reader = sqlite3.connect(f"{Path(self.path).absolute().as_uri()}?mode=ro", uri=True)
            reader.execute("SELECT count(*) FROM meta")
        except sqlite3.Error:  # the file is gone or damaged: there is nothing to write back to
            return sqlite3.connect(MEMORY)
        return reader

    def _remember_path(self) -> None:
        """Keep the name by which the file was opened; see `refuse_other_name`."""
        if self._meta("path", self.path) != self.path:
            self.take_note("path", self.path)

    @contextmanager
    def _transaction(self, doing: str) -> Iterator[sqlite3.Connection]:
        with translate_errors(self.path, doing):
            if gone := self.gone():
                raise StateError(
                    f"{doing} the state: {gone}, so what is written now would be lost;"
                    " put it back, or stop otel-openai-usage and restore it from a backup"
                )
            self._db.execute("BEGIN IMMEDIATE")
            changes = self._db.total_changes
            now = int(self._now())
            try:
                yield self._db
                written = self._db.total_changes != changes
                if written:
                    self._db.execute(
                        "UPDATE commits SET number = ?, time = ?", (self._number + 1, now)
                    )
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            if written:
                self._number += 1
                self._time = now
                if self._tracker is not None:
                    self._tracker.committed(self._number, now)

    def _meta(self, key: str, default: str) -> str:
        with self._transaction("read") as db:
            db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, default))
            return str(db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])

    def source_state(
        self, organization: str, endpoint: Endpoint, epoch: int, group_by: tuple[str, ...]
    ) -> SourceState:
        """The book of a source; a new one begins counting at `epoch`."""
        with self._transaction("read") as db:
            db.execute(
                "INSERT OR IGNORE INTO sources (organization, kind, epoch) VALUES (?, ?, ?)",
                (organization, endpoint.name, epoch),
            )
            (id_, began, complete, horizon, unread, success, newest, org_id) = db.execute(
                "SELECT id, epoch, complete, horizon, unread, last_success, newest_bucket, organization_id FROM sources"
                " WHERE organization = ? AND kind = ?",
                (organization, endpoint.name),
            ).fetchone()
            db.execute(
                "INSERT INTO groupings SELECT ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM groupings WHERE source_id = ?)",
                (id_, 0, ",".join(group_by), id_),
            )
            groupings = rows.groupings(db, id_)
            all_series = rows.stored_series_list(db, id_, endpoint)
            purged_before = retention.purged_before(db, id_)
            # The rows know better than `sources`, which is a commit behind after a kill.
            newest = max(newest or 0, rows.newest_end(db, id_)) or None
            unread_windows = tuple(Window(*pair) for pair in json.loads(unread))
        if began and (self.began is None or began < self.began):
            self.began = began
            if self._tracker is not None:
                self._tracker.counting_began(self._number, self._time, began)
        progress = Progress(began, bool(complete), horizon, unread_windows)
        key = SourceKey(id_, organization, endpoint)
        source_state = SourceState.of(key, progress, Groupings(tuple(groupings)))
        for stored_series in all_series:
            source_state.series.add(stored_series)
        source_state.status.last_success = success
        source_state.status.newest_bucket = newest
        source_state.organization_id = org_id
        source_state.purged_before = purged_before
        return source_state

    def regroup(self, source_state: SourceState, groupings: Groupings) -> None:
        """Write other groupings of a source."""
        with self._transaction("written") as db:
            db.execute("DELETE FROM groupings WHERE source_id = ?", (source_state.id,))
            db.executemany(
                "INSERT INTO groupings VALUES (?, ?, ?)",
                [(source_state.id, start, ",".join(by)) for start, by in groupings.entries],
            )

    def rows(self, source_state: SourceState, width: int, starts: Sequence[int]) -> list[Row]:
        """What is stored of these buckets, at this width alone."""
        with translate_errors(self.path, "read"):
            return [
                row
                for start in starts
                for row in rows.between(self._db, source_state, (width,), start, start + 1)
            ]

    def rows_within(
        self, source_state: SourceState, widths: Iterable[int], start: int, end: int
    ) -> list[Row]:
        """What is stored at these widths of buckets that begin in [start, end)."""
        with translate_errors(self.path, "read"):
            return rows.between(self._db, source_state, tuple(widths), start, end)

    def pending_decreases(
        self, source_state: SourceState, width: int, start: int, end: int
    ) -> dict[tuple[int, int, Dims], PendingDecrease]:
        """Lower readings that wait for confirmation."""
        with translate_errors(self.path, "read"):
            return {
                (width, begin, rows.dims(key, source_state.endpoint)): PendingDecrease(
                    rows.amounts(text, source_state.endpoint), since
                )
                for begin, key, text, since in self._db.execute(
                    "SELECT s.start, d.key, s.amounts, s.since FROM suspicions s JOIN dims d ON d.id = s.dims"
                    " WHERE s.source_id = ? AND s.width = ? AND s.start >= ? AND s.start < ?",
                    (source_state.id, width, start, end),
                )
            }

    def commit(self, source_state: SourceState, commit: Commit) -> Created:
        """Write all of it in one transaction, or nothing. Return the ids of the created series."""
        with self._transaction("written") as db:
            ids = rows.add_series(db, source_state, commit.created)
            rows.update_series(db, commit.updated)
            rows.write(db, source_state, commit.change, ids)
            rows.add_estimates(db, source_state, commit.estimates, ids)
            if commit.compact_before is not None:
                rows.compact(db, source_state, commit.compact_before)
            progress = commit.progress
            db.execute(
                "UPDATE sources SET complete = ?, horizon = ?, unread = ?, last_success = coalesce(?, last_success),"
                " newest_bucket = coalesce(?, newest_bucket), organization_id = coalesce(?, organization_id) WHERE id = ?",
                (
                    progress.complete,
                    progress.horizon,
                    json.dumps([[w.start, w.end] for w in progress.unread]),
                    source_state.status.last_success,
                    source_state.status.newest_bucket,
                    source_state.organization_id,
                    source_state.id,
                ),
            )
        return Created(ids)

    def release(self, stored_series_list: Iterable[StoredSeries]) -> None:
        """These have been shown as 0; from now on they are shown as they are."""
        with self._transaction("written") as db:
            db.executemany(
                "UPDATE dims SET released = 1 WHERE id = ?",
                [(stored_series.id,) for stored_series in stored_series_list],
            )

    def folds(self) -> list[OverflowMember]:
        """What was folded, in all time."""
        with translate_errors(self.path, "read"):
            return [
                OverflowMember(*row)
                for row in self._db.execute("SELECT instrument, dims FROM folds")
            ]

    def floors(self) -> list[HighWaterMark]:
        """What must not fall, in all time."""
        with translate_errors(self.path, "read"):
            found = self._db.execute("SELECT instrument, series, amount FROM floors").fetchall()
            return [
                HighWaterMark(instrument, tuple(json.loads(key)), rows.amount(text))
                for instrument, key, text in found
            ]

    def fold(self, folds: Iterable[OverflowMember], floors: Iterable[HighWaterMark] = ()) -> None:
        """Remember what is folded, and what must not fall."""
        with self._transaction("written") as db:
            db.executemany(
                "INSERT OR IGNORE INTO folds VALUES (?, ?)",
                [(fold.instrument, fold.stored_series) for fold in folds],
            )
            db.executemany(
                "INSERT OR REPLACE INTO floors VALUES (?, ?, ?)",
                [(floor.instrument, json.dumps(floor.key), str(floor.amount)) for floor in floors],
            )

    def names(self, organization: str) -> Names:
        """The names known at the last stop."""
        found: dict[str, dict[str, str | None]] = {"project": {}, "api_key": {}, "user": {}}
        with translate_errors(self.path, "read"):
            for what, id_, name in self._db.execute(
                "SELECT what, id, name FROM names WHERE organization = ?", (organization,)
            ):
                found[what][id_] = name
        return Names(found["project"], found["api_key"], found["user"])

    def keep_names(self, organization: str, names: Names) -> None:
        """Keep the names that are known; ids without one are asked for again after a restart."""
        every: dict[str, Mapping[str, str | None]] = {
            "project": names.projects,
            "api_key": names.api_keys,
            "user": names.users,
        }
        with self._transaction("written") as db:
            db.execute("DELETE FROM names WHERE organization = ?", (organization,))
            db.executemany(
                "INSERT INTO names VALUES (?, ?, ?, ?)",
                [
                    (organization, what, id_, name)
                    for what, known in every.items()
                    for id_, name in known.items()
                    if name is not None
                ],
            )

    def event_attributes(self) -> list[str]:
        """The attributes that booked events carry beyond the usual ones, of all time."""
        with translate_errors(self.path, "read"):
            found = self._db.execute(
                "SELECT DISTINCT json_each.key FROM dims JOIN sources ON sources.id = dims.source_id, json_each(dims.key) WHERE kind = ?",
                (METERED.name,),
            )
            return sorted(name for (name,) in found if name not in METERED.dimensions)

    def shares(self, day: int) -> list[Share]:
        """What was used, and what events explain, of each model on the UTC day that begins then."""
        with translate_errors(self.path, "read"):
            return metered.shares(self._db, day)

    def known_events(self, identities: Sequence[bytes], since: int) -> dict[bytes, bytes]:
        """The content of those of these events that were seen since then, by identity."""
        with translate_errors(self.path, "read"):
            return self._identities.known(identities, since)

    def record_events(
        self, events: Sequence[Event], commits: Sequence[EventCommit], now: int
    ) -> list[Created]:
        """Write the identities and what they add in one transaction, or nothing.

        Return the ids of the created series, for each of `commits`.
        """
        created = []
        with self._transaction("written") as db:
            self._identities.write(events, now)
            for commit in commits:
                ids = rows.add_series(db, commit.source_state, commit.created)
                rows.update_series(db, commit.updated)
                metered.add(db, commit.source_state, commit.hours, ids)
                created.append(Created(ids))
        self._identities.wrote(events, now)
        return created

    def forget_events(self, part: int, before: int) -> int:
        """Forget the identities in one of `SLICES` parts that were last seen before then. How many
        there were.
        """
        with self._transaction("written"):
            return self._identities.forget(part, before)

    def keep_limits(self, organization: str, limits: Iterable[Limit]) -> None:
        """Keep the spend limits, so that whoever looks at the store knows them."""
        with self._transaction("written") as db:
            db.execute("DELETE FROM limits WHERE organization = ?", (organization,))
            db.executemany(
                "INSERT OR REPLACE INTO limits VALUES (?, ?, ?, ?, ?)",
                [
                    (
                        organization,
                        limit.project_id or "",
                        str(limit.amount),
                        limit.currency,
                        limit.enforcing,
                    )
                    for limit in limits
                ],
            )

    def maintain(self, source_state: SourceState, keep: Retention) -> Maintained | None:
        """Downsample or purge one small part of a source. Return None if nothing was to do."""
        with self._transaction("tidied") as db:
            changed = retention.step(
                db, source_state.id, source_state.endpoint, source_state.progress, keep
            )
            purged_before = retention.purged_before(db, source_state.id)
        if changed is None:
            return None
        return Maintained(changed, purged_before)

    def spent(self, organization: str, start: int, end: int) -> dict[int, tuple[Decimal, Decimal]]:
        """Estimated and billed cost in US dollars of the UTC days in [start, end) for which both
        are known, by day.
        """
        with translate_errors(self.path, "read"):
            return retention.spent(self._db, organization, start, end)

    def note(self, key: str) -> str | None:
        """A small thing that was to be remembered."""
        with translate_errors(self.path, "read"):
            found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            return str(found[0]) if found else None

    def take_note(self, key: str, value: str) -> None:
        """Remember a small thing."""
        with self._transaction("written") as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def owner(self, organization: str) -> Owner:
        """What is known of the organization whose data this is."""
        with translate_errors(self.path, "read"):
            return owners.owner(self._db, organization)

    def note_owner(self, organization: str, seen: Identity, marks: tuple[str, ...]) -> None:
        """Remember what the organization says of itself, and the keys that are of it."""
        with self._transaction("written") as db:
            owners.note(db, organization, seen, marks)

    def backfilled(self, source_state: SourceState) -> list[Window]:
        """The stretches before counting began that were read."""
        with translate_errors(self.path, "read"):
            found = self._db.execute(
                'SELECT start, "end" FROM backfilled WHERE source_id = ? ORDER BY start',
                (source_state.id,),
            )
            return [Window(*row) for row in found]

    def mark_backfilled(self, source_state: SourceState, window: Window) -> None:
        """A stretch was read."""
        with self._transaction("written") as db:
            db.execute(
                'INSERT INTO backfilled VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "end" = max("end", excluded."end")',
                (source_state.id, window.start, window.end),
            )
