"""Amounts by attribute set and day, as arrays: any filter and any grouping of a year takes
milliseconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from otel_openai_usage.dashboard.view import Span
from otel_openai_usage.domain.model import Width

DAY = int(Width.DAY)

Numbers: TypeAlias = NDArray[Any]
"""Of int64 or float64."""
Mask: TypeAlias = NDArray[np.bool_]
"""Which attribute sets count."""
AttributeSet: TypeAlias = Mapping[str, str | None]
Row: TypeAlias = Sequence[float]
"""The id of an attribute set, the start of a day, and the amounts of the measures."""


@dataclass(frozen=True, eq=False)
class Column:
    """One dimension: its values, and for each attribute set the index of its value."""

    values: tuple[str | None, ...]
    codes: NDArray[np.intp]

    @classmethod
    def of(cls, values: Sequence[str | None]) -> "Column":
        """The column of the values of all attribute sets, in their order."""
        index: dict[str | None, int] = {}
        codes = [index.setdefault(value, len(index)) for value in values]
        return cls(tuple(index), np.array(codes, dtype=np.intp))

    def summed(self, rows: Numbers, mask: Mask | None) -> Numbers:
        """Rows of attribute sets added up to rows of values."""
        shape = (len(self.values), rows.shape[1])
        sums: Numbers = np.zeros(shape, dtype=rows.dtype)
        codes = self.codes
        if mask is not None:
            codes = codes[mask]
            rows = rows[mask]
        np.add.at(sums, codes, rows)
        return sums

    def among(self, wanted: Iterable[str]) -> Mask:
        """Which attribute sets have one of these values."""
        chosen = set(wanted)
        is_chosen = [value in chosen for value in self.values]
        by_value = np.array(is_chosen, dtype=np.bool_)
        return by_value[self.codes]


@dataclass(frozen=True, eq=False)
class Cube:
    """Attribute sets by days, from the day `start` on, for each measure.

    Counts are int64; money is float64, which is exact to far below a cent.
    """

    start: int
    days: int
    columns: Mapping[str, Column]
    amounts: Mapping[str, Numbers] = field(repr=False)

    @property
    def size(self) -> int:
        """The number of attribute sets."""
        for column in self.columns.values():
            return len(column.codes)
        return 0

    def where(self, filters: Mapping[str, Iterable[str]]) -> Mask | None:
        """The attribute sets that pass all filters; None for all.

        None passes a filter by a dimension that the cube does not have.
        """
        # None instead of a mask of all, so that the amounts are not copied.
        mask: Mask | None = None
        for name, wanted in filters.items():
            column = self.columns.get(name)
            passes = np.zeros(self.size, dtype=np.bool_)
            if column is not None:
                passes = column.among(wanted)
            mask = passes if mask is None else mask & passes
        return mask

    def by_day(self, measure: str, span: Span, mask: Mask | None = None) -> Numbers:
        """One sum for each day of the span; 0 for days outside of the cube."""
        rows = self._rows(measure, span)
        if mask is not None:
            rows = rows[mask]
        sums = np.zeros(span.days, dtype=rows.dtype)
        known = self._known_days(span, rows)
        sums[known] = rows.sum(axis=0)
        return sums

    def total(self, measure: str, span: Span, mask: Mask | None = None) -> float:
        """The sum over a span."""
        return float(self.by_day(measure, span, mask).sum())

    def by_value(
        self, measure: str, dimension: str, span: Span, mask: Mask | None = None
    ) -> Numbers:
        """For each value of a dimension (in its column's order), the sum over a span."""
        amounts = self._rows(measure, span).sum(axis=1)
        column = self.columns[dimension]
        codes = column.codes
        if mask is not None:
            codes = codes[mask]
            amounts = amounts[mask]
        sums: Numbers = np.zeros(len(column.values), dtype=amounts.dtype)
        np.add.at(sums, codes, amounts)
        return sums

    def grouped(
        self, measure: str, dimension: str, span: Span, mask: Mask | None = None
    ) -> Numbers:
        """For each value of a dimension (in its column's order), a sum for each day of the span."""
        rows = self._rows(measure, span)
        column = self.columns[dimension]
        shape = (len(column.values), span.days)
        sums = np.zeros(shape, dtype=rows.dtype)
        known = self._known_days(span, rows)
        sums[:, known] = column.summed(rows, mask)
        return sums

    def _known_days(self, span: Span, rows: Numbers) -> slice:
        """The days of the span that `rows` are of; the days before the cube's first are unknown."""
        days_before = (self.start - span.start) // DAY
        first = min(max(days_before, 0), span.days)
        days = rows.shape[1]
        return slice(first, first + days)

    def _rows(self, measure: str, span: Span) -> Numbers:
        """The days of the span in the cube, for each attribute set; 0 for an unknown measure."""
        rows = self.amounts.get(measure)
        if rows is None:
            rows = np.zeros((self.size, self.days), dtype=np.int64)
        offset = (span.start - self.start) // DAY
        end = (span.end - self.start) // DAY
        first = max(0, offset)
        return rows[:, first : max(first, end)]


def _translated(ids: Numbers, indexes: Mapping[int, int]) -> NDArray[np.intp]:
    """The index of each id; -1 for an unknown one."""
    distinct, inverse = np.unique(ids, return_inverse=True)
    found = [indexes.get(int(id_), -1) for id_ in distinct]
    return np.array(found, dtype=np.intp)[inverse]


class Builder:
    """Gathers attribute sets and rows of several endpoints into one cube."""

    def __init__(
        self, dimensions: Sequence[str], start: int, days: int, floating: Iterable[str] = ()
    ) -> None:
        self._dimensions = dimensions
        self._start = start
        self._days = days
        self._floating = frozenset(floating)
        self._attribute_sets: list[AttributeSet] = []
        self._parts: list[tuple[str, NDArray[np.intp], Numbers]] = []
        """Measure, cells (attribute set and day in one number), and their amounts."""

    def add(
        self,
        attribute_sets: Mapping[int, AttributeSet],
        rows: Iterable[Row],
        measures: Sequence[str],
    ) -> Mapping[int, int]:
        """Add attribute sets by id, and rows of (id, day, amounts as in `measures`).

        Return the index of each attribute set in the cube by id, for `add_rows`.
        """
        first = len(self._attribute_sets)
        indexes = {id_: index for index, id_ in enumerate(attribute_sets, first)}
        self._attribute_sets += attribute_sets.values()
        self.add_rows(indexes, rows, measures)
        return indexes

    def add_rows(
        self, indexes: Mapping[int, int], rows: Iterable[Row], measures: Sequence[str]
    ) -> None:
        """Add further rows of attribute sets that were added."""
        dtype = np.float64 if self._floating.intersection(measures) else np.int64
        # Number by number: an array of millions of tuples takes several times as long to make.
        numbers: Numbers = np.fromiter(chain.from_iterable(rows), dtype)
        width = 2 + len(measures)
        table = numbers.reshape(-1, width)
        if not len(table):
            return
        index = _translated(table[:, 0], indexes)
        day = (table[:, 1] - self._start) // DAY
        day = day.astype(np.intp)
        is_known = index >= 0
        is_inside = is_known & (day >= 0) & (day < self._days)
        cells = index[is_inside] * self._days + day[is_inside]
        for column, name in enumerate(measures, 2):
            amounts = table[is_inside, column]
            self._parts.append((name, cells, amounts))

    def build(self) -> Cube:
        """The cube of everything that was added."""
        shape = (len(self._attribute_sets), self._days)
        amounts: dict[str, Numbers] = {}
        for name, cells, values in self._parts:
            if name not in amounts:
                dtype = np.float64 if name in self._floating else np.int64
                amounts[name] = np.zeros(shape, dtype)
            flat = amounts[name].reshape(-1)  # a view: what is added lands in the array
            np.add.at(flat, cells, values.astype(flat.dtype))
        columns = {name: self._column(name) for name in self._dimensions}
        return Cube(self._start, self._days, columns, amounts)

    def _column(self, name: str) -> Column:
        """The values of a dimension."""
        values = [attributes.get(name) for attributes in self._attribute_sets]
        return Column.of(values)
