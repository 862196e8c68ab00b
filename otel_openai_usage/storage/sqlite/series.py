"""Attribute sets with their totals (table `dims`), and their estimated costs (table `estimates`).

Each function runs inside its caller's transaction.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TypeAlias

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Dims
from otel_openai_usage.domain.pricing import add
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.storage.sqlite.values import (
    decode_amounts,
    decode_dims,
    encode_amounts,
    encode_dims,
    quoted,
)

IdOf: TypeAlias = Callable[[Dims], int]
"""The id of an attribute set of one source."""


def read_series(db: sqlite3.Connection, source: int, endpoint: Endpoint) -> Iterator[StoredSeries]:
    """Yield every series of a source, in the order of creation."""
    sql = (
        "SELECT id, key, total, shown, released, first_seen, changed, estimate, estimate_shown"
        " FROM dims WHERE source_id = ? ORDER BY id"
    )
    for id_, key, total, shown, released, first_seen, changed, *estimates in db.execute(
        sql, (source,)
    ):
        estimate, estimate_shown = map(_decimal, estimates)
        yield StoredSeries(
            id_,
            decode_dims(key, endpoint),
            decode_amounts(total, endpoint),
            decode_amounts(shown, endpoint),
            bool(released),
            first_seen,
            changed,
            estimate,
            estimate_shown,
        )


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def add_series(
    db: sqlite3.Connection, source_state: SourceState, created: Iterable[StoredSeries]
) -> dict[Dims, int]:
    """Store new series. Their ids by attribute set."""
    ids = {}
    endpoint = source_state.endpoint
    dimensions = endpoint.group_by + endpoint.derived
    columns = ", ".join(map(quoted, dimensions))
    placeholders = ", ".join("?" * (9 + len(dimensions)))
    sql = (
        "INSERT INTO dims (source_id, key, total, shown, released, first_seen, changed,"
        f" estimate, estimate_shown, {columns}) VALUES ({placeholders})"
    )
    # One by one, because executemany does not return the ids.
    for series in created:
        values = (
            source_state.id,
            encode_dims(series.dims, endpoint),
            encode_amounts(series.total),
            encode_amounts(series.shown),
            series.released,
            series.first_seen,
            series.changed,
            *_estimates(series),
            *series.dims[: len(dimensions)],
        )
        ids[series.dims] = db.execute(sql, values).lastrowid or 0
    return ids


def id_lookup(source_state: SourceState, created_ids: Mapping[Dims, int]) -> IdOf:
    """The ids of a source's series: those just created and those known before."""

    def id_of(dims: Dims) -> int:
        return created_ids.get(dims) or source_state.series[dims].id

    return id_of


def update_series(db: sqlite3.Connection, updated: Iterable[StoredSeries]) -> None:
    """Store the totals of existing series."""
    sql = (
        "UPDATE dims SET total = ?, shown = ?, changed = ?, estimate = ?, estimate_shown = ?"
        " WHERE id = ?"
    )
    values = []
    for series in updated:
        total = encode_amounts(series.total)
        shown = encode_amounts(series.shown)
        values.append((total, shown, series.changed, *_estimates(series), series.id))
    db.executemany(sql, values)


def mark_released(db: sqlite3.Connection, released: Iterable[StoredSeries]) -> None:
    """These series were exported as 0 first; from now on their totals are exported."""
    ids = [(series.id,) for series in released]
    db.executemany("UPDATE dims SET released = 1 WHERE id = ?", ids)


def _estimates(series: StoredSeries) -> tuple[str | None, str | None]:
    """The columns `estimate` and `estimate_shown`."""
    if series.estimate is None:
        return None, None
    return str(series.estimate), str(series.estimate_shown)


def add_estimates(
    db: sqlite3.Connection,
    source: int,
    id_of: IdOf,
    growth: Mapping[tuple[Dims, int], Decimal],
) -> None:
    """Add estimated costs, by attribute set and UTC day."""
    # Added in Python, because SQLite would add the decimal texts up as floats.
    for (dims, day), amount in growth.items():
        key = (source, id_of(dims), day)
        sql = "SELECT cost FROM estimates WHERE source_id = ? AND dims = ? AND day = ?"
        before = db.execute(sql, key).fetchone()
        cost = add(Decimal(before[0]), amount) if before else amount
        db.execute("INSERT OR REPLACE INTO estimates VALUES (?, ?, ?, ?)", (*key, str(cost)))
