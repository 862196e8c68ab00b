"""At a start the state is compared with its marker: what is missing is reported, and nothing else."""

import errno
import logging
import os
import shutil
import sqlite3
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from otel_openai_usage.domain.model import Width
from otel_openai_usage.domain.retention import Retention
from otel_openai_usage.engine import polling
from otel_openai_usage.engine.state_watch import read_again, report
from otel_openai_usage.errors import StateLost
from otel_openai_usage.storage.sqlite.marker import read_marker
from otel_openai_usage.storage.sqlite.page_checksums import LogScanner
from otel_openai_usage.storage.sqlite.store import Store
from tests.domain.shelf import DAY, HOUR, MIDNIGHT, read, totals, who
from tests.storage.test_files import child
from tests.storage.test_store import NOON, opened


class Time:
    """A clock that a test sets."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> float:
        return float(self.now)


def count(store: Store, minute: int, amount: int = 5) -> None:
    """Record some usage of a minute."""
    source_state = opened(store)
    at = NOON + 60 * minute
    read(store, source_state, Width.MINUTE, {at: {who("a"): (amount, 1)}}, at + 60)


def killed(path: Path, minutes: range, time: Time) -> None:
    """Count in these minutes, with no checkpoint after the first, and end like a killed process."""
    store = Store(path, now=time)
    for minute in minutes:
        time.now = NOON + 60 * minute
        count(store, minute)
        if minute == minutes[0]:
            store.checkpoint()
    store.abandon()


def reasons(path: Path, time: Time) -> list[str]:
    """The reasons of the losses that the next start reports."""
    store = Store(path, now=time)
    try:
        return [loss.reason for loss in store.losses]
    finally:
        store.close()


def test_a_kill_is_no_loss(tmp_path: Path) -> None:
    """After any number of kills the state is as new as its marker."""
    path = tmp_path / "state.db"
    time = Time(NOON)
    for life in range(5):
        killed(path, range(3 * life, 3 * life + 3), time)
        assert reasons(path, time) == []
    store = Store(path, now=time)
    assert totals(opened(store)) == {who("a"): (75, 15)}
    assert store.opening.warnings == ()
    store.close()


def test_a_kill_after_columns_were_added_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start may add columns of new endpoints before it writes the marker."""
    path = tmp_path / "state.db"
    time = Time(NOON)
    killed(path, range(3), time)

    def add_column(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE dims ADD COLUMN region TEXT")

    with monkeypatch.context() as patched:
        patched.setattr("otel_openai_usage.storage.sqlite.file.missing_columns", lambda db: [1])
        patched.setattr("otel_openai_usage.storage.sqlite.file.add_missing_columns", add_column)
        patched.setattr(Store, "_begin_marker", lambda self: None)
        Store(path, now=time).abandon()
    assert reasons(path, time) == []


def test_a_log_that_cannot_be_read_fails_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is on the disk counts, although the marker does not know its pages. That is logged
    once, and no later start reports a loss.
    """
    path = tmp_path / "state.db"
    time = Time(NOON)
    store = Store(path, now=time)
    count(store, 0)

    def unreadable(_: LogScanner) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(LogScanner, "new_pages", unreadable)
        count(store, 1)
        count(store, 2)
    assert totals(opened(store)) == {who("a"): (15, 3)}
    assert [record.event for record in caplog.records] == ["state_marker_failed"]  # type: ignore[attr-defined]
    store.sync()
    count(store, 3)
    store.close()
    assert reasons(path, time) == []


def test_a_lost_log_is_reported(tmp_path: Path) -> None:
    """Without its write-ahead log a state continues from its last checkpoint.

    Every start says how much is missing until that is accepted.
    """
    path = tmp_path / "state.db"
    time = Time(NOON)
    killed(path, range(10), time)
    path.with_name("state.db-wal").unlink()
    for _ in range(2):
        store = Store(path, now=time)
        assert totals(opened(store)) == {who("a"): (5, 1)}
        assert [loss.reason for loss in store.losses] == ["older"]
        assert store.lost_seconds == 9 * 60
        store.close()
    store = Store(path, now=time)
    store.accept()
    assert store.lost_seconds == 0
    store.close()
    assert reasons(path, time) == []


def test_a_flipped_bit_in_the_header_of_the_log_is_reported(tmp_path: Path) -> None:
    """SQLite takes such a log for an empty one. The marker shows the loss."""
    path = tmp_path / "state.db"
    time = Time(NOON)
    killed(path, range(10), time)
    log = path.with_name("state.db-wal")
    data = bytearray(log.read_bytes())
    data[17] ^= 4
    log.write_bytes(data)
    assert reasons(path, time) == ["older"]


def test_a_copy_of_a_running_state_that_is_put_back_is_reported(tmp_path: Path) -> None:
    """A copy of the main file of a running exporter lacks what was only in the log, and that is
    reported.
    """
    path = tmp_path / "state.db"
    time = Time(NOON)
    store = Store(path, now=time)
    assert path.stat().st_size > 4096  # the tables are in the main file from the start
    count(store, 0)
    store.checkpoint()
    shutil.copy(path, tmp_path / "copy.db")
    time.now += HOUR
    count(store, 60)
    store.close()
    shutil.copy(tmp_path / "copy.db", path)
    store = Store(path, now=time)
    assert totals(opened(store)) == {who("a"): (5, 1)}
    assert [loss.reason for loss in store.losses] == ["older"]
    assert store.lost_seconds == HOUR
    store.close()


def test_a_deleted_state_is_reported(tmp_path: Path) -> None:
    """A new state in the place of a deleted one is reported, with the time that the deleted one
    counted.
    """
    path = tmp_path / "state.db"
    time = Time(NOON)
    killed(path, range(10), time)
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        path.with_name(name).unlink()
    store = Store(path, now=time)
    assert store.opening.is_new
    assert [loss.reason for loss in store.losses] == ["missing"]
    assert store.lost_seconds == NOON + 9 * 60 - MIDNIGHT
    store.close()


def test_another_state_in_its_place_is_reported(tmp_path: Path) -> None:
    """A state that was copied over another one is used and reported."""
    time = Time(NOON)
    killed(tmp_path / "one.db", range(3), time)
    killed(tmp_path / "two.db", range(5), time)
    Store(tmp_path / "two.db", now=time).close()
    for name in ("one.db-wal", "one.db-shm"):
        (tmp_path / name).unlink()
    shutil.copy(tmp_path / "two.db", tmp_path / "one.db")
    assert reasons(tmp_path / "one.db", time) == ["other"]
    assert reasons(tmp_path / "two.db", time) == []


def test_a_state_that_is_moved_with_its_marker_is_whole(tmp_path: Path) -> None:
    """Moving all files of a state is no loss, also under another name."""
    path = tmp_path / "state.db"
    time = Time(NOON)
    killed(path, range(3), time)
    for end in ("", "-wal", "-shm", ".marker"):
        (tmp_path / f"state.db{end}").rename(tmp_path / f"moved.db{end}")
    assert reasons(tmp_path / "moved.db", time) == []


def test_a_state_without_its_marker_is_used(tmp_path: Path) -> None:
    """Without a readable marker it is unknown what is missing: that is logged once and is no loss."""
    path = tmp_path / "state.db"
    time = Time(NOON)
    marker = path.with_name("state.db.marker")
    killed(path, range(3), time)
    for damage in (
        marker.unlink,
        lambda: marker.write_bytes(b"odd"),
        lambda: os.truncate(marker, 60),
    ):
        damage()
        store = Store(path, now=time)
        assert [event for event, _ in store.opening.warnings] == ["state_marker_missing"]
        assert store.losses == []
        assert totals(opened(store)) == {who("a"): (15, 3)}
        store.close()
        store = Store(path, now=time)
        assert store.opening.warnings == ()
        store.close()


def test_another_program_may_open_a_killed_state(tmp_path: Path) -> None:
    """A program that opens a killed state with SQLite writes its log back and deletes it.

    That is no loss.
    """
    path = tmp_path / "state.db"
    time = Time(NOON)
    killed(path, range(10), time)
    with sqlite3.connect(path) as db:
        db.execute("SELECT count(*) FROM readings").fetchone()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    assert not path.with_name("state.db-wal").exists()
    store = Store(path, now=time)
    assert (store.losses, store.opening.warnings) == ([], ())
    store.close()


def test_a_kill_before_the_marker_knows_is_no_loss(tmp_path: Path) -> None:
    """A process that is killed between its commit and the marker's record leaves a marker that is
    behind, and no loss is reported.
    """
    path = tmp_path / "state.db"
    time = Time(NOON)
    marker = path.with_name("state.db.marker")
    store = Store(path, now=time)
    count(store, 0)
    before = marker.read_bytes()
    count(store, 1)
    count(store, 2)
    store.abandon()
    marker.write_bytes(before)
    store = Store(path, now=time)
    assert (store.losses, store.opening.warnings) == ([], ())
    assert totals(opened(store)) == {who("a"): (15, 3)}
    store.close()


def test_a_marker_never_claims_what_is_not_committed(tmp_path: Path) -> None:
    """The number of a commit is in the marker only after the commit is on the disk."""
    path = tmp_path / "state.db"
    store = Store(path)
    before = read_marker(f"{path}.marker")
    assert before is not None
    with suppress(RuntimeError), store._transaction("written") as db:
        db.execute("INSERT INTO meta VALUES ('x', 'y')")
        raise RuntimeError
    assert read_marker(f"{path}.marker") == before
    count(store, 0)
    after = read_marker(f"{path}.marker")
    assert after is not None
    (number,) = store._db.execute("SELECT number FROM commits").fetchone()
    assert after.number == number > before.number
    store.close()


def test_a_transaction_that_changes_nothing_is_no_commit(tmp_path: Path) -> None:
    """Retention with nothing to do writes no commit and no record."""
    path = tmp_path / "state.db"
    store = Store(path)
    source_state = opened(store)
    size = path.with_name("state.db.marker").stat().st_size
    for _ in range(3):
        assert opened(store).id == source_state.id
    assert path.with_name("state.db.marker").stat().st_size == size
    store.close()


def test_a_changed_total_is_reported(tmp_path: Path) -> None:
    """A total that is not the sum of its rows is reported as a loss. Accepting corrects it."""
    path = tmp_path / "state.db"
    time = Time(NOON)
    killed(path, range(3), time)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE dims SET total = '[9000015, 3]', shown = '[9000015, 3]'")
    db.close()
    store = Store(path, now=time)
    assert [loss.reason for loss in store.losses] == ["totals"]
    assert "input 9000015 instead of 15" in store.losses[0].details
    assert store.lost_seconds > 0
    store.close()
    store = Store(path, now=time)
    assert [loss.reason for loss in store.losses] == ["totals"]
    store.accept()
    source_state = opened(store)
    assert totals(source_state) == {who("a"): (15, 3)}
    assert source_state.series[who("a")].shown == (9000015, 3)  # what was shown never falls
    store.close()
    assert reasons(path, time) == []


def test_a_changed_row_is_reported(tmp_path: Path) -> None:
    """A changed row is reported as a loss."""
    path = tmp_path / "state.db"
    time = Time(NOON)
    killed(path, range(3), time)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE readings SET input = input + 1 WHERE start = ?", (NOON,))
    db.close()
    assert reasons(path, time) == ["totals"]


def test_a_change_outside_the_totals_is_reported(tmp_path: Path) -> None:
    """A changed name of a project is in no total, so its page's checksum reports it."""
    path = tmp_path / "state.db"
    time = Time(NOON)
    killed(path, range(3), time)
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO names VALUES ('default', 'project', 'proj_1', 'Odd')")
    db.close()
    assert reasons(path, time) == ["pages"]


def test_a_strict_store_refuses_a_loss(tmp_path: Path) -> None:
    """With `strict` a state with a loss is refused until it is accepted, and stays as it is."""
    path = tmp_path / "state.db"
    time = Time(NOON)
    killed(path, range(10), time)
    path.with_name("state.db-wal").unlink()
    marker = path.with_name("state.db.marker").read_bytes()
    for _ in range(2):
        with pytest.raises(StateLost, match=r"state.strict is true.*state accept"):
            Store(path, now=time, strict=True)
        assert path.with_name("state.db.marker").read_bytes() == marker
    assert reasons(path, time) == ["older"]
    with pytest.raises(StateLost):  # it was found, and not accepted
        Store(path, now=time, strict=True)
    store = Store(path, now=time)
    store.accept()
    store.close()
    Store(path, now=time, strict=True).close()


def test_a_purged_day_still_counts(tmp_path: Path) -> None:
    """Purged rows are part of the comparison of totals and rows."""
    path = tmp_path / "state.db"
    time = Time(NOON)
    store = Store(path, now=time)
    for minute in (0, 1, 24 * 60):
        count(store, minute)
    now = NOON + 40 * DAY
    keep = Retention.at(now, hours=DAY, days=2 * DAY, reconcile=DAY)
    while store.apply_retention(opened(store), keep):
        pass
    assert store.rows_within(opened(store), Width, 0, now) == []
    count(store, 41 * 24 * 60)
    store.close()
    path.with_name("state.db.marker").unlink()  # so that all of it is checked
    store = Store(path, now=time)
    assert store.losses == []
    assert totals(opened(store)) == {who("a"): (20, 4)}
    store.close()


def test_the_lost_time_is_read_again(tmp_path: Path) -> None:
    """After a loss, the time that OpenAI still reports is marked as unread once."""
    path = tmp_path / "state.db"
    time = Time(NOON)
    store = Store(path, now=time)
    source_state = opened(store)
    source_state.progress = replace(source_state.progress, complete=True, horizon=NOON)
    polling.write_progress(store, source_state, source_state.progress, NOON)
    store.checkpoint()
    count(store, 0)
    store.abandon()
    path.with_name("state.db-wal").unlink()
    for expected in (True, False):
        store = Store(path, now=time)
        assert store.needs_reread is expected
        source_state = opened(store)
        read_again(store, [(source_state, 7 * DAY)], NOON + HOUR)
        assert [(window.start, window.end) for window in source_state.progress.unread] == [
            (MIDNIGHT, NOON)
        ]
        store.abandon()


def test_every_start_says_what_the_state_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One log line says whether the state is new or since when it counts. A loss is a warning."""
    caplog.set_level(logging.INFO)
    path = tmp_path / "state.db"
    time = Time(NOON)

    def events() -> list[str]:
        caplog.clear()
        store = Store(path, now=time)
        report(store)
        store.abandon()
        return [record.event for record in caplog.records]  # type: ignore[attr-defined]

    assert events() == ["state_new"]
    killed(path, range(10), time)
    assert events() == ["state_opened"]
    assert "counts since 2026-11-02T00:00:00Z" in caplog.text
    killed(path, range(10, 20), time)
    path.with_name("state.db-wal").unlink()
    assert events() == ["state_opened", "state_lost"]
    assert events() == ["state_opened", "state_lost"]


def test_two_stores_in_one_folder_have_their_own_markers(tmp_path: Path) -> None:
    """Two states in one folder do not disturb each other."""
    time = Time(NOON)
    for name in ("one.db", "two.db"):
        killed(tmp_path / name, range(3), time)
    for name in ("one.db", "two.db"):
        assert reasons(tmp_path / name, time) == []


def test_a_killed_process_is_no_loss(tmp_path: Path) -> None:
    """A real process that is killed leaves no loss."""
    path = tmp_path / "state.db"
    process = child(f"""
        import os, signal
        from pathlib import Path
        from otel_openai_usage.storage.sqlite.store import Store
        from tests.storage.test_marker import count
        store = Store(Path({str(path)!r}))
        for minute in range(50):
            count(store, minute)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    process.wait()
    store = Store(path)
    assert (store.losses, store.opening.warnings) == ([], ())
    assert totals(opened(store)) == {who("a"): (250, 50)}
    store.close()
