"""Opens a state file, for writing and for reading, and refuses the files that cannot be used."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from otel_openai_usage.errors import StateCorrupt, StateError, StateTooNew
from otel_openai_usage.storage.sql import notes
from otel_openai_usage.storage.sqlite.connection import StateConnection
from otel_openai_usage.storage.sqlite.errors import ADVICE, no_state, translate_errors
from otel_openai_usage.storage.sqlite.lock import had_state
from otel_openai_usage.storage.sqlite.migrations import APPLICATION_ID, MIGRATIONS, VERSION
from otel_openai_usage.storage.sqlite.schema import add_missing_columns, missing_columns

MEMORY = ":memory:"
"""The path of a state that is lost when the process ends."""


def canonical(path: Path | str) -> str:
    """The path of a state file without symbolic links and `..`.

    SQLite keeps its log beside that path, so the lock and the marker belong there, too.
    """
    return MEMORY if str(path) == MEMORY else os.path.realpath(path)


# --- for the writer


def connect(path: str) -> StateConnection:
    """Open a connection for the writer. Raises StateError."""
    with translate_errors(path, "opened"):
        # Opened in one thread and used in another. Each endpoint has statements of its own, so
        # more of them are cached than the default.
        db = sqlite3.connect(
            path,
            isolation_level=None,
            check_same_thread=False,
            timeout=5,
            cached_statements=256,
            factory=StateConnection,
        )
        # A commit that returned survives a power cut.
        db.execute("PRAGMA synchronous = FULL")
        # 32 MB, so that a page that changes often is written back once, not every time.
        db.execute("PRAGMA wal_autocheckpoint = 8000")
        db.execute("PRAGMA temp_store = MEMORY")
        return db


def create_private(path: str) -> None:
    """Create a missing file so that only its user can read it: it holds names of people.

    SQLite gives the files beside it the same mode. An existing file is not opened, because closing
    it would release the locks that SQLite has on it elsewhere in this process.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with suppress(FileExistsError):
        os.close(os.open(path, flags, 0o600))


def enable_log(db: sqlite3.Connection, path: str) -> bool:
    """Turn on the write-ahead log. Whether the file system supports it."""
    with translate_errors(path, "written"):
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        return str(mode) == "wal"


def migrate(db: sqlite3.Connection, path: str, version: int) -> None:
    """Migrate an older state, and add the columns that today's endpoints need.

    Each step is done completely or not at all. Raises StateError.
    """
    # The version is part of each transaction, so a killed migration continues at its step.
    with translate_errors(path, "migrated"):
        for number in range(version, VERSION):
            db.executescript(
                f"BEGIN IMMEDIATE; {MIGRATIONS[number]}"
                f" PRAGMA application_id = {APPLICATION_ID};"
                f" PRAGMA user_version = {number + 1}; COMMIT;"
            )
        if missing_columns(db):
            db.execute("BEGIN IMMEDIATE")
            add_missing_columns(db)
            # Numbered as every commit: otherwise the marker of a process that is killed before it
            # writes the next one would report pages that somebody else changed.
            db.execute("UPDATE commits SET number = number + 1")
            db.execute("COMMIT")


# --- files that cannot be used


