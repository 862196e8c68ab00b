"""What a state says of itself at its opening: is it as new as its marker, and unchanged since?"""

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from otel_openai_usage.errors import StateCorrupt
from otel_openai_usage.storage.sqlite.audit import disagreements, read_everything
from otel_openai_usage.storage.sqlite.file import ADVICE, translate_errors
from otel_openai_usage.storage.sqlite.marker import Marker
from otel_openai_usage.storage.sqlite.pages import LogScanner, PageSums, main_file_sums

Reason: TypeAlias = Literal["older", "other", "missing", "pages", "totals"]

_NAMED = 3
"""So many of the totals that disagree are named; a log line has an end."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a state lacks, or what of it is in doubt. `seconds` is the time that is missing, for
    changed pages and totals the time in doubt; at least 1.
    """

    reason: Reason
    seconds: int
    details: str


@dataclass(frozen=True, slots=True)
class Position:
    """Where a state is: its instance, its newest commit, and when that was. `began` is when
    counting began; None if it did not.
    """

    instance: str | None
    number: int
    time: int
    began: int | None


@dataclass(slots=True)
class Examined:
    """What was found. `sums` are the checksums of the main file as it is. `notes` are sentences for
    the log, by event, of what is odd but no loss.
    """

    sums: PageSums
    losses: list[Loss] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


def position(db: sqlite3.Connection) -> Position:
    """Where the state in `db` is; one of an older version has commit 0. Raises sqlite3.Error."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "meta" not in tables or "sources" not in tables:
        return Position(None, 0, 0, None)
    instance = db.execute("SELECT value FROM meta WHERE key = 'instance_id'").fetchone()
    (began,) = db.execute("SELECT min(epoch) FROM sources WHERE epoch > 0").fetchone()
    number = time = 0
    if "commits" in tables:
        number, time = db.execute("SELECT number, time FROM commits").fetchone() or (0, 0)
    if not time:
        (time,) = db.execute("SELECT coalesce(max(last_success), 0) FROM sources").fetchone()
    found = Position(str(instance[0]) if instance else None, int(number), int(time), began)
    if began is not None:
        int(began)
    return found


def older(here: Position, marker: Marker) -> Loss | None:
    """What is missing in a state beside this marker; None if nothing is."""
    said = f"the last commit here was number {marker.number} at {at(marker.time)}"
    if here.instance is None and not here.number:
        seconds = marker.time - (marker.began or marker.time)
        return Loss(
            "missing",
            max(1, seconds),
            f"the state is empty, but {said}: all that was counted before is missing",
        )
    if here.instance != marker.instance:
        return Loss(
            "other",
            max(1, marker.time - here.time),
            f"this is another state than the one that was used here: {said}",
        )
    if here.number < marker.number:
        return Loss(
            "older",
            max(1, marker.time - here.time),
            f"the state is of commit {here.number} at {at(here.time)}, but {said}",
        )
    return None


def at(time: int) -> str:
    """A time for a sentence."""
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{time} s"


def examine(
    db: sqlite3.Connection,
    path: str,
    descriptor: int,
    marker: Marker | None,
    failure_log: str | None,
) -> Examined:
    """Compare a state with its marker before anything is written into it.

    `trouble` says why there is no marker although there is a file. Raises StateCorrupt if the state
    cannot be used. What is in the log is written back first, so that every page is in one file.
    """
    with translate_errors(path, "read"):
        here = position(db)
        waiting = _pages_in_log(path)
        _, frames, written = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    found = Examined(main_file_sums(descriptor))
    complete = frames == written
    if not complete:  # somebody reads, so some pages are in the log only
        for page, checksum in waiting.items():
            found.sums.set(page, checksum)
    if marker is None:
        if here.number:
            found.notes.append(_without_marker(path, here, failure_log))
        check_content(db, path, here, found)
        return found
    loss = older(here, marker)
    if loss:
        found.losses.append(loss)
    expected = marker.sums_at(here.number) if here.instance == marker.instance else None
    if expected is None or not complete:
        check_content(db, path, here, found)
        return found
    _compare_pages(db, path, here, marker, expected.differing(found.sums), waiting, found)
    return found


def _compare_pages(
    db: sqlite3.Connection,
    path: str,
    here: Position,
    marker: Marker,
    differing: list[int],
    waiting: Collection[int],
    found: Examined,
) -> None:
    """Say what it means that these pages are not as the marker says."""
    behind = here.number > marker.number
    if behind:
        # The process was killed before it could add its last commits to the marker. Their pages
        # are in the log, which has checksums of its own.
        differing = [page for page in differing if page not in waiting]
    if not differing:
        return
    check_content(db, path, here, found)
    if behind:
        found.notes.append(("state_marker_behind", _behind(here, marker)))
    elif not any(one.reason == "totals" for one in found.losses):
        found.losses.append(_changed(here, differing))


def _behind(here: Position, marker: Marker) -> str:
    return (
        f"the marker is of commit {marker.number}, the state of commit {here.number};"
        " the whole state was checked instead"
    )


def _pages_in_log(path: str) -> dict[int, int]:
    scanner = LogScanner(f"{path}-wal")
    try:
        return scanner.new_pages()[0]
    finally:
        scanner.close()


def _without_marker(path: str, here: Position, failure_log: str | None) -> tuple[str, str]:
    why = failure_log or "there is none"
    sentence = (
        f"the marker {path}.marker cannot be compared with the state ({why}), so nobody can tell"
        f" whether commit {here.number} at {at(here.time)} was the newest"
    )
    return ("state_marker_missing", sentence)


def _changed(here: Position, pages: list[int]) -> Loss:
    many = f"{len(pages)} pages" if len(pages) > 1 else "a page"
    return Loss(
        "pages",
        in_doubt(here),
        f"{many} of the file changed since the last commit, and not by otel-openai-usage (a damaged"
        " disk, or another program)",
    )


def in_doubt(here: Position) -> int:
    """How long a state counts, in seconds; at least 1."""
    return max(1, here.time - (here.began or here.time))


def check_content(db: sqlite3.Connection, path: str, here: Position, found: Examined) -> None:
    """Read all of it. Raises StateCorrupt for what cannot be understood; a total that is not the
    sum of its rows is a loss.
    """
    with translate_errors(path, "read"):
        said = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if said != "ok":
            raise StateCorrupt(f"the state file {path} is damaged ({said}); {ADVICE}")
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'purged'").fetchone():
            return  # of a version whose tables are about to be migrated
        wrong = totals_disagreeing(db, path)
    if wrong:
        found.losses.append(Loss("totals", in_doubt(here), wrong))


def totals_disagreeing(db: sqlite3.Connection, path: str) -> str | None:
    """A sentence on the totals that are not the sum of their rows; None if all are. Raises
    StateCorrupt for values that cannot be understood.
    """
    with translate_errors(path, "read"):
        read_everything(db)
        wrong = disagreements(db)
    if not wrong:
        return None
    some = "; ".join(map(str, wrong[:_NAMED]))
    rest = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    return f"{len(wrong)} totals are not the sum of their rows: {some}{rest}"
