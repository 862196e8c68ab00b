"""Rows of usage and costs (table `readings`), and lower readings that wait for confirmation (table
`suspicions`).

A row belongs to one bucket and one attribute set. Each function runs inside its caller's
transaction.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Amounts, Dims, Width
from otel_openai_usage.domain.reconciliation import Change, PendingDecrease, Row, are_whole
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.storage.sql.database import Database
from otel_openai_usage.storage.sql.series import MAX_PARAMETERS, IdOf
from otel_openai_usage.storage.sql.values import (
    decode_amounts,
    decode_dims,
    encode_amount,
    encode_amounts,
    quoted,
)

_ONE_ROW = "WHERE source_id = ? AND width = ? AND start = ? AND dims = ?"
_KEY_COLUMNS = ("source_id", "width", "start", "dims")
_KEY = ", ".join(_KEY_COLUMNS)
_BUCKETS = "WHERE source_id = ? AND width = ? AND start >= ? AND start < ?"
"""Rows of one width whose bucket begins in [start, end)."""


def measure_columns(endpoint: Endpoint) -> list[str]:
    """The columns of an endpoint's measures, quoted."""
    return [quoted(measure.name) for measure in endpoint.measures]


def rows_between(
    db: Database, source_state: SourceState, widths: Sequence[int], start: int, end: int
) -> list[Row]:
    """The rows of these widths whose bucket begins in [start, end)."""
    endpoint = source_state.endpoint
    money_places = [index for index, measure in enumerate(endpoint.measures) if measure.money]
    columns = ", ".join(measure_columns(endpoint))
    sql = f"SELECT start, dims, {columns} FROM readings {_BUCKETS}"
    found = []
    for width in widths:
        for bucket, id_, *values in db.execute(sql, (source_state.id, width, start, end)):
            dims = source_state.series.by_id[id_].dims
            found.append(Row(width, bucket, dims, _decode_row(values, money_places)))
    return found


def _decode_row(values: list[Any], money_places: Sequence[int]) -> Amounts:
    """The amounts of a selected row. Changes `values`, because this runs for every row."""
    for index, value in enumerate(values):
        if isinstance(value, float):  # SQLite turns a sum beyond 64 bits into a REAL
            values[index] = int(value)
    for index in money_places:
        values[index] = Decimal(values[index])
    return tuple(values)


def rows_at(
    db: Database, source_state: SourceState, width: int, starts: Sequence[int]
) -> list[Row]:
    """The rows of one width whose bucket begins at one of `starts`."""
    endpoint = source_state.endpoint
    money_places = [index for index, measure in enumerate(endpoint.measures) if measure.money]
    columns = ", ".join(measure_columns(endpoint))
    found = []
    for first in range(0, len(starts), MAX_PARAMETERS):
        part = starts[first : first + MAX_PARAMETERS]
        placeholders = ", ".join("?" * len(part))
        sql = (
            f"SELECT start, dims, {columns} FROM readings"
            f" WHERE source_id = ? AND width = ? AND start IN ({placeholders})"
        )
        for bucket, id_, *values in db.execute(sql, (source_state.id, width, *part)):
            dims = source_state.series.by_id[id_].dims
            found.append(Row(width, bucket, dims, _decode_row(values, money_places)))
    return found


def newest_end(db: Database, source: int) -> int:
    """The end of the newest bucket with rows, 0 if there are none."""
    newest = 0
    # Width by width: with the primary key (source, width, start, …) each query is a lookup.
    for width in Width:
        sql = "SELECT max(start) FROM readings WHERE source_id = ? AND width = ?"
        (start,) = db.execute(sql, (source, int(width))).fetchone()
        if start is not None:
            newest = max(newest, start + int(width))
    return newest


def pending_decreases(
    db: Database, source_state: SourceState, width: int, start: int, end: int
) -> dict[tuple[int, int, Dims], PendingDecrease]:
    """The unconfirmed lower readings of buckets that begin in [start, end)."""
    endpoint = source_state.endpoint
    sql = (
        "SELECT suspicions.start, dims.key, suspicions.amounts, suspicions.since"
        " FROM suspicions JOIN dims ON dims.id = suspicions.dims"
        " WHERE suspicions.source_id = ? AND suspicions.width = ?"
        " AND suspicions.start >= ? AND suspicions.start < ?"
    )
    found = {}
    for bucket, key, text, since in db.execute(sql, (source_state.id, width, start, end)):
        dims = decode_dims(key, endpoint)
        amounts = decode_amounts(text, endpoint)
        found[width, bucket, dims] = PendingDecrease(amounts, since)
    return found


