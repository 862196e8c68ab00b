"""Checks a state when it is opened: is it as new as its marker, and unchanged since?"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from otel_openai_usage.storage.sql import notes
from otel_openai_usage.storage.sqlite.connection import StateConnection
from otel_openai_usage.storage.sqlite.errors import translate_errors
from otel_openai_usage.storage.sqlite.integrity import require_sound, totals_disagreeing
from otel_openai_usage.storage.sqlite.losses import Loss
from otel_openai_usage.storage.sqlite.marker import Marker
from otel_openai_usage.storage.sqlite.page_checksums import LogScanner, PageSums, main_file_sums


@dataclass(frozen=True, slots=True)
class Position:
    """How far a state is: its instance, its newest commit, and when that commit was made.

    `began` is when counting began, None if it did not. Times are Unix seconds.
    """

    instance: str | None
    number: int
    time: int
    began: int | None


@dataclass(slots=True)
class CheckResult:
    """The result of a check.

    `sums` are the checksums of the main file. `notes` are (log event, sentence) pairs: unusual, but
    no loss.
    """

    sums: PageSums
    losses: list[Loss] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


def position(db: StateConnection) -> Position:
    """The position of the state in `db`; an older version has commit 0. Raises sqlite3.Error."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "meta" not in tables or "sources" not in tables:
        return Position(None, 0, 0, None)
    (began,) = db.execute("SELECT min(epoch) FROM sources WHERE epoch > 0").fetchone()
    number = 0
    time = 0
    if "commits" in tables:
        number, time = db.execute("SELECT number, time FROM commits").fetchone() or (0, 0)
    if not time:
        (time,) = db.execute("SELECT coalesce(max(last_success), 0) FROM sources").fetchone()
    if began is not None:
        int(began)  # raises an error for a damaged value
    return Position(notes.read(db, notes.INSTANCE_ID), int(number), int(time), began)


def older(here: Position, marker: Marker) -> Loss | None:
    """What the state lacks according to its marker, None if nothing."""
    last_commit = f"the last commit here was number {marker.number} at {at(marker.time)}"
    if here.instance is None and not here.number:
        lost = marker.time - (marker.began or marker.time)
        details = f"the state is empty, but {last_commit}: all that was counted before is missing"
        return Loss("missing", max(1, lost), details)
    lost = max(1, marker.time - here.time)
    if here.instance != marker.instance:
        details = f"this is another state than the one that was used here: {last_commit}"
        return Loss("other", lost, details)
    if here.number < marker.number:
        details = f"the state is of commit {here.number} at {at(here.time)}, but {last_commit}"
        return Loss("older", lost, details)
    return None


def at(time: int) -> str:
    """A time as text for a sentence."""
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{time} s"


def check_new(descriptor: int, marker: Marker | None) -> CheckResult:
    """Check a state file that is empty: if it has a marker, a state is missing."""
    result = CheckResult(main_file_sums(descriptor))
    loss = older(Position(None, 0, 0, None), marker) if marker else None
    if loss:
        result.losses.append(loss)
    return result


def check(
    db: StateConnection,
    path: str,
    descriptor: int,
    marker: Marker | None,
    marker_error: str | None,
) -> CheckResult:
    """Compare a state with its marker, before anything is written into it.

    `marker_error` says why an existing marker cannot be read. The log is written back first, so
    that every page is in one file. Raises StateCorrupt if the state cannot be used.
    """
    with translate_errors(path, "read"):
        here = position(db)
        pages_in_log = _pages_in_log(path)
        _, frames, written = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    result = CheckResult(main_file_sums(descriptor))
    is_complete = frames == written
    if not is_complete:
        # Another process reads the state, so some pages are only in the log.
        for page, checksum in pages_in_log.items():
            result.sums.set(page, checksum)
    # A state without commits is of a version that had no marker.
    if marker is None:
        if here.number:
            result.notes.append(_without_marker(path, here, marker_error))
        _check_content(db, path, here, result)
        return result
    loss = older(here, marker)
    if loss:
        result.losses.append(loss)
    expected = marker.sums_at(here.number) if here.instance == marker.instance else None
    if expected is None or not is_complete:
        _check_content(db, path, here, result)
        return result
    differing = expected.differing(result.sums)
    _check_pages(db, path, here, marker, differing, pages_in_log, result)
    return result


def _check_pages(
    db: StateConnection,
    path: str,
    here: Position,
    marker: Marker,
    differing: list[int],
    pages_in_log: Collection[int],
    result: CheckResult,
) -> None:
    """Add what it means that these pages differ from the marker."""
    marker_is_behind = here.number > marker.number
    if marker_is_behind:
        # The process was killed before it added its last commits to the marker. Their pages are in
        # the log, which has checksums of its own.
        differing = [page for page in differing if page not in pages_in_log]
    if not differing:
        return
    _check_content(db, path, here, result)
    totals_are_wrong = any(loss.reason == "totals" for loss in result.losses)
    if marker_is_behind:
        result.notes.append(_marker_behind(here, marker))
    elif not totals_are_wrong:
        result.losses.append(_changed_pages(here, differing))


def _check_content(db: StateConnection, path: str, here: Position, result: CheckResult) -> None:
    """Read everything. A total that is not the sum of its rows is a loss.

    Raises StateCorrupt for what cannot be decoded.
    """
    require_sound(db, path)
    with translate_errors(path, "read"):
        sql = "SELECT 1 FROM sqlite_master WHERE name = 'purged'"
        has_current_tables = db.execute(sql).fetchone() is not None
    if not has_current_tables:
        return  # the state is about to be migrated
    details = totals_disagreeing(db, path)
    if details:
        result.losses.append(Loss("totals", _counting_seconds(here), details))


def _counting_seconds(here: Position) -> int:
    """How long the state has been counting, at least 1."""
    return max(1, here.time - (here.began or here.time))


def _pages_in_log(path: str) -> dict[int, int]:
    """The checksums of the pages that the log contains, by page number."""
    scanner = LogScanner(f"{path}-wal")
    try:
        checksums, _ = scanner.new_pages()
        return checksums
    finally:
        scanner.close()


def _without_marker(path: str, here: Position, marker_error: str | None) -> tuple[str, str]:
    why = marker_error or "there is none"
    sentence = (
        f"the marker {path}.marker cannot be compared with the state ({why}), so nobody can tell"
        f" whether commit {here.number} at {at(here.time)} was the newest"
    )
    return ("state_marker_missing", sentence)


def _marker_behind(here: Position, marker: Marker) -> tuple[str, str]:
    sentence = (
        f"the marker is of commit {marker.number}, the state of commit {here.number};"
        " the whole state was checked instead"
    )
    return ("state_marker_behind", sentence)


def _changed_pages(here: Position, pages: list[int]) -> Loss:
    count = f"{len(pages)} pages" if len(pages) > 1 else "a page"
    details = (
        f"{count} of the file changed since the last commit, and not by otel-openai-usage (a damaged"
        " disk, or another program)"
    )
    return Loss("pages", _counting_seconds(here), details)
