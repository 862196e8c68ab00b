"""Events that wait in memory, written down in case their process dies before it sends them."""

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from otel_openai_metering.sender import Event

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

_PATTERN = "journal-*.jsonl"
TRIES = 3


class Journal:
    """A file with an event a line, which its process keeps locked as long as it lives.

    Whoever gets the lock of another's file knows that its process has ended, and takes over what
    is in it. No method raises for what the disk does.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._descriptor: int | None = None
        self._is_broken = sys.platform == "win32"  # no such locks: what it held is lost there

    def add(self, event: Event) -> None:
        """Write down an event."""
        if self._is_broken:
            return
        try:
            for _ in range(TRIES):  # another process may take a new file for one that was left
                if self._descriptor is None:
                    self._open()
            if self._descriptor is not None:
                line = json.dumps(event, separators=(",", ":"), default=str)
                os.write(self._descriptor, f"{line}\n".encode())
        except (OSError, ValueError) as error:
            self._is_broken = True
            log.warning("events cannot be written down in %s: %s", self._folder, error)

    def clear(self) -> None:
        """All that was written down is sent, or kept elsewhere."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)

    def remove(self) -> None:
        """Nothing will be written down any more, and nothing waits."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
        self.leave()

    def leave(self) -> None:
        """Let go of the file without a change: it is the parent's, from which this process was
        forked.
        """
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = None
        self._path = None

    def take_over(self, keep: Callable[[list[Event]], int]) -> bool:
        """Hand what processes that have ended left here to `keep`, which says how many it lost.
        True if there was something.
        """
        if sys.platform == "win32":
            return False
        found = False
        for path in _files(self._folder):
            if path == self._path:
                continue
            with contextlib.suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                events = _events(file.read())
                found = found or bool(events)
                if not events or keep(events) < len(events):
                    path.unlink()
        return found

    def has_others(self) -> bool:
        """Other processes, which may have ended, have files here."""
        return any(path != self._path for path in _files(self._folder))

    def _open(self) -> None:
        if sys.platform == "win32":
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / _PATTERN.replace("*", f"{time.time_ns():020d}-{os.getpid()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.fstat(descriptor).st_nlink > 0
        except BlockingIOError:  # another process looked into it before we had the lock
            is_ours = False
        except OSError:  # a file system without locks
            os.close(descriptor)
            path.unlink()
            raise
        if is_ours:
            self._descriptor = descriptor
            self._path = path
        else:
            os.close(descriptor)  # the other one removes it; the next event gets a new file


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob(_PATTERN))
    except (OSError, ValueError):
        return []


def _events(text: bytes) -> list[Event]:
    """The events of a file. A line that was cut by the end of its process is left out."""
    found: list[Event] = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            found.append(event)
    return found
