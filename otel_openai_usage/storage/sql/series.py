"""Attribute sets with their totals (table `dims`), and their estimated costs (table `estimates`).

Each function runs inside its caller's transaction.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Dims
from otel_openai_usage.domain.pricing import add
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.storage.sql.database import Database
from otel_openai_usage.storage.sql.values import (
    decode_amounts,
    decode_dims,
    encode_amounts,
    encode_dims,
    quoted,
)

MAX_PARAMETERS = 500
"""Values in one IN (…), so that a statement stays short."""

IdOf: TypeAlias = Callable[[Dims], int]
"""The id of an attribute set of one source."""


def read_series(db: Database, source: int, endpoint: Endpoint) -> Iterator[StoredSeries]:
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


def _decimal(text: str | Decimal | None) -> Decimal | None:
    return None if text is None else Decimal(text)


_COLUMNS = (
    "source_id", "key", "total", "shown", "released", "first_seen", "changed", "estimate", "estimate_shown",
)  # fmt: skip


def add_series(
    db: Database, source_state: SourceState, created: Sequence[StoredSeries]
) -> dict[Dims, int]:
    """Store new series. Their ids by attribute set."""
    endpoint = source_state.endpoint
    dimensions = endpoint.group_by + endpoint.derived
    columns = (*_COLUMNS, *map(quoted, dimensions))
    values = [
        (
            source_state.id,
            encode_dims(series.dims, endpoint),
            *_totals(series),
            int(series.released),
            series.first_seen,
            series.changed,
            *_estimates(series),
            *series.dims[: len(dimensions)],
        )
        for series in created
    ]
    ids_by_key = db.insert("dims", columns, values)
    return {series.dims: ids_by_key[encode_dims(series.dims, endpoint)] for series in created}


def id_lookup(source_state: SourceState, created_ids: Mapping[Dims, int]) -> IdOf:
    """The ids of a source's series: those just created and those known before."""

    def id_of(dims: Dims) -> int:
        return created_ids.get(dims) or source_state.series[dims].id

    return id_of


def update_series(db: Database, updated: Iterable[StoredSeries]) -> None:
    """Store the totals of existing series."""
    values = [
        (*_totals(series), series.changed, *_estimates(series), series.id) for series in updated
    ]
    columns = ("total", "shown", "changed", "estimate", "estimate_shown")
    db.update("dims", columns, values)


def mark_released(db: Database, released: Iterable[StoredSeries]) -> None:
    """These series were exported as 0 first; from now on their totals are exported."""
    db.update("dims", ["released"], [(1, series.id) for series in released])


def _totals(series: StoredSeries) -> tuple[str, str]:
    """The columns `total` and `shown`. Nearly always both are one tuple."""
    total = encode_amounts(series.total)
    return total, total if series.shown is series.total else encode_amounts(series.shown)


def _estimates(series: StoredSeries) -> tuple[str | None, str | None]:
    """The columns `estimate` and `estimate_shown`."""
    if series.estimate is None:
        return None, None
    return str(series.estimate), str(series.estimate_shown)


def add_estimates(
    db: Database,
    source: int,
    id_of: IdOf,
    growth: Mapping[tuple[Dims, int], Decimal],
) -> None:
    """Add estimated costs, by attribute set and UTC day."""
    # Added in Python, because SQLite would add the decimal texts up as floats.
    costs: dict[tuple[int, int], Decimal] = {}
    for (dims, day), amount in growth.items():
        costs[id_of(dims), day] = amount
    for (series_id, day), before in _stored_estimates(db, source, costs):
        costs[series_id, day] = add(before, costs[series_id, day])
    values = [(source, series_id, day, str(cost)) for (series_id, day), cost in costs.items()]
    conflict = "ON CONFLICT (source_id, dims, day) DO UPDATE SET cost = excluded.cost"
    db.write("estimates", ("source_id", "dims", "day", "cost"), values, conflict=conflict)


def _stored_estimates(
    db: Database, source: int, keys: Iterable[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Decimal]]:
    """Yield series and day with their stored estimate, for those of `keys` that have one."""
    by_day: dict[int, list[int]] = {}
    for series_id, day in keys:
        by_day.setdefault(day, []).append(series_id)
    for day, series_ids in by_day.items():
        for first in range(0, len(series_ids), MAX_PARAMETERS):
            part = series_ids[first : first + MAX_PARAMETERS]
            placeholders = ", ".join("?" * len(part))
            sql = (
                "SELECT dims, cost FROM estimates"
                f" WHERE source_id = ? AND day = ? AND dims IN ({placeholders})"
            )
            for series_id, cost in db.execute(sql, (source, day, *part)).fetchall():
                yield (series_id, day), Decimal(cost)
