"""Opening the file: whose it is, which version, and every way in which it can be unusable, in
sentences.
"""

import fcntl
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from otel_openai_usage.errors import StateCorrupt, StateError, StateInUse, StateTooNew
from otel_openai_usage.storage.sqlite.schema import (
    APPLICATION_ID,
    MIGRATIONS,
    VERSION,
    add_missing_columns,
    missing_columns,
)

MEMORY = ":memory:"

NOT_UNDERSTOOD = (ValueError, TypeError, LookupError, ArithmeticError)
"""What decoding a damaged value raises. (UnicodeError and JSONDecodeError are ValueErrors, the
errors of decimal are ArithmeticErrors.)
"""

ADVICE = (
    "restore it from a backup (`otel-openai-usage state restore FILE`), or move it away to begin"
    " counting anew (the counters then start again)"
)
"""What to do about a state that cannot be used."""


@contextmanager
def translate_errors(path: str, doing: str) -> Iterator[None]:
    """Turn SQLite's and the system's errors into ours, with what was done, what was met and what to
    do.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _translated(path, doing, error) from error
    except NOT_UNDERSTOOD as error:
        # SQLite's own messages quote damaged text, so they may fail to decode, too.
        if doing != "read" and not isinstance(error, UnicodeError):
            raise  # a bug: only what is read comes from outside
        raise not_understood(path, error) from error
    except OSError as error:
        raise StateError(
            f"{doing} the state file {path}: {error.strerror or error}; check the path and its permissions"
        ) from error


def not_understood(path: str, error: Exception) -> StateCorrupt:
    """The error for a stored value that cannot be decoded."""
    return StateCorrupt(
        f"the state file {path} is damaged (a stored value cannot be understood: {error}); {ADVICE}"
    )


def _translated(path: str, doing: str, error: sqlite3.DatabaseError) -> StateError:
    what = f"{doing} the state file {path}: {error}"
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "unsupported file format" in str(
        error
    ):
        return StateCorrupt(f"{what}; {ADVICE}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StateInUse(f"{what}; another program has it locked: end that one")
    if code == sqlite3.SQLITE_FULL:
        return StateError(f"{what}; make room on that disk, nothing is lost meanwhile")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StateError(f"{what}; the file and its folder must be writable for this user")
    return StateError(what)


def canonical(path: Path | str) -> str:
    """The one name of a state file, with symbolic links and `..` resolved. SQLite keeps its log
    beside that name, so the lock and the marker belong there, too.
    """
    return MEMORY if str(path) == MEMORY else os.path.realpath(path)


_HELD: set[tuple[int, int]] = set()
"""Device and inode of every state that this process has open for writing."""


class Lock:
    """Held by the one process that may write; the system lets go of it when the process ends,
    however it ends.

    There are two locks. One is on a file beside the state. That file also says whether there was a
    state before: a state file that lost all its bytes is else like a new one. The other one is on
    the state file itself, so that a hard link or a bind mount is the same state. On Linux it does
    not meet the locks that SQLite has on that file (flock and fcntl locks are independent); other
    systems have no such lock that is safe beside SQLite.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = os.fdopen(
            os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b"
        )
        self._state: int | None = None
        self._inode: tuple[int, int] | None = None
        self._log: tuple[int, int] | None = None
        self._take(self._file.fileno())
        if not Path(path).exists():  # what was there was moved away
            self._file.truncate(0)

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise self._in_use() from None

    def _in_use(self) -> StateInUse:
        return StateInUse(
            f"the state file {self._path} is in use by another otel-openai-usage; end that one or set another state.path"
        )

    def hold_state(self) -> None:
        """Lock the state file itself, which exists now.

        The file stays open until `release`. Closing it lets go of every lock that SQLite has on it
        in this process, so a file that this process has is not opened a second time.
        """
        inode = _inode(self._path)
        if inode in _HELD:
            self.release()
            raise self._in_use()
        self._state = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        if sys.platform == "linux":
            self._take(self._state)
        self._inode = _inode(self._state)
        _HELD.add(self._inode)

    @property
    def descriptor(self) -> int:
        """The state file, for reading, after `hold_state`."""
        if self._state is None:
            raise RuntimeError("the state file is not locked yet; call hold_state() first")
        return self._state

    def hold_log(self) -> None:
        """Remember which file is the write-ahead log. SQLite has made it by now, and it stays the
        same file until the last connection is closed.
        """
        with suppress(FileNotFoundError):
            self._log = _inode(f"{self._path}-wal")

    def gone(self) -> str | None:
        """Why what is written now would be lost; None while the files are where they were opened."""
        try:
            if self._inode and _inode(self._path) != self._inode:
                return f"the state file {self._path} was replaced by another file"
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                return f"the state file {self._path} cannot be looked at: {error.strerror}"
            return f"the state file {self._path} was deleted or moved away"
        try:
            if self._log and _inode(f"{self._path}-wal") != self._log:
                return f"the write-ahead log of the state, {self._path}-wal, was replaced"
        except OSError:
            return f"the write-ahead log of the state, {self._path}-wal, was deleted"
        return None

    def began(self) -> None:
        """There is a state now."""
        if not self._file.read(1):
            self._file.write(b"there is a state\n")
            self._file.flush()

    def release(self) -> None:
        """Let others have the state. Doing so twice does no harm."""
        self._file.close()
        if self._state is not None:
            os.close(self._state)
            self._state = None
        if self._inode is not None:
            _HELD.discard(self._inode)
            self._inode = None


def _inode(file: str | int) -> tuple[int, int]:
    found = os.fstat(file) if isinstance(file, int) else Path(file).stat()
    return (found.st_dev, found.st_ino)


