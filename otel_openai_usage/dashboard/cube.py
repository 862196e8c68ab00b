"""Amounts by attribute set and day, as arrays: any filter and any grouping of a year is a matter of
milliseconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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
StoredSeries: TypeAlias = Mapping[str, str | None]
Row: TypeAlias = Sequence[float]
"""A leaf's place, a day's start, and the amounts of the columns."""


@dataclass(frozen=True, eq=False)
class Column:
    """One dimension: its values, and which of them each leaf has."""

    values: tuple[str | None, ...]
    codes: NDArray[np.intp]

    @classmethod
    def of(cls, values: Sequence[str | None]) -> "Column":
        """The column of what each leaf says."""
        places: dict[str | None, int] = {}
        codes = [places.setdefault(value, len(places)) for value in values]
        return cls(tuple(places), np.array(codes, dtype=np.intp))

    @cached_property
    def _order(self) -> NDArray[np.intp]:
        return np.argsort(self.codes, kind="stable")

    def summed(self, rows: Numbers, mask: Mask | None) -> Numbers:
        """Rows of leaves added up to rows of values."""
        made: Numbers = np.zeros((len(self.values), rows.shape[1]), dtype=rows.dtype)
        order = self._order if mask is None else self._order[mask[self._order]]
        if len(order):
            codes = self.codes[order]
            first = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
            made[codes[first]] = np.add.reduceat(rows[order], first, axis=0)
        return made

    def among(self, wanted: Iterable[str]) -> Mask:
        """Which leaves have one of these values."""
        chosen = set(wanted)
        return np.array([value in chosen for value in self.values], dtype=np.bool_)[self.codes]


@dataclass(frozen=True, eq=False)
class Cube:
    """Leaves by days, from the day `start` on. Counts are int64; money is float64, which is exact
    to far below a cent.
    """

    start: int
    days: int
    columns: Mapping[str, Column]
    amounts: Mapping[str, Numbers] = field(repr=False)

    @property
    def stored_series_list(self) -> int:
        """How many attribute sets."""
        return len(next(iter(self.columns.values())).codes) if self.columns else 0

    def where(self, filters: Mapping[str, Iterable[str]]) -> Mask | None:
        """The leaves that pass filters; None for all. What has no such dimension passes none."""
        mask: Mask | None = None
        for name, wanted in filters.items():
            one = (
                self.columns[name].among(wanted)
                if name in self.columns
                else np.zeros(self.stored_series_list, dtype=np.bool_)
            )
            mask = one if mask is None else mask & one
        return mask

    def by_day(self, measure: str, span: Span, mask: Mask | None = None) -> Numbers:
        """One number for each day of the span; days that are not known have 0."""
        rows = self._cut(measure, span)
        made = np.zeros(span.days, dtype=rows.dtype)
        low, _ = self._place(span)
        made[low : low + rows.shape[1]] = (rows if mask is None else rows[mask]).sum(axis=0)
        return made

    def total(self, measure: str, span: Span, mask: Mask | None = None) -> float:
        """The sum over a span."""
        return float(self.by_day(measure, span, mask).sum())

    def by_value(
        self, measure: str, dimension: str, span: Span, mask: Mask | None = None
    ) -> Numbers:
        """For each value of a dimension (in its column's order), the sum over a span."""
        sums = self._cut(measure, span).sum(axis=1)
        column = self.columns[dimension]
        made: Numbers = np.zeros(len(column.values), dtype=sums.dtype)
        np.add.at(
            made,
            column.codes if mask is None else column.codes[mask],
            sums if mask is None else sums[mask],
        )
        return made

    def grouped(
        self, measure: str, dimension: str, span: Span, mask: Mask | None = None
    ) -> Numbers:
        """For each value of a dimension (in its column's order), one number for each day of the
        span.
        """
        rows = self._cut(measure, span)
        column = self.columns[dimension]
        made = np.zeros((len(column.values), span.days), dtype=rows.dtype)
        low, _ = self._place(span)
        made[:, low : low + rows.shape[1]] = column.summed(rows, mask)
        return made

    def _place(self, span: Span) -> tuple[int, int]:
        low = min(max((self.start - span.start) // DAY, 0), span.days)
        return low, min(max((self.start - span.start) // DAY + self.days, low), span.days)

    def _cut(self, measure: str, span: Span) -> Numbers:
        rows = self.amounts.get(measure)
        if rows is None:
            rows = np.zeros((self.stored_series_list, self.days), dtype=np.int64)
        low = max(0, (span.start - self.start) // DAY)
        return rows[:, low : max(low, (span.end - self.start) // DAY)]


class Builder:
    """Gathers leaves and rows of several endpoints into one cube."""

    def __init__(
        self, dimensions: Sequence[str], start: int, days: int, floating: Iterable[str] = ()
    ) -> None:
        self._dimensions = dimensions
        self._start = start
        self._days = days
        self._floating = frozenset(floating)
        self._leaves: list[StoredSeries] = []
        self._parts: list[tuple[str, NDArray[np.intp], Numbers]] = []

    def add(
        self,
        stored_series_list: Mapping[int, StoredSeries],
        rows: Iterable[Row],
        measures: Sequence[str],
    ) -> Mapping[int, int]:
        """Rows of (leaf id, day, amounts as in `measures`). Where the leaves have come to stand,
        for `more`.
        """
        places = {id_: len(self._leaves) + at for at, id_ in enumerate(stored_series_list)}
        self._leaves += stored_series_list.values()
        self.more(places, rows, measures)
        return places

    def more(self, places: Mapping[int, int], rows: Iterable[Row], measures: Sequence[str]) -> None:
        """Further rows of leaves that were added."""
        kind = np.float64 if self._floating.intersection(measures) else np.int64
        # Number by number: an array of millions of tuples takes several times as long to make.
        table: Numbers = np.fromiter(chain.from_iterable(rows), kind).reshape(-1, 2 + len(measures))
        if not len(table):
            return
        ids, inverse = np.unique(table[:, 0], return_inverse=True)
        at = np.array([places.get(int(id_), -1) for id_ in ids], dtype=np.intp)[inverse]
        day = ((table[:, 1] - self._start) // DAY).astype(np.intp)
        good = (at >= 0) & (day >= 0) & (day < self._days)
        cells = at[good] * self._days + day[good]
        self._parts += [
            (name, cells, table[good, 2 + index]) for index, name in enumerate(measures)
        ]

    def build(self) -> Cube:
        """The cube."""
        size = len(self._leaves) * self._days
        amounts: dict[str, Numbers] = {}
        for name, cells, values in self._parts:
            if name not in amounts:
                amounts[name] = (
                    np.zeros(size, np.float64)
                    if name in self._floating
                    else np.zeros(size, np.int64)
                )
            np.add.at(amounts[name], cells, values.astype(amounts[name].dtype))
        columns = {
            name: Column.of([stored_series.get(name) for stored_series in self._leaves])
            for name in self._dimensions
        }
        return Cube(
            self._start,
            self._days,
            columns,
            {name: rows.reshape(-1, self._days) for name, rows in amounts.items()},
        )
