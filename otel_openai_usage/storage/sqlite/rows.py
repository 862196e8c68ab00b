"""Rows and leaves to SQL and back. Every function runs inside its caller's transaction."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Amount, Amounts, Dims, Width
from otel_openai_usage.domain.pricing import add
from otel_openai_usage.domain.reconciliation import Change, Row
from otel_openai_usage.domain.source_state import SourceState, StoredSeries


def key(dims: Dims, endpoint: Endpoint) -> str:
    """What identifies an attribute set in the file: its dimensions by name, so that an endpoint may gain
    one later.
    """
    return json.dumps(
        {
            name: value
            for name, value in zip(endpoint.dimensions, dims, strict=True)
            if value is not None
        },
        sort_keys=True,
    )


def dims(text: str, endpoint: Endpoint) -> Dims:
    """The reverse of `key`."""
    values = json.loads(text)
    return tuple(values.get(name) for name in endpoint.dimensions)


def _text(amounts: Amounts) -> str:
    return json.dumps([amount if isinstance(amount, int) else str(amount) for amount in amounts])


def amounts(text: str, endpoint: Endpoint) -> Amounts:
    """The reverse of `_text`: money comes back as the Decimal that it was."""
    return tuple(
        Decimal(value) if measure.money else value
        for measure, value in zip(endpoint.measures, json.loads(text), strict=True)
    )


def amount(text: str) -> Amount:
    """The reverse of `str`: what is whole comes back as a whole number."""
    return int(text) if text.isdigit() else Decimal(text)


def stored_series_list(
    db: sqlite3.Connection, source: int, endpoint: Endpoint
) -> Iterator[StoredSeries]:
    """Every leaf of a source."""
    for id_, key, total, shown, released, first_seen, changed, *estimated in db.execute(
        "SELECT id, key, total, shown, released, first_seen, changed, estimate, estimate_shown FROM dims WHERE source_id = ? ORDER BY id",
        (source,),
    ):
        estimates = [Decimal(text) if text is not None else None for text in estimated]
        yield StoredSeries(
            id_,
            dims(key, endpoint),
            amounts(total, endpoint),
            amounts(shown, endpoint),
            bool(released),
            first_seen,
            changed,
            *estimates,
        )


def groupings(db: sqlite3.Connection, source: int) -> list[tuple[int, tuple[str, ...]]]:
    """The groupings of a source, each with the time from which it applies."""
    found = db.execute(
        "SELECT start, group_by FROM groupings WHERE source_id = ? ORDER BY start", (source,)
    )
    return [(start, tuple(text.split(",")) if text else ()) for start, text in found]


def add_series(
    db: sqlite3.Connection, source_state: SourceState, new: Iterable[StoredSeries]
) -> dict[Dims, int]:
    """Store new series. Return their ids by attribute set."""
    ids = {}
    names = source_state.endpoint.group_by + source_state.endpoint.derived
    sql = (
        f"INSERT INTO dims (source_id, key, total, shown, released, first_seen, changed, estimate, estimate_shown, {', '.join(names)})"
        f" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, {', '.join('?' * len(names))})"
    )
    for stored_series in new:
        values = (
            source_state.id,
            key(stored_series.dims, source_state.endpoint),
            _text(stored_series.total),
            _text(stored_series.shown),
            stored_series.released,
            stored_series.first_seen,
            stored_series.changed,
        )
        columns = stored_series.dims[: len(names)]
        inserted = db.execute(sql, (*values, *_estimated(stored_series), *columns))
        ids[stored_series.dims] = inserted.lastrowid or 0
    return ids


def update_series(db: sqlite3.Connection, moved: Iterable[StoredSeries]) -> None:
    """Store the totals of leaves that exist."""
    db.executemany(
        "UPDATE dims SET total = ?, shown = ?, changed = ?, estimate = ?, estimate_shown = ? WHERE id = ?",
        [
            (
                _text(stored_series.total),
                _text(stored_series.shown),
                stored_series.changed,
                *_estimated(stored_series),
                stored_series.id,
            )
            for stored_series in moved
        ],
    )


def _estimated(stored_series: StoredSeries) -> tuple[str | None, str | None]:
    return (
        (None, None)
        if stored_series.estimate is None
        else (str(stored_series.estimate), str(stored_series.estimate_shown))
    )


def add_estimates(
    db: sqlite3.Connection,
    source_state: SourceState,
    growth: Mapping[tuple[Dims, int], Decimal],
    new: Mapping[Dims, int],
) -> None:
    """Let the estimated cost of leaves grow, by UTC day; `new` as for `write`."""
    for (dims, day), amount in growth.items():
        place = (source_state.id, new.get(dims) or source_state.series[dims].id, day)
        held = db.execute(
            "SELECT cost FROM estimates WHERE source_id = ? AND dims = ? AND day = ?", place
        ).fetchone()
        cost = add(Decimal(held[0]), amount) if held else amount
        db.execute("INSERT OR REPLACE INTO estimates VALUES (?, ?, ?, ?)", (*place, str(cost)))


def between(
    db: sqlite3.Connection, source_state: SourceState, widths: Sequence[int], start: int, end: int
) -> list[Row]:
    """Rows of these widths whose bucket begins in [start, end)."""
    measures = source_state.endpoint.measures
    columns = ", ".join(measure.name for measure in measures)
    money = [index for index, measure in enumerate(measures) if measure.money]
    found = []
    for width in widths:
        sql = f"SELECT start, dims, {columns} FROM readings WHERE source_id = ? AND width = ? AND start >= ? AND start < ?"
        for begin, id_, *values in db.execute(sql, (source_state.id, width, start, end)):
            for index, value in enumerate(values):
                if isinstance(value, float):  # a sum beyond 64 bits, see `added_up`
                    values[index] = int(value)
            for index in money:
                values[index] = Decimal(values[index])
            found.append(Row(width, begin, source_state.series.by_id[id_].dims, tuple(values)))
    return found


def newest_end(db: sqlite3.Connection, source: int) -> int:
    """The end of the newest bucket with rows, Unix seconds; 0 if there are none."""
    found = [
        db.execute(
            "SELECT max(start) + ? FROM readings WHERE source_id = ? AND width = ?",
            (int(width), source, int(width)),
        ).fetchone()[0]
        for width in Width
    ]
    return max(end or 0 for end in found)


def write(
    db: sqlite3.Connection, source_state: SourceState, change: Change, new: Mapping[Dims, int]
) -> None:
    """Store what a change writes, drops and suspects. `new` has the ids of leaves that the book
    does not know yet.
    """

    def id_(dims: Dims) -> int:
        return new.get(dims) or source_state.series[dims].id

    measures = [measure.name for measure in source_state.endpoint.measures]
    db.executemany(
        f"INSERT INTO readings (source_id, width, start, dims, {', '.join(measures)}) VALUES (?, ?, ?, ?, {', '.join('?' * len(measures))})"
        f" ON CONFLICT DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in measures)}",
        (
            (source_state.id, row.width, row.start, id_(row.dims), *map(_column, row.amounts))
            for row in change.writes
        ),
    )
    where = "WHERE source_id = ? AND width = ? AND start = ? AND dims = ?"
    db.executemany(
        f"DELETE FROM readings {where}",
        ((source_state.id, width, start, id_(dims)) for width, start, dims in change.drops),
    )
    for (width, start, dims), pending_decrease in change.pending_decreases.items():
        db.execute(f"DELETE FROM suspicions {where}", (source_state.id, width, start, id_(dims)))
        if pending_decrease:
            values = (
                source_state.id,
                width,
                start,
                id_(dims),
                _text(pending_decrease.amounts),
                pending_decrease.since,
            )
            db.execute("INSERT INTO suspicions VALUES (?, ?, ?, ?, ?, ?)", values)


def _column(amount: Amount) -> int | str:
    return amount if isinstance(amount, int) else str(amount)


def added_up(column: str) -> str:
    """SQL of the sum of a column of whole numbers. Beyond 64 bits it becomes a REAL, where `sum`
    itself would raise an error and leave the rows as they are for ever.
    """
    return f"(sum({column} >> 32) * 4294967296 + sum({column} & 4294967295))"


def compact(db: sqlite3.Connection, source_state: SourceState, before: int) -> None:
    """Let minutes that begin before `before` become hours, from the first whole day of the count
    on.

    A flow's minutes are added up; of a level the last one stays. No total moves.
    """
    span = (source_state.id, source_state.progress.whole_days_from, before)
    columns = [measure.name for measure in source_state.endpoint.measures]
    picked = (
        ", ".join(columns)
        if source_state.endpoint.level
        else ", ".join(added_up(name) for name in columns)
    )
    update = ", ".join(
        f"{name} = excluded.{name}"
        if source_state.endpoint.level
        else f"{name} = {name} + excluded.{name}"
        for name in columns
    )
    db.execute(
        f"INSERT INTO readings (source_id, width, start, dims, {', '.join(columns)})"
        f" SELECT ?, {int(Width.HOUR)}, start / 3600 * 3600, dims, {picked} FROM"
        f" (SELECT *, max(start) OVER (PARTITION BY start / 3600, dims) AS last FROM readings"
        f" WHERE source_id = ? AND width = {int(Width.MINUTE)}"
        f" AND start >= ? AND start < ?) {'WHERE start = last' if source_state.endpoint.level else ''} GROUP BY start / 3600, dims"
        f" ON CONFLICT DO UPDATE SET {update}",
        (source_state.id, *span),
    )
    db.execute(
        f"DELETE FROM readings WHERE source_id = ? AND width = {int(Width.MINUTE)} AND start >= ? AND start < ?",
        span,
    )
