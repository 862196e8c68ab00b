"""SQL that adds up stored rows exactly, for `Queries.usage` and `Queries.costs`."""

from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any

from otel_openai_usage.domain.endpoints import COSTS, Endpoint
from otel_openai_usage.domain.model import Width
from otel_openai_usage.storage.sql.database import Database
from otel_openai_usage.storage.sql.rows import last_rows
from otel_openai_usage.storage.sql.values import quoted

_MONEY = ("cost", "quantity", "estimate")


def sum_columns(endpoint: Endpoint) -> list[str]:
    """The names of the sums that `sums_statement` selects, in their order."""
    measures = [measure.name for measure in endpoint.measures]
    if endpoint is COSTS:
        return measures
    return [*measures, "estimate", "unpriced"]


def parse_sum(name: str, value: Any) -> Any:
    """A selected sum as int or Decimal, None if there is none."""
    if value is None:
        return None
    if name in _MONEY:
        return Decimal(value)
    return int(value)  # from a Decimal, or from a float beyond 64 bits


def sums_statement(
    db: Database, source: int, endpoint: Endpoint, by: Sequence[str], widths: Collection[int]
) -> str:
    """SQL for (day, currency, dimensions …, sums …) of one source.

    Parameters: start and end of the time range.
    """
    picks = ["sums.day", f"coalesce({_dimension(endpoint, 'currency')}, '')"]
    picks += [_dimension(endpoint, name) for name in by]
    picks += [_sum(db, measure.name, "sums.") for measure in endpoint.measures]
    join = ""
    if endpoint is not COSTS:
        picks += [db.decimal_sum("priced.cost"), _unpriced_tokens(db, endpoint)]
        # LEFT, because a series without a known price has no estimate.
        join = (
            " LEFT JOIN estimates priced"
            f" ON priced.source_id = {source:d} AND priced.dims = sums.dims AND priced.day = sums.day"
        )
    group_by = ", ".join(str(index + 1) for index in range(len(by) + 2))
    return (
        f"SELECT {', '.join(picks)} FROM ({_sums_by_series(db, source, endpoint, widths)}) sums"
        f" JOIN dims ON dims.id = sums.dims{join} GROUP BY {group_by}"
    )


def _sums_by_series(db: Database, source: int, endpoint: Endpoint, widths: Collection[int]) -> str:
    """SQL for (attribute set, day, sums …) of one source."""
    names = [measure.name for measure in endpoint.measures]
    day = f"start / {Width.DAY:d} * {Width.DAY:d}"
    width_list = ", ".join(str(int(width)) for width in widths)
    selected = (
        f"FROM readings WHERE source_id = {source:d} AND width IN ({width_list})"
        " AND start >= ? AND start < ?"
    )
    if endpoint.level:
        columns = [quoted(name) for name in names]
        last = last_rows(columns, day, selected)
        return f"SELECT dims, bucket AS day, {', '.join(columns)} FROM ({last}) levels"
    sums = [f"{_sum(db, name)} AS {quoted(name)}" for name in names]
    return f"SELECT dims, {day} AS day, {', '.join(sums)} {selected} GROUP BY 1, 2"


def _dimension(endpoint: Endpoint, name: str) -> str:
    """SQL of one dimension of an attribute set, NULL if the endpoint does not have it."""
    if name == "key" or name in endpoint.dimensions:
        return f"dims.{quoted(name)}"
    return "CAST(NULL AS TEXT)"


def _sum(db: Database, name: str, table: str = "") -> str:
    """SQL of the exact sum of a measure."""
    column = table + quoted(name)
    return db.decimal_sum(column) if name in _MONEY else db.whole_sum(column)


def _unpriced_tokens(db: Database, endpoint: Endpoint) -> str:
    """SQL of the tokens without an estimated cost."""
    names = {measure.name for measure in endpoint.measures}
    token_columns = [f"sums.{quoted(name)}" for name in ("input", "output") if name in names]
    tokens = " + ".join(token_columns) or "0"
    return db.whole_sum(f"(CASE WHEN priced.cost IS NULL THEN {tokens} ELSE 0 END)")