def write_change(db: Database, source_state: SourceState, change: Change, id_of: IdOf) -> None:
    """Write the rows that a reading changes, and delete the rows that it drops."""
    columns = measure_columns(source_state.endpoint)
    updates = ", ".join(f"{column} = excluded.{column}" for column in columns)
    # A generator: a first reading has many rows, and a list would hold all of them twice.
    values = (
        _row_values(source_state.id, row.width, row.start, id_of(row.dims), row.amounts)
        for row in change.writes
    )
    conflict = f"ON CONFLICT ({_KEY}) DO UPDATE SET {updates}"
    db.write("readings", (*_KEY_COLUMNS, *columns), values, conflict=conflict)
    dropped = [(source_state.id, width, start, id_of(dims)) for width, start, dims in change.drops]
    db.executemany(f"DELETE FROM readings {_ONE_ROW}", dropped)
    _write_pending_decreases(db, source_state.id, change.pending_decreases, id_of)


def _write_pending_decreases(
    db: Database,
    source: int,
    pending_decreases: Mapping[tuple[int, int, Dims], PendingDecrease | None],
    id_of: IdOf,
) -> None:
    """Replace the unconfirmed lower readings. One of None was confirmed or is obsolete."""
    keys = []
    values = []
    for (width, start, dims), pending in pending_decreases.items():
        key = (source, width, start, id_of(dims))
        keys.append(key)
        if pending:
            values.append((*key, encode_amounts(pending.amounts), pending.since))
    db.executemany(f"DELETE FROM suspicions {_ONE_ROW}", keys)
    db.executemany("INSERT INTO suspicions VALUES (?, ?, ?, ?, ?, ?)", values)


def add_to_hours(
    db: Database,
    source_state: SourceState,
    hours: Mapping[tuple[int, Dims], Amounts],
    id_of: IdOf,
) -> None:
    """Add amounts to the rows of hours, by the hour's start and attribute set."""
    columns = measure_columns(source_state.endpoint)
    updates = ", ".join(f"{column} = readings.{column} + excluded.{column}" for column in columns)
    hour = int(Width.HOUR)
    values = []
    for (start, dims), amounts in hours.items():
        values.append(_row_values(source_state.id, hour, start, id_of(dims), amounts))
    conflict = f"ON CONFLICT ({_KEY}) DO UPDATE SET {updates}"
    db.write("readings", (*_KEY_COLUMNS, *columns), values, conflict=conflict)


def _row_values(
    source: int, width: int, start: int, dims_id: int, amounts: Amounts
) -> tuple[int | str, ...]:
    """A row in the order of `_KEY_COLUMNS` and the measures."""
    if are_whole(amounts):
        return (source, width, start, dims_id, *amounts)  # type: ignore[arg-type]  # all are int
    return (source, width, start, dims_id, *map(encode_amount, amounts))


def downsample(
    db: Database, source: int, endpoint: Endpoint, fine: Width, start: int, end: int
) -> None:
    """Replace the rows of width `fine` in [start, end) by rows of the next wider width.

    Minutes become hours, hours become days. Amounts of usage are added up. Of a level the last
    value stays. No total changes. Both ends must be whole buckets of the wider width.
    """
    wide = int(Width.HOUR if fine is Width.MINUTE else Width.DAY)
    columns = measure_columns(endpoint)
    bucket = f"start / {wide} * {wide}"
    if endpoint.level:
        picked = last_rows(columns, bucket, f"FROM readings {_BUCKETS}")
        updates = [f"{column} = excluded.{column}" for column in columns]
    else:
        summed = [f"{db.whole_sum(column)} AS {column}" for column in columns]
        picked = (
            f"SELECT {bucket} AS bucket, dims, {', '.join(summed)}"
            f" FROM readings {_BUCKETS} GROUP BY 1, 2"
        )
        updates = [f"{column} = readings.{column} + excluded.{column}" for column in columns]
    selected = (source, int(fine), start, end)
    # `WHERE true` tells SQLite's parser that ON belongs to the INSERT, not to a join.
    db.execute(
        f"INSERT INTO readings (source_id, width, start, dims, {', '.join(columns)})"
        f" SELECT {source:d}, {wide}, bucket, dims, {', '.join(columns)}"
        f" FROM ({picked}) picked WHERE true"
        f" ON CONFLICT ({_KEY}) DO UPDATE SET {', '.join(updates)}",
        selected,
    )
    db.execute(f"DELETE FROM readings {_BUCKETS}", selected)


def last_rows(columns: Sequence[str], bucket: str, selected: str) -> str:
    """SQL of (bucket, dims, columns …) from the last of the selected rows of each bucket."""
    names = ", ".join(columns)
    return (
        f"SELECT bucket, dims, {names} FROM (SELECT {bucket} AS bucket, dims, {names},"
        f" row_number() OVER (PARTITION BY {bucket}, dims ORDER BY start DESC) AS place"
        f" {selected}) placed WHERE place = 1"
    )


def compact(db: Database, source_state: SourceState, before: int) -> None:
    """Downsample finished minutes before `before`, from the first whole day of counting on."""
    start = source_state.progress.whole_days_from
    downsample(db, source_state.id, source_state.endpoint, Width.MINUTE, start, before)