def identify(db: sqlite3.Connection, path: str) -> int:
    """The version of a state, 0 for an empty file.

    Raises StateCorrupt for a file of another program and StateTooNew for a newer version.
    """
    with translate_errors(path, "read"):
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        owner: int = db.execute("PRAGMA application_id").fetchone()[0]
        (table_count,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    is_empty = table_count == 0
    if not is_empty and owner != APPLICATION_ID:
        raise _of_another_program(path)
    if version > VERSION:
        raise _too_new(path, version)
    return 0 if is_empty else version


def _of_another_program(path: object) -> StateCorrupt:
    return StateCorrupt(
        f"{path} is a database of another program; set state.path to a file of its own"
    )


def _too_new(path: object, version: int) -> StateTooNew:
    return StateTooNew(
        f"the state file {path} has version {version}, this program knows up to {VERSION};"
        " install a newer otel-openai-usage"
    )


def refuse_other_name(db: StateConnection, path: str) -> None:
    """Raise StateError if the newest writes are in a log beside another name of the same file.

    SQLite looks for the log beside the name that it is given, so it would not see the log that
    belongs to a hard link or a bind mount.
    """
    with translate_errors(path, "read"):
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            return
        other = notes.read(db, notes.STATE_PATH)
    if other is None or other == path:
        return
    try:
        is_same_file = Path(other).samefile(path)
        log_has_writes = is_same_file and Path(f"{other}-wal").stat().st_size > 0
    except OSError:
        return
    if log_has_writes:
        raise StateError(
            f"opened the state file {path}: it is the same file as {other}, and its newest"
            f" writes wait in {other}-wal; set state.path to {other}"
        )


def refuse_emptied(path: Path) -> None:
    """Raise StateCorrupt if the file had a state and has no byte now.

    SQLite would create a new database, and drop its log of the lost one.
    """
    if path.exists() and not path.stat().st_size and had_state(path):
        raise StateCorrupt(f"the state file {path} is empty, and was not before; {ADVICE}")


def why_unwritable(folder: Path) -> str | None:
    """Why no file can be written in a folder, None if one can.

    Writes a file, because some file systems grant root the permission and refuse the write.
    """
    try:
        with TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(4096))
    except OSError as error:
        return error.strerror or str(error)
    return None


# --- for readers


@contextmanager
def open_read_only(path: Path) -> Iterator[StateConnection]:
    """Open the state for reading, also while the exporter is writing it.

    Raises StateError, also if there is no state or it is of an older version.
    """
    if str(path) == MEMORY:
        raise StateError(
            f"looked for a state file: state.path is {MEMORY}, which keeps nothing;"
            " set a file, and start `run` with it"
        )
    with translate_errors(str(path), "opened"):
        if not path.exists():
            raise no_state(path)
    inspect(path)
    with translate_errors(str(path), "opened"):
        connection = sqlite3.connect(
            f"file:{path}?mode=ro", uri=True, check_same_thread=False, factory=StateConnection
        )
    with closing(connection) as db:
        refuse_other_name(db, canonical(path))
        with translate_errors(str(path), "opened"):
            _refuse_older(db, path)
        yield db


def _refuse_older(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version < VERSION:
        raise StateError(
            f"the state file {path} has version {version}, this needs {VERSION};"
            " start `otel-openai-usage run` once"
        )
    if missing := missing_columns(db):
        names = ", ".join(f"{table}.{name}" for table, name, _ in missing)
        raise StateError(
            f"the state file {path} has no column {names} yet; start `otel-openai-usage run` once"
        )


def inspect(path: Path) -> str:
    """Describe the state at `path` in a sentence, without a change.

    Raises StateError if `run` could not use it.
    """
    # Also for a folder that this user may not read: Path.exists raises an error for it.
    with translate_errors(str(path), "opened"):
        return _inspect(path)


def _inspect(path: Path) -> str:
    if not path.exists():
        folder = next(parent for parent in path.parents if parent.exists())
        if not folder.is_dir() or why_unwritable(folder):
            raise StateError(
                f"looked at {folder} for the state file: no file can be made there;"
                " set state.path or its permissions"
            )
        return f"{path} will be created"
    if path.is_dir():
        raise StateError(
            f"looked at the state file {path}: that is a folder; set state.path to a file in it"
        )
    if not os.access(path, os.W_OK):
        raise StateError(f"looked at the state file {path}: not writable for this user")
    refuse_emptied(path)
    with (
        translate_errors(str(path), "read"),
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db,
    ):
        owner = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise _too_new(path, version)
    if owner != APPLICATION_ID and path.stat().st_size:
        raise _of_another_program(path)
    return f"{path}, version {version}"
