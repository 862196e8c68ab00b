"""A state file that cannot be used is refused with a sentence and stays as it was."""

import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_openai_usage.domain.model import Amounts, Dims, Rows, Width
from otel_openai_usage.errors import StateCorrupt, StateError, StateInUse, StateTooNew
from otel_openai_usage.storage.sqlite.file import inspect
from otel_openai_usage.storage.sqlite.migrations import APPLICATION_ID, VERSION
from otel_openai_usage.storage.sqlite.store import Store
from tests.domain.shelf import HOUR, MIDNIGHT, read, totals, who
from tests.storage.test_store import NOON, opened, sums

OLD = sorted(Path(__file__).parent.glob("version-*.sql"))
ROOT = Path(__file__).parent.parent.parent


def filled(path: Path, series: int = 40) -> Path:
    """A state with some content, closed."""
    store = Store(path)
    source_state = opened(store)
    said: dict[int, Rows] = {
        NOON + 60 * minute: {who(f"m{n}"): (n, 1) for n in range(series)} for minute in range(10)
    }
    read(store, source_state, Width.MINUTE, said, NOON + HOUR)
    store.close()
    return path


def untouched(path: Path, attempt: Callable[[], object]) -> None:
    """The attempt changes no byte of the file and leaves no log."""
    before = path.read_bytes()
    wal = path.with_name(f"{path.name}-wal")
    attempt()
    assert path.read_bytes() == before
    assert not wal.exists() or not wal.stat().st_size


def refused(path: Path, error: type[StateError], *said: str) -> None:
    """Opening fails with a reason and an advice, and a second attempt in the same process fails
    alike.
    """
    for _ in range(2):
        with pytest.raises(error) as caught:
            Store(path)
        assert [part for part in (path.name, *said) if part not in str(caught.value)] == []


