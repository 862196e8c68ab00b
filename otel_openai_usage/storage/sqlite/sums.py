"""SQL that adds up stored rows exactly, for `Queries.usage` and `Queries.costs`."""

import sqlite3
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any

from otel_openai_usage.domain.endpoints import COSTS, Endpoint
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Width
from otel_openai_usage.domain.pricing import add
from otel_openai_usage.storage.sqlite.values import quoted, sum_of

_MONEY = ("cost", "quantity", "estimate")


def add_aggregates(db: sqlite3.Connection) -> None:
    """Register the SQL functions that `sums_statement` uses."""
    db.create_aggregate("decimal_sum", 1, _DecimalSum)  # type: ignore[arg-type]  # typeshed expects an int sum


class _DecimalSum:
    """The SQL aggregate `decimal_sum`: the exact sum of decimal text. NULL if there is none."""

    def __init__(self) -> None:
        self._sum: Decimal | None = None

    def step(self, text: Any, /) -> None:
        if text is None:
            return
        amount = Decimal(text)
        self._sum = amount if self._sum is None else add(self._sum, amount)

    def finalize(self) -> str | None:
        return None if self._sum is None else str(self._sum)


def sum_columns(endpoint: Endpoint) -> list[str]:
    """The names of the sums that `sums_statement` selects, in their order."""
    measures = [measure.name for measure in endpoint.measures]
    if endpoint is COSTS:
        return measures
    return [*measures, "estimate", "unpriced"]


def parse_sum(name: str, value: Any) -> Any:
    """A selected sum as int or Decimal, None if there is none."""
    if isinstance(value, float):  # `sum_of` turns a sum beyond 64 bits into a float
        return int(value)
    if name in _MONEY and value is not None:
        return Decimal(value)
    return value


def sums_statement(endpoint: Endpoint, by: Sequence[str], widths: Collection[int]) -> str:
    """SQL for (day, currency, dimensions …, sums …) of one source.

    Parameters: ?1 is the source, ?2 and ?3 are start and end of the time range.
    """
    picks = ["sums.day", f"coalesce({_dimension(endpoint, 'currency')}, '')"]
    picks += [_dimension(endpoint, name) for name in by]
    picks += [_sum(measure.name, "sums.") for measure in endpoint.measures]
    # Estimates belong to polled usage only: events and costs have none.
    join = ""
    if endpoint is METERED:
        picks += ["NULL", "0"]
    elif endpoint is not COSTS:
        picks += ["decimal_sum(priced.cost)", _unpriced_tokens(endpoint)]
        # LEFT, because a series without a known price has no estimate.
        join = (
            " LEFT JOIN estimates priced"
            " ON priced.source_id = ?1 AND priced.dims = sums.dims AND priced.day = sums.day"
        )
    group_by = ", ".join(str(index + 1) for index in range(len(by) + 2))
    return (
        f"SELECT {', '.join(picks)} FROM ({_sums_by_series(endpoint, widths)}) sums"
        f" JOIN dims ON dims.id = sums.dims{join} GROUP BY {group_by}"
    )


def _sums_by_series(endpoint: Endpoint, widths: Collection[int]) -> str:
    """SQL for (attribute set, day, sums …) of one source."""
    names = [measure.name for measure in endpoint.measures]
    columns = [f"{_sum(name)} AS {quoted(name)}" for name in names]
    if endpoint.level:
        # SQLite takes the bare columns from the row that has the maximum: here the last level.
        columns = [*map(quoted, names), "max(start)"]
    day = f"start / {Width.DAY:d} * {Width.DAY:d}"
    width_list = ", ".join(str(int(width)) for width in widths)
    return (
        f"SELECT dims, {day} AS day, {', '.join(columns)} FROM readings"
        f" WHERE source_id = ?1 AND width IN ({width_list}) AND start >= ?2 AND start < ?3"
        " GROUP BY 1, 2"
    )


def _dimension(endpoint: Endpoint, name: str) -> str:
    """SQL of one dimension of an attribute set, NULL if the endpoint does not have it."""
    if name == "key" or name in endpoint.dimensions:
        return f"dims.{quoted(name)}"
    return "NULL"


def _sum(name: str, table: str = "") -> str:
    """SQL of the exact sum of a measure."""
    column = table + quoted(name)
    return f"decimal_sum({column})" if name in _MONEY else sum_of(column)


def _unpriced_tokens(endpoint: Endpoint) -> str:
    """SQL of the tokens without an estimated cost."""
    names = {measure.name for measure in endpoint.measures}
    token_columns = [f"sums.{quoted(name)}" for name in ("input", "output") if name in names]
    tokens = " + ".join(token_columns) or "0"
    return sum_of(f"iif(priced.cost IS NULL, {tokens}, 0)")