def refuse_other_name(db: sqlite3.Connection, path: str) -> None:
    """Raise StateError if the newest writes lie beside another name of the same file (a hard link,
    a bind mount): SQLite looks for them beside the name that it is given.
    """
    with translate_errors(path, "read"):
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            return
        found = db.execute("SELECT value FROM meta WHERE key = 'path'").fetchone()
    if found is None or found[0] == path:
        return
    try:
        same = Path(found[0]).samefile(path)
        waiting = same and Path(f"{found[0]}-wal").stat().st_size
    except OSError:
        return
    if waiting:
        raise StateError(
            f"opened the state file {path}: it is the same file as {found[0]}, and its newest"
            f" writes wait in {found[0]}-wal; set state.path to {found[0]}"
        )


def refuse_emptied(path: Path) -> None:
    """Raise StateCorrupt if the file had a state and has no byte now: SQLite would begin anew, and
    drop its log of what is missing.
    """
    lock = Path(f"{path}.lock")
    if path.exists() and not path.stat().st_size and lock.exists() and lock.stat().st_size:
        raise StateCorrupt(f"the state file {path} is empty, and was not before; {ADVICE}")


def keep_private(path: str) -> None:
    """Have a new file be readable for its user only: it holds names of people. SQLite makes what
    lies beside it alike.

    One that is there is not opened: closing it again would let go of the locks that SQLite has on
    it elsewhere in this process.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def connect(path: str) -> sqlite3.Connection:
    """A connection for the one writer, its durability settings made. Raises StateError."""
    with translate_errors(path, "opened"):
        db = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=5, cached_statements=256
        )
        db.execute("PRAGMA synchronous = FULL")  # a commit that returned survives a power cut
        db.execute(
            "PRAGMA wal_autocheckpoint = 8000"
        )  # 32 MB: what changes often is written back once, not every time
        db.execute("PRAGMA temp_store = MEMORY")
        return db


def identify(db: sqlite3.Connection, path: str) -> int:
    """The version of the state in a file, 0 for an empty one. Refuse what is not ours, or too new."""
    with translate_errors(path, "read"):
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        owner: int = db.execute("PRAGMA application_id").fetchone()[0]
        empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not empty and owner != APPLICATION_ID:
        raise StateCorrupt(
            f"{path} is a database of another program; set state.path to a file of its own"
        )
    if version > VERSION:
        raise StateTooNew(
            f"the state file {path} has version {version}, this program knows up to {VERSION}; install a newer otel-openai-usage"
        )
    return 0 if empty else version


def migrate(db: sqlite3.Connection, path: str, version: int) -> None:
    """Migrate what is older, and create the columns that today's endpoints need; each step is done
    completely or not at all.
    """
    with translate_errors(path, "migrated"):
        for number in range(version, VERSION):
            db.executescript(
                f"BEGIN IMMEDIATE; {MIGRATIONS[number]}"
                f" PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number + 1}; COMMIT;"
            )
        if missing_columns(db):
            db.execute("BEGIN IMMEDIATE")
            add_missing_columns(db)
            db.execute("COMMIT")


def use_log(db: sqlite3.Connection, path: str) -> bool:
    """Let the database have a write-ahead log. Whether the file system can do that."""
    with translate_errors(path, "written"):
        return str(db.execute("PRAGMA journal_mode = WAL").fetchone()[0]) == "wal"


def inspect(path: Path) -> str:
    """Say in a sentence what state is at `path`, changing nothing. Raises StateError if `run` could
    not use it.
    """
    if not path.exists():
        folder = next(parent for parent in path.parents if parent.exists())
        if not folder.is_dir() or unwritable(folder):
            raise StateError(
                f"looked at {folder} for the state file: no file can be made there; set state.path or its permissions"
            )
        return f"{path} will be created"
    if path.is_dir():
        raise StateError(
            f"looked at the state file {path}: that is a folder; set state.path to a file in it"
        )
    if not os.access(path, os.W_OK):
        raise StateError(f"looked at the state file {path}: not writable for this user")
    refuse_emptied(path)
    with translate_errors(str(path), "read"):
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            owner = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
        finally:
            db.close()
    if version > VERSION:
        raise StateTooNew(
            f"the state file {path} has version {version}, this program knows up to {VERSION}"
        )
    if owner != APPLICATION_ID and path.stat().st_size:
        raise StateCorrupt(
            f"{path} is a database of another program; set state.path to a file of its own"
        )
    return f"{path}, version {version}"


@contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads, while another process may write. Raises StateError, also when
    there is no state, or an older one.
    """
    if str(path) == MEMORY:
        raise StateError(
            f"looked for a state file: state.path is {MEMORY}, which keeps nothing; set a file, and start `run` with it"
        )
    if not path.exists():
        raise StateError(
            f"looked for the state file {path}: there is none; `otel-openai-usage run` makes it"
        )
    inspect(path)
    with (
        translate_errors(str(path), "opened"),
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False)) as db,
    ):
        refuse_other_name(db, canonical(path))
        if (version := db.execute("PRAGMA user_version").fetchone()[0]) < VERSION:
            raise StateError(
                f"the state file {path} has version {version}, this needs {VERSION}; start `otel-openai-usage run` once"
            )
        if missing := missing_columns(db):
            names = ", ".join(f"{table}.{name}" for table, name, _ in missing)
            raise StateError(
                f"the state file {path} has no column {names} yet; start `otel-openai-usage run` once"
            )
        yield db


def unwritable(folder: Path) -> str | None:
    """Why nothing can be written there now; None if it can. Tried, not asked: some file systems
    allow it to root, and refuse.
    """
    try:
        with TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(4096))
    except OSError as error:
        return error.strerror or str(error)
    return None