def test_an_emptied_file_is_refused(tmp_path: Path) -> None:
    """A file that had a state and lost every byte is refused, by `check`, too.

    An empty file that never had a state is a new one.
    """
    path = tmp_path / "state.db"
    path.touch()
    filled(path)
    path.rename(tmp_path / "away.db")
    filled(path)
    os.truncate(path, 0)
    untouched(
        path, lambda: refused(path, StateCorrupt, "is empty, and was not before", "move it away")
    )
    with pytest.raises(StateCorrupt, match="was not before"):
        inspect(path)
    path.unlink()

    def full(*_: object) -> None:
        path.touch()
        raise StateError("the disk is full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("otel_openai_usage.storage.sqlite.store.migrate", full)
        with pytest.raises(StateError):  # a first start that fails leaves no state
            Store(path)
    Store(path).close()


def test_a_new_file_is_private(tmp_path: Path) -> None:
    """Only its user can read a new state and its log. An existing file keeps its permissions."""
    path = tmp_path / "state.db"
    store = Store(path)
    assert [file.stat().st_mode & 0o777 for file in (path, Path(f"{path}-wal"))] == [0o600, 0o600]
    store.close()
    path.chmod(0o640)
    Store(path).close()
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    """A file of a newer version is refused with a sentence that names both versions."""
    path = filled(tmp_path / "state.db")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    untouched(
        path, lambda: refused(path, StateTooNew, str(VERSION), str(VERSION + 1), "install a newer")
    )
    with pytest.raises(StateTooNew):
        inspect(path)


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    """A database of another program is not changed, not even its journal mode."""
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE diary (day TEXT)")
    db.close()
    untouched(path, lambda: refused(path, StateCorrupt, "another program", "state.path"))
    with pytest.raises(StateCorrupt):
        inspect(path)


@pytest.mark.parametrize("offset", [0, 16, 40, 100])
def test_a_damaged_first_page_is_refused(tmp_path: Path, offset: int) -> None:
    """A file whose first page was overwritten is refused as damaged or foreign, and never replaced
    by a new state.
    """
    path = filled(tmp_path / "state.db")
    overwrite(path, offset, b"\xaa" * 60)
    untouched(path, lambda: refused(path, StateCorrupt))


def test_a_damaged_page_is_refused_or_harmless(tmp_path: Path) -> None:
    """If a page was overwritten, the state is refused, or every total is still exact."""
    path = filled(tmp_path / "state.db")
    good = path.read_bytes()
    expected = {who(f"m{n}"): (10 * n, 10) for n in range(40)}
    found = 0
    for page in range(1, len(good) // 4096):
        for where in (0, 8, 2000):
            path.write_bytes(good)
            overwrite(path, page * 4096 + where, b"\xff" * 200)
            try:
                store = Store(path)
            except StateCorrupt:
                found += 1
                continue
            source_state = opened(store)
            assert {
                dims: stored_series.shown for dims, stored_series in source_state.series.items()
            } == expected
            store.close()
    assert found > len(good) // 4096


def test_a_shortened_file_is_refused(tmp_path: Path) -> None:
    """A file without its end is refused."""
    path = filled(tmp_path / "state.db")
    good = path.read_bytes()
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(good[: int(len(good) * share)])
        refused(path, StateCorrupt)


def test_damage_while_running_fails_polls(tmp_path: Path) -> None:
    """If the file is damaged while the exporter runs, polls fail with a sentence."""
    path = tmp_path / "state.db"
    store = Store(path)
    source_state = opened(store)
    read(
        store,
        source_state,
        Width.MINUTE,
        {NOON: {who(f"m{n}"): (n, 1) for n in range(300)}},
        NOON + 60,
    )
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(path, 4096, b"\xff" * (path.stat().st_size - 4096))
    store._db.execute("PRAGMA shrink_memory")
    store._db.execute("PRAGMA cache_size = 0")
    with pytest.raises(StateCorrupt):
        opened(store, "another")
    store.close()


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Overwrite a part of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("cut", [1, 100, 4119, 4120, 9000, 20000])
def test_a_power_cut_tears_nothing(tmp_path: Path, cut: int) -> None:
    """Without the last bytes of the log, the state is that after some commit: totals are the sums
    of their rows.
    """
    path = tmp_path / "state.db"
    store = Store(path)
    source_state = opened(store)
    states: list[dict[Dims, Amounts]] = [{}]
    for minute in range(6):
        read(
            store,
            source_state,
            Width.MINUTE,
            {NOON + 60 * minute: {who(f"m{n}"): (n + 1, 1) for n in range(30)}},
            NOON + 600,
        )
        states.append(totals(source_state))
    wal = path.with_name("state.db-wal").read_bytes()
    copy = tmp_path / "after"
    copy.mkdir()
    (copy / "state.db").write_bytes(path.read_bytes())
    (copy / "state.db-wal").write_bytes(wal[: len(wal) - cut])
    store.close()
    again = Store(copy / "state.db")
    source_state = opened(again)
    assert totals(source_state) == sums(again, source_state)
    assert totals(source_state) in states
    again.close()


# --- who may have it


def test_one_state_has_one_process(tmp_path: Path) -> None:
    """While one process has the state open, a second one is refused.

    After a kill the next one can open it at once.
    """
    path = tmp_path / "state.db"
    holder = child(f"""
        import sys, time
        from otel_openai_usage.storage.sqlite.store import Store
        store = Store({str(path)!r})
        print("mine", flush=True)
        time.sleep(60)
    """)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "mine\n"
    refused(path, StateInUse, "in use", "state.path")
    holder.kill()
    holder.wait()
    Store(path).close()


def test_a_store_that_is_closed_twice_does_no_harm(tmp_path: Path) -> None:
    """Closing a store twice closes no file of anybody else."""
    store = Store(tmp_path / "state.db")
    store.close()
    with (tmp_path / "other").open("w") as other:
        store.close()
        other.write("x")


def test_a_foreign_lock_is_waited_out(tmp_path: Path) -> None:
    """While another program holds a write lock, a poll fails with a sentence.

    Afterwards it counts what it missed.
    """
    store = Store(tmp_path / "state.db")
    store._db.execute("PRAGMA busy_timeout = 50")
    source_state = opened(store)
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateInUse, match="another program has it locked"):
        read(store, source_state, Width.MINUTE, {NOON: {who(): (5, 1)}}, NOON + 60)
    assert totals(source_state) == {}
    other.execute("ROLLBACK")
    other.close()
    read(store, source_state, Width.MINUTE, {NOON: {who(): (5, 1)}}, NOON + 120)
    assert totals(source_state) == sums(store, source_state) == {who(): (5, 1)}
    store.close()


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_read_only_state_is_refused(tmp_path: Path, what: str) -> None:
    """A read-only file or folder is refused with a sentence about permissions, and the file stays
    as it is.
    """
    path = filled(tmp_path / "state.db")
    path.with_name("state.db.lock").chmod(0o666)
    path.chmod(0o444 if what == "file" else 0o666)
    tmp_path.chmod(0o777 if what == "file" else 0o555)
    for parent in tmp_path.parents:
        if os.geteuid() == 0 and parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    before = path.read_bytes()
    done = child(f"""
        import os
        from otel_openai_usage.errors import StateError
        from otel_openai_usage.storage.sqlite.file import inspect
        from otel_openai_usage.storage.sqlite.store import Store
        from pathlib import Path
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            Store({str(path)!r})
        except StateError as error:
            print("refused:", error)
    """)
    said, _ = done.communicate(timeout=30)
    tmp_path.chmod(0o777)
    assert "refused:" in said
    assert "writable" in said or "permissions" in said
    assert path.read_bytes() == before


def child(code: str) -> subprocess.Popen[str]:
    """Python code in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


# --- older versions


@pytest.mark.parametrize("script", OLD, ids=lambda path: path.stem)
def test_an_older_version_is_migrated(tmp_path: Path, script: Path) -> None:
    """A file of an older version gets today's tables and keeps its totals, rows and names."""
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as db:
        db.executescript(script.read_text())
        db.executescript(f"""
            INSERT INTO meta VALUES ('instance_id', 'the-same');
            INSERT INTO sources (id, organization, kind, epoch, complete, horizon, unread)
                VALUES (1, 'default', 'embeddings', {MIDNIGHT}, 1, {NOON}, '[[{NOON - 60}, {NOON}]]');
            INSERT INTO groupings VALUES (1, 0, 'project_id,user_id,api_key_id,model');
            INSERT INTO dims (id, source_id, key, model, total, shown, released, first_seen, changed)
                VALUES (1, 1, '{{"model": "a"}}', 'a', '[5, 1]', '[9, 1]', 1, {MIDNIGHT}, {NOON});
            INSERT INTO readings (source_id, width, start, dims, input, requests) VALUES (1, 60, {NOON - 120}, 1, 5, 1);
            INSERT INTO names VALUES ('default', 'project', 'proj_1', 'Atlas');
        """)
    db.close()
    store = Store(path)
    source_state = opened(store)
    assert store.instance_id == "the-same"
    assert (totals(source_state), sums(store, source_state)) == ({who(): (5, 1)}, {who(): (5, 1)})
    assert (
        source_state.series[who()].shown,
        source_state.series[who()].released,
        source_state.progress.complete,
    ) == (
        (9, 1),
        True,
        True,
    )
    assert store.names("default").projects == {"proj_1": "Atlas"}
    read(store, source_state, Width.MINUTE, {NOON - 60: {who(): (6, 1), who("b"): (1, 1)}}, NOON)
    assert totals(source_state) == {who(): (11, 2), who("b"): (1, 1)} == sums(store, source_state)
    store.close()
    fresh = Store(tmp_path / "fresh.db")
    assert tables(path) == tables(tmp_path / "fresh.db")
    fresh.close()


def tables(path: Path) -> dict[str, set[str]]:
    """Tables and their columns."""
    with sqlite3.connect(path) as db:
        names = [
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        found = {
            name: {row[1] for row in db.execute(f"PRAGMA table_info({name})")} for name in names
        }
    db.close()
    return found


def test_a_file_of_every_version_can_be_migrated() -> None:
    """There is a file of every older version, so a changed table without a migration fails a test."""
    assert {path.stem for path in OLD} >= {f"version-{number}" for number in range(1, VERSION)}
    assert str(APPLICATION_ID) in OLD[0].read_text()


def test_a_migration_that_breaks_leaves_the_old_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a migration fails, the file has the version before it and can be used again."""
    path = filled(tmp_path / "state.db")
    broken = ("CREATE TABLE extra (a); CREATE TABLE meta (again);",)
    monkeypatch.setattr(
        "otel_openai_usage.storage.sqlite.file.MIGRATIONS", (*("",) * VERSION, *broken)
    )
    monkeypatch.setattr("otel_openai_usage.storage.sqlite.file.VERSION", VERSION + 1)
    with pytest.raises(StateError, match="migrated"):
        Store(path)
    monkeypatch.undo()
    store = Store(path)
    assert "extra" not in tables(path)
    assert len(totals(opened(store))) == 40
    store.close()


def test_inspecting_changes_nothing(tmp_path: Path) -> None:
    """`inspect` describes the state and creates no file."""
    path = tmp_path / "deep" / "state.db"
    assert "will be created" in inspect(path)
    assert not path.parent.exists()
    path = filled(tmp_path / "state.db")
    untouched(path, lambda: inspect(path))
    assert str(VERSION) in inspect(path)
