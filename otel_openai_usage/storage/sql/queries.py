"""The port `Queries`, as far as both stores share it."""

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from decimal import Decimal
from typing import Any, TypeAlias

from otel_openai_usage.domain.budgets import CostLine
from otel_openai_usage.domain.endpoints import COSTS, ENDPOINTS, LEGACY, STORED, Endpoint
from otel_openai_usage.domain.identity import Owner
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Amounts, Dims, Limit, Names, Width, Window, floor
from otel_openai_usage.domain.pricing import add
from otel_openai_usage.domain.reconciliation import Row, total
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage import quantity_units
from otel_openai_usage.storage.results import CostRow, MeteredTokens, Record, StoredSource, UsageRow
from otel_openai_usage.storage.sql import (
    content_check,
    day_costs,
    metered_tokens,
    names,
    notes,
    rows,
    sums,
)
from otel_openai_usage.storage.sql.database import Database
from otel_openai_usage.storage.sql.organizations import read_owner
from otel_openai_usage.storage.sql.sources import read_backfilled, read_source
from otel_openai_usage.storage.sql.values import quoted

_Group: TypeAlias = tuple[int, tuple[str | None, ...]]
"""A day and the values of the requested dimensions."""

_DAY = int(Width.DAY)
_ALL_WIDTHS = tuple(Width)
_KNOWN_ENDPOINTS = {**STORED, METERED.name: METERED}
_USAGE_AMOUNTS = frozenset(field.name for field in fields(UsageRow))
"""The amounts of a UsageRow. A measure that only a newer endpoint has is left out."""


