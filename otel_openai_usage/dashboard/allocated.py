"""The bill by customer, as numbers for charts: the rules of `domain.allocation` on whole cubes.

Amounts are floats, as everywhere on the dashboard: the parts of a line item sum to it far below a
cent. Tiers are not told apart.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from otel_openai_usage.dashboard.cube import Column, Cube, Numbers
from otel_openai_usage.domain.allocation import OTHERS, SHARED, UNMETERED, is_dated, whole_class
from otel_openai_usage.domain.line_item import LineItem

MAX_CELLS = 8_000_000
"""Numbers of the cube at most: customers beyond it are one."""
_CLASSES = ("input", "output", "input_cached", "input_cache_write")
_Floats: TypeAlias = NDArray[np.float64]
_Tokens: TypeAlias = dict[str, NDArray[np.int64]]
"""Tokens by measure and day."""


def allocated(costs: Cube, usage: Cube, metered: Cube) -> Cube:
    """The bill with one more dimension, `customer`. All cubes are of the same days."""
    customers = _Customers.of(metered, costs)
    tables = _Tables.of(usage, metered, customers)
    attribute_sets: list[tuple[int, str]] = []
    rows: list[_Floats] = []
    amounts = costs.amounts["cost"]
    for index in range(costs.size):
        cost = amounts[index].astype(np.float64)
        if not cost.any():
            continue
        for customer, part in _parts(tables, customers, costs, index, cost):
            attribute_sets.append((index, customer))
            rows.append(part)
    indexes = np.array([index for index, _ in attribute_sets], dtype=np.intp)
    columns = {
        name: Column(column.values, column.codes[indexes]) for name, column in costs.columns.items()
    }
    columns["customer"] = Column.of([customer for _, customer in attribute_sets])
    table = np.array(rows, np.float64).reshape(len(rows), costs.days)
    return Cube(costs.start, costs.days, columns, {"cost": table})


def _parts(
    tables: "_Tables", customers: "_Customers", costs: Cube, index: int, cost: _Floats
) -> Iterator[tuple[str, _Floats]]:
    """The parts of one attribute set of the bill, by customer."""
    model = _value(costs, "model", index)
    charged = _value(costs, "charged", index) or ""
    # An item without a model has its whole text in both columns.
    item = LineItem(None if model == charged else model, charged)
    if item.model is None or item.token_class is None:
        yield SHARED, cost
        return
    shares = tables.shares(item.model, item.token_class, _value(costs, "project", index))
    parts = shares * cost
    for place in np.flatnonzero(parts.any(axis=1)):
        yield customers.names[place], parts[place]
    rest = cost - parts.sum(axis=0)
    # What is left of a line item that events explain completely is noise.
    rest[np.abs(rest) < np.abs(cost) * 1e-9] = 0
    if rest.any():
        yield UNMETERED, rest


def _value(cube: Cube, name: str, index: int) -> str | None:
    column = cube.columns[name]
    found: str | None = column.values[column.codes[index]]
    return found


@dataclass(frozen=True)
class _Customers:
    """The customers that have rows of their own, and the place of each attribute set's."""

    names: tuple[str, ...]
    places: NDArray[np.intp]

    @classmethod
    def of(cls, metered: Cube, costs: Cube) -> "_Customers":
        """As many as there is room for, those with the most tokens first."""
        column = metered.columns["customer"]
        most = max(1, MAX_CELLS // max(1, costs.size * costs.days))
        tokens = np.zeros(len(column.values), np.int64)
        for name in ("input", "output"):
            if name in metered.amounts:
                np.add.at(tokens, column.codes, metered.amounts[name].sum(axis=1))
        order = np.argsort(-tokens, kind="stable")
        kept = order[:most]
        names = [column.values[place] or "" for place in kept]
        of_value = np.full(len(column.values), len(kept), dtype=np.intp)
        of_value[kept] = np.arange(len(kept))
        if len(order) > most:
            names.append(OTHERS)
        return cls(tuple(names), of_value[column.codes])


@dataclass
class _Tables:
    """Tokens by model and project: OpenAI's, and those of each customer."""

    days: int
    customers: int
    used: dict[tuple[str, str | None], _Tokens] = field(default_factory=dict)
    metered: dict[tuple[str, str | None], dict[str, Numbers]] = field(default_factory=dict)
    _cache: dict[tuple[str, str, str | None], _Floats] = field(default_factory=dict)

    @classmethod
    def of(cls, usage: Cube, metered: Cube, customers: _Customers) -> "_Tables":
        tables = cls(usage.days, len(customers.names))
        for index in range(usage.size):
            model = _value(usage, "model", index)
            if model is not None:
                place = (model, _value(usage, "project", index))
                _add(tables.used.setdefault(place, {}), usage, index)
        requested: dict[tuple[str, str | None], dict[int, _Tokens]] = {}
        for index in range(metered.size):
            model = _value(metered, "model", index)
            if model is not None:
                place = (model, _value(metered, "project", index))
                by_customer = requested.setdefault(place, {})
                _add(by_customer.setdefault(int(customers.places[index]), {}), metered, index)
        for (model, project), by_customer in requested.items():
            for dated, days in tables.dated(model):
                into = tables.metered.setdefault((dated, project), {})
                tables.add_metered(into, by_customer, days)
        return tables

    def add_metered(
        self, into: dict[str, Numbers], by_customer: Mapping[int, _Tokens], days: NDArray[np.bool_]
    ) -> None:
        """Add the customers' tokens of some days."""
        for customer, tokens in by_customer.items():
            for name, amounts in tokens.items():
                rows = into.setdefault(name, np.zeros((self.customers, self.days), np.int64))
                rows[customer] += np.where(days, amounts, 0)

    def dated(self, model: str) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """The models that were used for a requested one, and on which days."""
        is_used = self._used_on(model)
        candidates = {
            used: self._used_on(used)
            for used in dict.fromkeys(name for name, _ in self.used)
            if is_dated(used, model)
        }
        count = sum((days.astype(np.int64) for days in candidates.values()), np.zeros(self.days))
        replaced = ~is_used & (count == 1)
        for used, days in candidates.items():
            if (replaced & days).any():
                yield used, replaced & days
        if not replaced.all():
            yield model, ~replaced

    def _used_on(self, model: str) -> NDArray[np.bool_]:
        found = np.zeros(self.days, np.bool_)
        for (name, _), tokens in self.used.items():
            if name == model:
                for amounts in tokens.values():
                    found |= amounts > 0
        return found

    def shares(self, model: str, token_class: str, project: str | None) -> _Floats:
        """The share of each customer on each day."""
        counted = whole_class(token_class)
        key = (model, counted, project)
        if key not in self._cache:
            self._cache[key] = self._shares(model, counted, project)
        return self._cache[key]

    def _shares(self, model: str, counted: str, project: str | None) -> _Floats:
        found = np.zeros((self.customers, self.days), np.float64)
        for dated, days in self.dated(model):
            found += np.where(days, self._of_model(dated, counted, project), 0.0)
        return found

    def _of_model(self, model: str, counted: str, project: str | None) -> _Floats:
        used = {
            name: _billed(counted, tokens)
            for (one, name), tokens in self.used.items()
            if one == model
        }
        metered = {
            name: _billed(counted, rows)
            for (one, name), rows in self.metered.items()
            if one == model
        }
        none_used = np.zeros(self.days, np.int64)
        none_metered = np.zeros((self.customers, self.days), np.int64)
        if project is None or (used and set(used) == {None}):
            whole = sum(used.values(), none_used)
            weights = sum(metered.values(), none_metered).astype(np.float64)
            return _in_proportion(weights, whole)
        everywhere = sum((rows for name, rows in used.items() if name is not None), none_used)
        here = used.get(project, none_used)
        spread = np.divide(here, everywhere, out=np.ones(self.days), where=everywhere > 0)
        weights = metered.get(project, none_metered) + metered.get(None, none_metered) * spread
        return _in_proportion(weights, here)


def _add(into: _Tokens, cube: Cube, index: int) -> None:
    """Add the tokens of an attribute set."""
    for name in _CLASSES:
        if name in cube.amounts:
            row = cube.amounts[name][index].astype(np.int64)
            into[name] = into[name] + row if name in into else row


def _billed(counted: str, tokens: Mapping[str, Any]) -> Any:
    """As `billed_tokens`, by day."""
    known = next(iter(tokens.values()))
    found = tokens.get(counted, np.zeros_like(known))
    if counted == "input":
        for name in ("input_cached", "input_cache_write"):
            found = found - tokens.get(name, 0)
    return np.maximum(found, 0)


def _in_proportion(weights: _Floats, used: Numbers) -> _Floats:
    """e / max(U, E) of each customer and day."""
    whole = np.maximum(used, weights.sum(axis=0))
    shares: _Floats = np.divide(weights, whole, out=np.zeros_like(weights), where=whole > 0)
    return shares
