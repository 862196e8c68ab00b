"""Locks that make one process the only writer of a state file."""

import fcntl
import os
import sys
from contextlib import suppress
from pathlib import Path

from otel_openai_usage.errors import StateInUse

_LOCKED_INODES: set[tuple[int, int]] = set()
"""Device and inode of every state that this process has open for writing."""


class Lock:
    """Held by the one process that may write. The system releases it when the process ends.

    There are two locks. The first is on a file beside the state. That file also records that there
    was a state: a state file that lost all its bytes would otherwise look like a new one. The
    second lock is on the state file itself, so that a hard link or a bind mount counts as the same
    state. On Linux it does not conflict with SQLite's own locks on that file (flock and fcntl locks
    are independent). Other systems have no such lock that is safe beside SQLite.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._file = os.fdopen(os.open(f"{path}.lock", flags, 0o600), "r+b")
        self._state: int | None = None
        self._inode: tuple[int, int] | None = None
        self._log_inode: tuple[int, int] | None = None
        self._take(self._file.fileno())
        if not Path(path).exists():  # the state was moved away on purpose
            self._file.truncate(0)

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise self._in_use() from None

    def _in_use(self) -> StateInUse:
        return StateInUse(
            f"the state file {self._path} is in use by another otel-openai-usage;"
            " end that one or set another state.path"
        )

    def hold_state(self) -> None:
        """Lock the state file itself, which must exist.

        The file stays open until `release`: closing it would release every lock that SQLite has on
        it in this process. For the same reason this process never opens the file a second time.
        """
        inode = _inode(self._path)
        if inode in _LOCKED_INODES:
            self.release()
            raise self._in_use()
        self._state = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        if sys.platform == "linux":
            self._take(self._state)
        self._inode = _inode(self._state)
        _LOCKED_INODES.add(self._inode)

    @property
    def descriptor(self) -> int:
        """The state file, for reading, after `hold_state`."""
        if self._state is None:
            raise RuntimeError("the state file is not locked yet; call hold_state() first")
        return self._state

    def hold_log(self) -> None:
        """Remember the write-ahead log, which SQLite has created by now.

        It stays the same file until the last connection is closed.
        """
        with suppress(FileNotFoundError):
            self._log_inode = _inode(f"{self._path}-wal")

    def gone(self) -> str | None:
        """Why a write would be lost, None while the files are where they were opened."""
        # Compared by inode: a file of the same name may be another one.
        try:
            if self._inode and _inode(self._path) != self._inode:
                return f"the state file {self._path} was replaced by another file"
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                return f"the state file {self._path} cannot be looked at: {error.strerror}"
            return f"the state file {self._path} was deleted or moved away"
        log = f"{self._path}-wal"
        try:
            if self._log_inode and _inode(log) != self._log_inode:
                return f"the write-ahead log of the state, {log}, was replaced"
        except OSError:
            return f"the write-ahead log of the state, {log}, was deleted"
        return None

    def record_state(self) -> None:
        """Record that there is a state now; see `had_state`."""
        if not self._file.read(1):
            self._file.write(b"there is a state\n")
            self._file.flush()

    def release(self) -> None:
        """Release both locks. A second call does nothing."""
        self._file.close()
        if self._state is not None:
            os.close(self._state)
            self._state = None
        if self._inode is not None:
            _LOCKED_INODES.discard(self._inode)
            self._inode = None


def _inode(file: str | int) -> tuple[int, int]:
    found = os.fstat(file) if isinstance(file, int) else Path(file).stat()
    return (found.st_dev, found.st_ino)


def had_state(path: Path) -> bool:
    """Whether the lock file says that there was a state."""
    lock = Path(f"{path}.lock")
    return lock.exists() and lock.stat().st_size > 0


def in_use(path: str) -> bool:
    """Whether an exporter has the state open. Reads only its lock file."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