class SqlQueries(ABC):
    """Reads the tables of a store. Each method raises StateError."""

    _db: Database

    @abstractmethod
    def _reading(self) -> AbstractContextManager[None]:
        """Turns errors of the database into StateError."""

    @abstractmethod
    def _one_state(self) -> AbstractContextManager[None]:
        """Inside, all statements read the same state, whatever is written meanwhile."""

    @contextmanager
    def whole(self) -> Iterator[Database]:
        """The tables as they are now, for a copy of the whole state."""
        with self._one_state():
            yield self._db

    @abstractmethod
    def version(self) -> int:
        """A number that changes whenever the store was written."""

    # --- what is stored

    @property
    def instance_id(self) -> str:
        """The store's own id."""
        with self._reading():
            return notes.read(self._db, notes.INSTANCE_ID) or ""

    def sources(self) -> list[StoredSource]:
        """Every source whose endpoint this version knows, in the order of creation."""
        sql = (
            "SELECT id, organization, kind, organization_id, last_success, newest_bucket"
            " FROM sources ORDER BY id"
        )
        found = []
        for id_, organization, endpoint, *rest in self._all(sql):
            if endpoint in _KNOWN_ENDPOINTS:
                source = StoredSource(id_, organization, _KNOWN_ENDPOINTS[endpoint], *rest)
                found.append(source)
        return found

    def span(self, organization: str | None = None) -> tuple[int, int] | None:
        """The starts of the first and the last row, of one organization or of all."""
        of_source = "FROM readings WHERE source_id = ? AND width = ?"
        # Two subqueries, because SQLite looks up one extreme but scans for two.
        sql = f"SELECT (SELECT min(start) {of_source}), (SELECT max(start) {of_source})"
        starts: list[int | None] = []
        for source in self.sources():
            if organization is None or source.organization == organization:
                for width in Width:
                    selected = (source.id, int(width))
                    starts += self._all(sql, *selected, *selected)[0]
        known = [start for start in starts if start is not None]
        return (min(known), max(known)) if known else None

    def names(self, organization: str) -> Names:
        """The stored names of projects, API keys and users."""
        with self._reading():
            return names.read(self._db, organization)

    def limits(self, organization: str) -> list[Limit]:
        """The spend limits that OpenAI reported last."""
        with self._reading():
            return names.read_limits(self._db, organization)

    def quantity_units(self) -> dict[tuple[str, str], set[str]]:
        """The units in which OpenAI counts line items, by organization and line item."""
        found: dict[tuple[str, str], set[str]] = {}
        for organization in {source.organization for source in self.sources()}:
            with self._reading():
                text = notes.read(self._db, quantity_units.note_key(organization))
                for item, units in quantity_units.parse(text).items():
                    found[organization, item] = units
        return found

    def owner(self, organization: str) -> Owner:
        """The OpenAI organization whose data is stored under this name."""
        with self._reading():
            return read_owner(self._db, organization)

    def hash_key(self) -> bytes:
        """The key of `attributes.hash`."""
        with self._reading():
            found = notes.read(self._db, notes.HASH_KEY)
        if found is None:
            raise StateError(
                "read the key of attributes.hash: the state has none yet; start the exporter once"
                " with this configuration"
            )
        return bytes.fromhex(found)

    # --- sums of usage and costs

    def usage(
        self,
        start: int,
        end: int,
        *,
        by: Sequence[str] = (),
        record: Record = "usage",
        widths: Collection[int] = _ALL_WIDTHS,
    ) -> list[UsageRow]:
        """The usage in [start, end): one row for each UTC day and group, ordered by time.

        `by` is a subset of `USAGE_DIMENSIONS`. [start, end) may be less than a day, but the
        estimate is always that of the whole day. Only rows of these bucket widths are added up:
        a row of a day belongs to none of its hours.
        """
        amounts_by_group: dict[_Group, dict[str, Any]] = {}
        for source in self.sources():
            if _record(source.endpoint) != record:
                continue
            for group, _, amounts in self._sums(source, start, end, by, widths):
                _add_amounts(amounts_by_group.setdefault(group, {}), amounts)
        found = []
        for (day, values), amounts in amounts_by_group.items():
            known = {name: amounts[name] for name in amounts if name in _USAGE_AMOUNTS}
            found.append(UsageRow(day, values, **known))
        return sorted(found, key=_order)

    def costs(self, start: int, end: int, *, by: Sequence[str] = ()) -> list[CostRow]:
        """The costs that OpenAI billed for the UTC days in [start, end), ordered by time.

        There is one row for each day, group and currency. `by` is a subset of `COST_DIMENSIONS`.
        """
        cost: dict[tuple[_Group, str], Decimal] = {}
        quantity: dict[tuple[_Group, str], Decimal] = {}
        for source in self.sources():
            if source.endpoint is not COSTS:
                continue
            for group, currency, amounts in self._sums(source, start, end, by, _ALL_WIDTHS):
                key = (group, currency)
                cost[key] = add(cost.get(key, Decimal(0)), amounts["cost"])
                # The store keeps a quantity that OpenAI did not report as 0.
                if amounts["quantity"]:
                    quantity[key] = add(quantity.get(key, Decimal(0)), amounts["quantity"])
        found = []
        for key, amount in cost.items():
            (day, values), currency = key
            found.append(CostRow(day, values, currency, amount, quantity.get(key)))
        return sorted(found, key=_order)

    def _sums(
        self,
        source: StoredSource,
        start: int,
        end: int,
        by: Sequence[str],
        widths: Collection[int],
    ) -> Iterator[tuple[_Group, str, dict[str, Any]]]:
        """Group, currency and sums by name, of one source."""
        # These dimensions are properties of the source, not columns of its attribute sets.
        fixed: dict[str, str | None] = {"organization": source.organization}
        if source.endpoint not in (LEGACY, METERED):
            fixed["operation"] = source.endpoint.name
        stored_dimensions = [name for name in by if name not in fixed]
        columns = sums.sum_columns(source.endpoint)
        sql = sums.sums_statement(self._db, source.id, source.endpoint, stored_dimensions, widths)
        for day, currency, *values in self._all(sql, start, end):
            group = fixed | dict(zip(stored_dimensions, values, strict=False))
            amounts = {}
            for name, value in zip(columns, values[len(stored_dimensions) :], strict=True):
                amounts[name] = sums.parse_sum(name, value)
            yield (day, tuple(group[name] for name in by)), currency, amounts

    def metered_tokens(self, organization: str, day: int) -> Iterator[MeteredTokens]:
        """Yield the metered tokens of a UTC day by attribute set, the largest first."""
        with self._reading():
            yield from metered_tokens.read(self._db, organization, day)

    def cost_lines(
        self, organization: str, start: int, end: int, estimated_from: int, by: Sequence[str]
    ) -> tuple[list[CostLine], list[CostLine]]:
        """Billed costs of the UTC days in [start, end), and estimated ones from `estimated_from`
        on, by the attributes in `by` that each has.
        """
        with self._reading():
            billed = day_costs.billed_lines(self._db, organization, start, end, by)
            estimated = day_costs.estimated_lines(self._db, organization, estimated_from, end, by)
            return billed, estimated

    # --- whole days as plain numbers: many rows, fast

    def attribute_sets(self, source: StoredSource) -> dict[int, Mapping[str, str | None]]:
        """The attribute sets of a source by id."""
        if source.endpoint is METERED:
            # Events have attributes without a column.
            sql = "SELECT id, key FROM dims WHERE source_id = ? ORDER BY id"
            return {id_: json.loads(key) for id_, key in self._all(sql, source.id)}
        dimensions = source.endpoint.dimensions
        columns = ", ".join(map(quoted, dimensions))
        sql = f"SELECT id, {columns} FROM dims WHERE source_id = ? ORDER BY id"
        found: dict[int, Mapping[str, str | None]] = {}
        for id_, *values in self._all(sql, source.id):
            found[id_] = dict(zip(dimensions, values, strict=True))
        return found

    def daily_sums(self, source: StoredSource, since: int) -> Iterator[tuple[float, ...]]:
        """Yield (attribute set, day, the endpoint's measures) from the day `since` on.

        A day may come in several parts, which the caller adds up. Money is float.
        """
        plain = []
        summed = []
        for measure in source.endpoint.measures:
            column = quoted(measure.name)
            # Floats are exact enough for a chart, and much faster than Decimal.
            if measure.money:
                column = f"CAST({column} AS DOUBLE PRECISION)"
            plain.append(column)
            summed.append(f"sum({column})" if measure.money else self._db.whole_sum(column))
        rows_since = "FROM readings WHERE source_id = ? AND width = ? AND start >= ?"
        with self._reading():
            # Rows of whole days need no sum. They are most of a long history.
            sql = f"SELECT dims, start, {', '.join(plain)} {rows_since}"
            yield from self._db.execute(sql, (source.id, _DAY, since))
            for width in (Width.HOUR, Width.MINUTE):
                selected = (source.id, int(width), since)
                sql = f"SELECT (SELECT min(start) {rows_since}), (SELECT max(start) {rows_since})"
                first, last = self._db.execute(sql, selected * 2).fetchone()
                if first is None:
                    continue
                # Day by day, so that GROUP BY works on few rows: several times as fast as all
                # days in one statement.
                for day in range(floor(first, _DAY), last + 1, _DAY):
                    sql = (
                        f"SELECT dims, {day:d}, {', '.join(summed)} {rows_since}"
                        " AND start < ? GROUP BY dims"
                    )
                    yield from self._db.execute(sql, (source.id, int(width), day, day + _DAY))

    def daily_estimates(self, source: StoredSource, since: int) -> Iterator[tuple[float, ...]]:
        """Yield (attribute set, day, estimated cost) from the day `since` on, where priced."""
        sql = "SELECT dims, day, CAST(cost AS DOUBLE PRECISION) FROM estimates WHERE source_id = ? AND day >= ?"
        with self._reading():
            yield from self._db.execute(sql, (source.id, since))

    # --- the exact rows and totals of the polled sources

    def source_states(self, organization: str) -> list[SourceState]:
        """The state of each polled source of an organization, in the order of `ENDPOINTS`."""
        found = []
        with self._reading():
            for endpoint in ENDPOINTS.values():
                source_state = read_source(self._db, organization, endpoint)
                if source_state is not None:
                    found.append(source_state)
        return found

    def rows(self, source_state: SourceState, start: int, end: int) -> list[Row]:
        """The rows of every width whose bucket begins in [start, end)."""
        with self._reading():
            return rows.rows_between(self._db, source_state, _ALL_WIDTHS, start, end)

    def sums_by_dims(self, source_state: SourceState, start: int, end: int) -> dict[Dims, Amounts]:
        """The sum of the rows in [start, end) by attribute set, without those that are zero."""
        found: dict[Dims, Amounts] = {}
        zero = source_state.endpoint.zero
        for row in self.rows(source_state, start, end):
            found[row.dims] = total(found.get(row.dims, zero), row.amounts)
        return {dims: amounts for dims, amounts in found.items() if any(amounts)}

    def backfilled(self, source_state: SourceState) -> list[Window]:
        """The windows before counting began that a backfill read."""
        with self._reading():
            return read_backfilled(self._db, source_state.id)

    def estimates(
        self, source_state: SourceState, start: int, end: int
    ) -> Iterator[tuple[Dims, int, Decimal]]:
        """Yield attribute set, day and estimated cost of the UTC days in [start, end)."""
        sql = "SELECT dims, day, cost FROM estimates WHERE source_id = ? AND day >= ? AND day < ?"
        with self._reading():
            for id_, day, cost in self._db.execute(sql, (source_state.id, start, end)):
                yield source_state.series.by_id[id_].dims, day, Decimal(cost)

    def totals_disagreeing(self) -> str | None:
        """A sentence about totals that are not the sum of their rows, None if all are."""
        with self._one_state():
            return content_check.totals_disagreeing(self._db)

    def _all(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._reading():
            return self._db.execute(sql, values).fetchall()


def _record(endpoint: Endpoint) -> Record | None:
    """The record to which an endpoint's rows belong; None for costs."""
    if endpoint is COSTS:
        return None
    if endpoint is LEGACY:
        return "legacy_usage"
    if endpoint is METERED:
        return "metered"
    return "vector_store" if endpoint.level else "usage"


def _add_amounts(into: dict[str, Any], amounts: Mapping[str, Any]) -> None:
    """Add amounts by name. An amount of None adds nothing."""
    for name, value in amounts.items():
        if value is None:
            continue
        before = into.get(name)
        if before is None:
            into[name] = value
        elif isinstance(value, Decimal):
            into[name] = add(before, value)
        else:
            into[name] = before + value


def _order(row: UsageRow | CostRow) -> tuple[int, tuple[str, ...]]:
    """The key by which rows are sorted: day, then group with None first."""
    return row.start, tuple(value or "" for value in row.group)
