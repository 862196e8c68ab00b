"""What was used and spent, by day and by any dimension. Reads only; the exporter may be writing
meanwhile.

    with history(path) as past:
        past.usage(start, end, by=("model", "project_id"))
        past.costs(start, end, by=("project_id", "line_item"))

Times are Unix seconds, whole hours or UTC days. Sums are exact; money is Decimal.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias

from otel_openai_usage.domain.endpoints import COSTS, LEGACY, STORED, Endpoint
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Names, Width
from otel_openai_usage.domain.pricing import add
from otel_openai_usage.storage.sqlite.file import open_read_only, translate_errors
from otel_openai_usage.storage.sqlite.rows import added_up
from otel_openai_usage.storage.sqlite.units import note_key, parsed

Record: TypeAlias = Literal["usage", "legacy_usage", "metered", "vector_store"]
"""Whose word it is: organization usage, the legacy source, applications' events; and levels, that
are no usage. Never added.
"""

_Key: TypeAlias = tuple[int, tuple[str | None, ...]]
_MONEY = ("cost", "quantity", "estimate")
_ENDPOINTS = {**STORED, METERED.name: METERED}

USAGE_DIMENSIONS = (
    "organization", "operation", "project_id", "api_key_id", "user_id", "model", "batch", "service_tier", "organization_id",
    "organization_name", "size", "source", "vector_store_id", "context_level", "api_source", "subject", "type", "estimated", "key",
)  # fmt: skip
"""What usage can be grouped by. `key` is all of an attribute set as JSON, with the attributes of
events of one's own.
"""
COST_DIMENSIONS = ("organization", "project_id", "line_item", "api_key_id", "user_id", "api_source")
"""What costs can be grouped by."""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one group used on one UTC day, which begins at `start`. `group` has the values of `by`,
    in its order.

    `input_*` and `output_audio` are parts of `input` and `output`. `estimate` is the estimated cost
    in US dollars, None if nothing was priced; `unpriced` are the tokens that have no price, and so
    are missing in it. Of an operation that does not count requests (file searches, sessions)
    `requests` is 0. Only events tell of `reasoning`, a part of `output`. `bytes` is a level: the
    last that was said.
    """

    start: int
    group: tuple[str | None, ...]
    requests: int = 0
    input: int = 0
    output: int = 0
    input_cached: int = 0
    input_audio: int = 0
    output_audio: int = 0
    input_cache_write: int = 0
    images: int = 0
    characters: int = 0
    audio: int = 0
    sessions: int = 0
    searches: int = 0
    reasoning: int = 0
    bytes: int = 0
    estimate: Decimal | None = None
    unpriced: int = 0


_USED = frozenset(field.name for field in fields(UsageRow))
"""The numbers that `Used` has. One that only a newer endpoint has is left out of the history."""


@dataclass(frozen=True, slots=True)
class CostRow:
    """What OpenAI billed one group on one day. `quantity` is as OpenAI counts the line item, None
    where it says nothing.
    """

    start: int
    group: tuple[str | None, ...]
    currency: str
    cost: Decimal
    quantity: Decimal | None = None


@dataclass(frozen=True, slots=True)
class StoredSource:
    """A source in the store. OpenAI does not always say the organization's id."""

    organization: str
    endpoint: Endpoint
    organization_id: str | None
    id: int


