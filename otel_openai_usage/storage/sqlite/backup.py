"""Backs up a state, and restores a backup."""

import os
import sqlite3
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from otel_openai_usage.errors import StateCorrupt, StateError
from otel_openai_usage.storage.sqlite.connection import StateConnection
from otel_openai_usage.storage.sqlite.errors import translate_errors
from otel_openai_usage.storage.sqlite.file import (
    MEMORY,
    canonical,
    create_private,
    identify,
    refuse_emptied,
)
from otel_openai_usage.storage.sqlite.integrity import totals_disagreeing
from otel_openai_usage.storage.sqlite.lock import Lock
from otel_openai_usage.storage.sqlite.marker import sync_folder
from otel_openai_usage.storage.sqlite.migrations import FIRST_WITH_COMMITS
from otel_openai_usage.storage.sqlite.start_check import Position, position
from otel_openai_usage.storage.sqlite.state_info import open_unlocked, try_read_marker

SIDE_FILES = ("-wal", "-shm", "-journal", ".lock", ".marker", ".marker.new", ".accept")
"""Endings of the files that belong to a state, beside it."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy that was made.

    `aside` is the new path of the state that was there before. `warning` says what is wrong with
    the copied content.
    """

    path: str
    size: int
    position: Position
    aside: str | None = None
    warning: str | None = None


def back_up(state: Path | str, target: Path, *, replace: bool) -> Copied:
    """Copy a state consistently, also while an exporter writes it. Raises StateError.

    An existing file is only overwritten with `replace`, and only by a complete copy.
    """
    path = _existing(state)
    file = os.path.realpath(target)
    if file in (path, *(f"{path}{ending}" for ending in SIDE_FILES)):
        raise StateError(
            f"backed up to {file}: that is the state itself or a file that belongs to it; name"
            " another file"
        )
    with translate_errors(file, "wrote"):
        exists = Path(file).exists()
        is_state = exists and Path(file).samefile(path)
        is_folder = Path(file).is_dir()
    if is_state:
        raise StateError(f"backed up to {file}: that is a link to the state; name another file")
    if is_folder:
        raise StateError(f"backed up to {file}: that is a folder; name a file in it")
    if exists and not replace:
        raise StateError(
            f"backed up to {file}: there is a file already, and it was left as it is; name another"
            " one, or replace it with --replace"
        )
    beside = _beside(file)
    with open_unlocked(path) as db:
        refuse_emptied(Path(path))
        if not identify(db, path):
            raise StateCorrupt(f"backed up {path}: there is no state in it; nothing was written")
        try:
            here = _copy(db, path, beside)
            with translate_errors(file, "wrote"):
                Path(beside).rename(file)
                sync_folder(file)
        except BaseException:
            _remove(beside)
            raise
    return Copied(file, Path(file).stat().st_size, here)


def restore(state: Path | str, source: Path, *, stamp: str) -> Copied:
    """Check a copy and put it in the place of a state. Raises StateError.

    The former state stays beside it, with a name that ends with `stamp`. The marker stays, too: if
    it knows newer commits, the next start says how much is missing.
    """
    path = canonical(state)
    if path == MEMORY:
        raise StateError(f"restored a state: state.path is {MEMORY}, which keeps nothing")
    copy = _existing(source)
    if copy == path:
        raise StateError(f"restored {copy}: that is the state itself; name a copy of it")
    with translate_errors(path, "opened"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        lock = Lock(path)
    with ExitStack() as stack:
        stack.callback(lock.release)
        if Path(path).exists():
            with translate_errors(path, "opened"):
                lock.hold_state()
        beside = _beside(path)
        with open_unlocked(copy) as db:
            version = identify(db, copy)
            if not version:
                raise StateCorrupt(f"restored {copy}: there is no state in it; nothing was changed")
            warning = totals_disagreeing(db, copy) if version >= FIRST_WITH_COMMITS else None
            try:
                here = _copy(db, copy, beside)
            except BaseException:
                _remove(beside)
                raise
        with translate_errors(path, "restored"):
            aside = _set_aside(path, stamp)
            Path(beside).rename(path)
            sync_folder(path)
            lock.record_state()
    return Copied(path, Path(path).stat().st_size, here, aside, warning)


def _beside(path: str) -> str:
    """The path of a copy that is not complete yet: a file that nobody else has.

    It is deleted first, so it must not be another state, or the copy that is restored.
    """
    target = Path(path)
    return str(target.with_name(f".{target.name}.{os.getpid()}.new"))


def _existing(path: Path | str) -> str:
    file = canonical(path)
    if file == MEMORY:
        raise StateError(f"looked for a state file: {MEMORY} keeps nothing")
    with translate_errors(file, "opened"):
        is_file = Path(file).is_file()
    if not is_file:
        raise StateError(f"looked for the state file {file}: there is none")
    return file


def _copy(db: sqlite3.Connection, path: str, target: str) -> Position:
    """Copy a database into a new private file, check the file and flush it to the disk.

    The position of the copy.
    """
    _remove(target)
    with translate_errors(target, "wrote"):
        create_private(target)
        connection = sqlite3.connect(target, isolation_level=None, factory=StateConnection)
        with closing(connection) as copy:
            with translate_errors(path, "read"):
                # All pages in one step, which is one snapshot: the exporter may be writing.
                db.backup(copy, pages=-1)
                (result,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
                here = position(copy)
            if result != "ok":
                raise StateCorrupt(
                    f"copied the state file {path}: it is damaged ({result}); the copy was deleted,"
                    " and nothing else was changed"
                )
            copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    return here


def _set_aside(path: str, stamp: str) -> str | None:
    """Rename a state and its log. The new path, None if there was no state.

    The log is renamed first. If the process ends halfway, the marker reports a state without its
    log. A log beside another state would be mixed into it.
    """
    if not Path(path).exists():
        for end in ("-wal", "-shm"):
            _remove(f"{path}{end}")
        return None
    aside = f"{path}.replaced-{stamp}"
    for end in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            Path(f"{path}{end}").rename(f"{aside}{end}")
    return aside


def remove(path: Path) -> None:
    """Delete a state and every file that belongs to it."""
    for end in ("", *SIDE_FILES):
        with suppress(FileNotFoundError):
            Path(f"{path}{end}").unlink()


def _remove(path: str) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            Path(f"{path}{end}").unlink()


def missing_after(copied: Copied) -> str | None:
    """A sentence about what a restored copy lacks according to the marker, None if nothing."""
    marker, _ = try_read_marker(copied.path)
    here = copied.position
    if marker is None or here.instance != marker.instance:
        return None
    if here.number >= marker.number:
        return None
    return f"{marker.time - here.time} s of what was counted here are missing in it"
