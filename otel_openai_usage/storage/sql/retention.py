"""Downsamples old rows and purges older ones, one day for each call.

No total changes: totals are stored beside the rows. Each function runs inside its caller's
transaction.
"""

from collections.abc import Iterable
from decimal import Decimal

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Width, Window, floor
from otel_openai_usage.domain.pricing import CURRENCY, add
from otel_openai_usage.domain.retention import Retention
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.domain.windows import Progress
from otel_openai_usage.storage.sql import notes, rows
from otel_openai_usage.storage.sql.content_check import remember_purged
from otel_openai_usage.storage.sql.database import Database
from otel_openai_usage.storage.sql.sources import purged_before

_DAY = int(Width.DAY)


def apply_retention(db: Database, source_state: SourceState, keep: Retention) -> Window | None:
    """Downsample or purge the oldest day of a source. The day, None if nothing is that old."""
    source = source_state.id
    endpoint = source_state.endpoint
    downsampled = _downsample_hours(db, source, endpoint, source_state.progress, keep)
    return downsampled or _purge(db, source, endpoint, keep)


def _downsample_hours(
    db: Database, source: int, endpoint: Endpoint, progress: Progress, keep: Retention
) -> Window | None:
    """Downsample the oldest day of hours.

    The day in which counting began stays in hours: only a part of it counts.
    """
    sql = (
        "SELECT min(start) FROM readings WHERE source_id = ? AND width = 3600 AND start < ?"
        " AND NOT (start >= ? AND start < ?)"
    )
    first_day = (floor(progress.epoch, _DAY), progress.whole_days_from)
    (oldest,) = db.execute(sql, (source, keep.hours, *first_day)).fetchone()
    if oldest is None:
        return None
    day = floor(oldest, _DAY)
    rows.downsample(db, source, endpoint, Width.HOUR, day, day + _DAY)
    return Window(day, day + _DAY)


def _purge(db: Database, source: int, endpoint: Endpoint, keep: Retention) -> Window | None:
    """Delete the oldest day that is older than the retention, and record that it was deleted."""
    oldest = _oldest_row(db, source, keep.days)
    if oldest is None:
        return None
    day = floor(oldest, _DAY)
    # Before the rows are deleted, because their sums stay part of the totals.
    remember_purged(db, source, endpoint, day, day + _DAY)
    for table in ("readings", "suspicions"):
        sql = f"DELETE FROM {table} WHERE source_id = ? AND width = ? AND start >= ? AND start < ?"
        for width in Width:
            db.execute(sql, (source, int(width), day, day + _DAY))
    db.execute("DELETE FROM estimates WHERE source_id = ? AND day = ?", (source, day))
    # The widths are purged one after the other, so this day may be older than the last one.
    boundary = max(day + _DAY, purged_before(db, source))
    notes.write(db, notes.purged_before_key(source), str(boundary))
    return Window(day, day + _DAY)


def _oldest_row(db: Database, source: int, before: int) -> int | None:
    """The start of a row before `before`, the oldest of its width. None if there is none."""
    sql = "SELECT min(start) FROM readings WHERE source_id = ? AND width = ? AND start < ?"
    # Width by width: with the primary key (source, width, start, …) each query is a lookup.
    for width in Width:
        oldest: int | None = db.execute(sql, (source, int(width), before)).fetchone()[0]
        if oldest is not None:
            return oldest
    return None


def estimated_and_billed(
    db: Database, organization: str, start: int, end: int
) -> dict[int, tuple[Decimal, Decimal]]:
    """Estimated and billed cost in US dollars by UTC day, for the days that have both."""
    estimates = db.execute(
        "SELECT estimates.day, estimates.cost"
        " FROM estimates JOIN sources ON sources.id = estimates.source_id"
        " WHERE sources.organization = ? AND sources.kind NOT IN ('legacy', 'metered')"
        " AND estimates.day >= ? AND estimates.day < ? AND estimates.day >= sources.epoch",
        (organization, start, end),
    )
    bills = db.execute(
        "SELECT readings.start, readings.cost FROM sources"
        " JOIN readings ON readings.source_id = sources.id JOIN dims ON dims.id = readings.dims"
        " WHERE sources.organization = ? AND sources.kind = 'costs' AND readings.width = 86400"
        " AND readings.start >= ? AND readings.start < ? AND dims.currency = ?",
        (organization, start, end, CURRENCY),
    )
    estimated = _sums_by_day(estimates)
    billed = _sums_by_day(bills)
    days = sorted(estimated.keys() & billed.keys())
    return {day: (estimated[day], billed[day]) for day in days}


def _sums_by_day(costs: Iterable[tuple[int, str]]) -> dict[int, Decimal]:
    sums: dict[int, Decimal] = {}
    for day, cost in costs:
        sums[day] = add(sums.get(day, Decimal(0)), Decimal(cost))
    return sums
