"""What the store does for its history when nothing else is to be done: old rows are made coarser,
older ones let go.

No total moves by it: totals are kept beside the rows. Every function is one small step inside its
caller's transaction.
"""

import sqlite3
from collections.abc import Iterable
from decimal import Decimal

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Width, Window, floor
from otel_openai_usage.domain.pricing import CURRENCY, add
from otel_openai_usage.domain.retention import Retention
from otel_openai_usage.domain.windows import Progress
from otel_openai_usage.storage.sqlite.audit import remember_purged
from otel_openai_usage.storage.sqlite.rows import added_up

_DAY = int(Width.DAY)
_HOUR = int(Width.HOUR)
_PURGED_BEFORE = "purged_before"


def step(
    db: sqlite3.Connection, source: int, endpoint: Endpoint, progress: Progress, keep: Retention
) -> Window | None:
    """Do one small piece of what is to be done for a source: the day whose rows it changed, if any."""
    return _downsample(db, source, endpoint, progress, keep) or _purge(db, source, endpoint, keep)


def purged_before(db: sqlite3.Connection, source: int) -> int:
    """The start of the first day whose rows were not deleted because of their age; 0 if none was."""
    found = db.execute(
        "SELECT value FROM meta WHERE key = ?", (f"{_PURGED_BEFORE}.{source:d}",)
    ).fetchone()
    return int(found[0]) if found else 0


def _downsample(
    db: sqlite3.Connection, source: int, endpoint: Endpoint, progress: Progress, keep: Retention
) -> Window | None:
    """The oldest day of hours becomes days. The day that counting began in stays: half of it does
    not count.
    """
    began = (floor(progress.epoch, _DAY), progress.whole_days_from)
    (oldest,) = db.execute(
        "SELECT min(start) FROM readings WHERE source_id = ? AND width = 3600 AND start < ? AND NOT (start >= ? AND start < ?)",
        (source, keep.hours, *began),
    ).fetchone()
    if oldest is None:
        return None
    day = floor(oldest, _DAY)
    names = [measure.name for measure in endpoint.measures]
    picked = ", ".join(
        f"{name} AS {name}" if endpoint.level else f"{added_up(name)} AS {name}" for name in names
    )
    update = ", ".join(
        f"{name} = excluded.{name}" if endpoint.level else f"{name} = {name} + excluded.{name}"
        for name in names
    )
    last = (
        ", max(start)" if endpoint.level else ", 0"
    )  # of a level SQLite takes the columns of the row that has the maximum
    db.execute(
        f"INSERT INTO readings (source_id, width, start, dims, {', '.join(names)})"
        f" SELECT {source:d}, {_DAY}, {day}, dims, {', '.join(names)} FROM (SELECT dims, {picked}{last}"
        f" FROM readings WHERE source_id = ? AND width = {_HOUR} AND start >= ? AND start < ? GROUP BY dims) WHERE true"
        f" ON CONFLICT DO UPDATE SET {update}",
        (source, day, day + _DAY),
    )
    db.execute(
        f"DELETE FROM readings WHERE source_id = ? AND width = {_HOUR} AND start >= ? AND start < ?",
        (source, day, day + _DAY),
    )
    return Window(day, day + _DAY)


def _purge(
    db: sqlite3.Connection, source: int, endpoint: Endpoint, keep: Retention
) -> Window | None:
    """The oldest day that is older than anybody wants to know. That it went is written down with it."""
    for width in Width:
        (oldest,) = db.execute(
            "SELECT min(start) FROM readings WHERE source_id = ? AND width = ? AND start < ?",
            (source, int(width), keep.days),
        ).fetchone()
        if oldest is not None:
            break
    else:
        return None
    day = floor(oldest, _DAY)
    remember_purged(db, source, endpoint, day, day + _DAY)
    for table in ("readings", "suspicions"):
        for width in Width:
            sql = f"DELETE FROM {table} WHERE source_id = ? AND width = ? AND start >= ? AND start < ?"
            db.execute(sql, (source, int(width), day, day + _DAY))
    db.execute("DELETE FROM estimates WHERE source_id = ? AND day = ?", (source, day))
    boundary = max(day + _DAY, purged_before(db, source))
    db.execute(
        "INSERT OR REPLACE INTO meta VALUES (?, ?)",
        (f"{_PURGED_BEFORE}.{source:d}", str(boundary)),
    )
    return Window(day, day + _DAY)


def spent(
    db: sqlite3.Connection, organization: str, start: int, end: int
) -> dict[int, tuple[Decimal, Decimal]]:
    """Estimated and billed cost in US dollars of the UTC days in [start, end) for which both are
    known, by day.
    """
    estimated = db.execute(
        "SELECT e.day, e.cost FROM estimates e JOIN sources s ON s.id = e.source_id"
        " WHERE s.organization = ? AND s.kind <> 'legacy' AND e.day >= ? AND e.day < ? AND e.day >= s.epoch",
        (organization, start, end),
    )
    billed = db.execute(
        "SELECT r.start, r.cost FROM sources s JOIN readings r ON r.source_id = s.id JOIN dims d ON d.id = r.dims"
        " WHERE s.organization = ? AND s.kind = 'costs' AND r.width = 86400 AND r.start >= ? AND r.start < ? AND d.currency = ?",
        (organization, start, end, CURRENCY),
    )
    one = _by_day(estimated)
    other = _by_day(billed)
    return {day: (one[day], other[day]) for day in sorted(one.keys() & other.keys())}


def _by_day(rows: Iterable[tuple[int, str]]) -> dict[int, Decimal]:
    sums: dict[int, Decimal] = {}
    for day, cost in rows:
        sums[day] = add(sums.get(day, Decimal(0)), Decimal(cost))
    return sums