class History:
    """Made by `history`. Every method raises StateError."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path

    def origins(self) -> list[StoredSource]:
        """Every source in the store: what there is to ask for."""
        sql = "SELECT organization, kind, organization_id, id FROM sources ORDER BY id"
        return [
            StoredSource(organization, _ENDPOINTS[endpoint], *rest)
            for organization, endpoint, *rest in self._rows(sql)
            if endpoint in _ENDPOINTS
        ]

    def span(self) -> tuple[int, int] | None:
        """When the first and the last of all rows begin; None without any."""
        of = "FROM readings WHERE source_id = ?1 AND width = ?2"
        # SQLite looks one of them up, but scans for both at once
        sql = f"SELECT (SELECT min(start) {of}), (SELECT max(start) {of})"
        ends = [
            end
            for origin in self.origins()
            for width in Width
            for end in self._rows(sql, origin.id, int(width))[0]
            if end is not None
        ]
        return (min(ends), max(ends)) if ends else None

    def usage(
        self,
        start: int,
        end: int,
        *,
        by: Sequence[str] = (),
        record: Record = "usage",
        widths: Collection[int] = tuple(Width),
    ) -> list[UsageRow]:
        """What was used in [start, end), one row for each UTC day and group that used anything, in
        order of time.

        `by` is of `USAGE_DIMENSIONS`. Less than a day may be asked for, but the estimate is that of
        the whole day. `widths` are those of the rows that are looked at: what is kept by the day
        only is of no hour.
        """
        found: dict[_Key, dict[str, Any]] = {}
        for origin in self.origins():
            if _record(origin.endpoint) == record:
                for key, _, values in self._grouped(origin, start, end, by, widths):
                    into = found.setdefault(key, {})
                    for name, value in values.items():
                        if value is not None:
                            into[name] = _sum(into[name], value) if name in into else value
        rows = [
            UsageRow(*key, **{name: values[name] for name in values if name in _USED})
            for key, values in found.items()
        ]
        return sorted(rows, key=lambda row: (row.start, tuple(value or "" for value in row.group)))

    def costs(self, start: int, end: int, *, by: Sequence[str] = ()) -> list[CostRow]:
        """What OpenAI billed for the UTC days in [start, end), one row for each day, group and
        currency, in order of time.

        `by` is of `COST_DIMENSIONS`.
        """
        found: dict[tuple[int, tuple[str | None, ...], str], list[Decimal | None]] = {}
        for origin in self.origins():
            if origin.endpoint is COSTS:
                for key, currency, values in self._grouped(origin, start, end, by):
                    into = found.setdefault((*key, currency), [Decimal(0), None])
                    into[0] = add(into[0] or Decimal(0), values["cost"])
                    if values["quantity"]:  # 0 is how the store keeps what OpenAI did not say
                        into[1] = add(into[1] or Decimal(0), values["quantity"])
        rows = [
            CostRow(at, group, currency, cost or Decimal(0), quantity)
            for (at, group, currency), (cost, quantity) in found.items()
        ]
        return sorted(rows, key=lambda row: (row.start, tuple(value or "" for value in row.group)))

    def quantity_units(self) -> dict[tuple[str, str], set[str]]:
        """The units in which OpenAI counts line items, by organization and line item."""
        found: dict[tuple[str, str], set[str]] = {}
        for organization in {origin.organization for origin in self.origins()}:
            for (text,) in self._rows(
                "SELECT value FROM meta WHERE key = ?", note_key(organization)
            ):
                for item, units in parsed(text).items():
                    found[organization, item] = units
        return found

    def names(self, organization: str) -> Names:
        """Names of projects, API keys and users."""
        found: dict[str, dict[str, str | None]] = {"project": {}, "api_key": {}, "user": {}}
        for what, id_, name in self._rows(
            "SELECT what, id, name FROM names WHERE organization = ?", organization
        ):
            found[what][id_] = name
        return Names(found["project"], found["api_key"], found["user"])

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with translate_errors(str(self._path), "read"):
            return self._db.execute(sql, values).fetchall()

    def _grouped(
        self,
        origin: StoredSource,
        start: int,
        end: int,
        by: Sequence[str],
        widths: Collection[int] = tuple(Width),
    ) -> Iterator[tuple[_Key, str, dict[str, Any]]]:
        """Sums of one source: (day, group), currency, and by column."""
        self_metrics = {"organization": origin.organization}
        if origin.endpoint not in (LEGACY, METERED):
            self_metrics["operation"] = origin.endpoint.name
        sql = _question(origin.endpoint, [name for name in by if name not in self_metrics], widths)
        for at, currency, *rest in self._rows(sql, origin.id, start, end):
            dims = iter(rest)
            group = tuple(self_metrics[name] if name in self_metrics else next(dims) for name in by)
            amounts = dict(zip(_columns(origin.endpoint), dims, strict=True))
            yield (
                (at, group),
                currency,
                {name: _amount(name, value) for name, value in amounts.items()},
            )


def _record(endpoint: Endpoint) -> Record | None:
    """None for costs."""
    self_metrics: dict[str, Record | None] = {
        COSTS.name: None,
        LEGACY.name: "legacy_usage",
        METERED.name: "metered",
    }
    return self_metrics.get(endpoint.name, "vector_store" if endpoint.level else "usage")


def _sum(one: Any, other: Any) -> Any:
    return add(one, other) if isinstance(one, Decimal) else one + other


def _columns(endpoint: Endpoint) -> list[str]:
    measures = [measure.name for measure in endpoint.measures]
    return measures if endpoint is COSTS else [*measures, "estimate", "unpriced"]


def _amount(name: str, value: Any) -> Any:
    if isinstance(value, float):  # a sum beyond 64 bits
        return int(value)
    return Decimal(value) if name in _MONEY and value is not None else value


def _summed(name: str, table: str = "") -> str:
    """SQL of the sum of a measure."""
    column = f'{table}"{name}"'
    return f"decimal_sum({column})" if name in _MONEY else added_up(column)


def _question(endpoint: Endpoint, by: Sequence[str], widths: Collection[int]) -> str:
    """SQL for (day, currency, dimensions …, sums …) of a source and a stretch of time."""
    measures = [measure.name for measure in endpoint.measures]
    sums = ", ".join(f'{_summed(name)} AS "{name}"' for name in measures)
    if endpoint.level:
        # of a level SQLite takes the columns of the row that has the maximum
        sums = f"{', '.join(measures)}, max(start)"
    stored_series_list = (
        f"SELECT dims, start / {Width.DAY:d} * {Width.DAY:d} AS at, {sums} FROM readings WHERE source_id = ?1"
        f" AND width IN ({', '.join(str(int(each)) for each in widths)}) AND start >= ?2 AND start < ?3 GROUP BY 1, 2"
    )
    column = {
        name: f'd."{name}"' if name in (*endpoint.dimensions, "key") else "NULL"
        for name in (*by, "currency")
    }
    picks = ["l.at", f"coalesce({column['currency']}, '')", *(column[name] for name in by)]
    picks += [_summed(name, "l.") for name in measures]
    join = ""
    priced = endpoint is not METERED
    if endpoint is not COSTS:
        tokens = (
            " + ".join(f'l."{name}"' for name in ("input", "output") if name in measures) or "0"
        )
        picks += (
            ["decimal_sum(e.cost)", added_up(f"iif(e.cost IS NULL, {tokens}, 0)")]
            if priced
            else ["NULL", "0"]
        )
        join = (
            " LEFT JOIN estimates e ON e.source_id = ?1 AND e.dims = l.dims AND e.day = l.at"
            if priced
            else ""
        )
    groups = ", ".join(str(index + 1) for index in range(len(by) + 2))
    return f"SELECT {', '.join(picks)} FROM ({stored_series_list}) l JOIN dims d ON d.id = l.dims{join} GROUP BY {groups}"


class _Sum:
    """The SQL aggregate `decimal_sum`: exact, NULL of nothing."""

    def __init__(self) -> None:
        self._sum: Decimal | None = None

    def step(self, text: Any, /) -> None:
        if text is not None:
            self._sum = Decimal(text) if self._sum is None else add(self._sum, Decimal(text))

    def finalize(self) -> str | None:
        return None if self._sum is None else str(self._sum)


@contextmanager
def history(path: Path) -> Iterator[History]:
    """The History of the state at `path`. Raises StateError, also when there is none, or when it is
    older than this program.
    """
    with open_read_only(path) as db:
        db.create_aggregate("decimal_sum", 1, _Sum)  # type: ignore[arg-type]  # typeshed wants an int to add up
        yield History(db, path)
