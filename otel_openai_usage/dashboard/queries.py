"""What the page says, worked out from the cubes: series, totals, movers, the month, the table."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from otel_openai_usage.dashboard.cube import DAY, Cube, Mask
from otel_openai_usage.dashboard.data import Data
from otel_openai_usage.dashboard.forecast import Forecast, forecast, rate
from otel_openai_usage.dashboard.view import Span, View, month_end, month_start
from otel_openai_usage.domain.model import Limit, floor, utc

TOP = 7
"""So many series have a colour of their own; the others are one."""
WEEKLY = 100
"""A chart of more days than this has a bar a week."""

Floats: TypeAlias = NDArray[np.float64]
Basis: TypeAlias = Literal["billed", "estimated"]


@dataclass(frozen=True, eq=False)
class Series:
    """One colour of a chart. `id` is the value of the dimension; None for what has none, and for
    the rest.
    """

    id: str | None
    label: str
    values: Floats
    rest: bool = False

    @property
    def total(self) -> float:
        """The sum of what is drawn."""
        return float(self.values.sum())


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the table. `cost` and `before` (the period before) are billed or estimated, as the
    page says; None: not known.
    """

    id: str | None
    label: str
    cost: float | None
    share: float | None
    before: float | None
    after: float | None
    estimated: float | None
    requests: int
    input: int
    cached: int
    output: int

    @property
    def change(self) -> float | None:
        """By how much it cost more than before, over days that are comparable."""
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True, slots=True)
class Savings:
    """What cached input cost less than it would have at the full price that was billed for the same
    model; None if not known.
    """

    money: float | None
    share: float | None


class Report:
    """One view of an organization's data. Everything is worked out when it is asked for, and once.

    `events` tells that it is about what applications told: only they know customers.
    """

    def __init__(self, data: Data, view: View) -> None:
        self.data = data
        self.view = view
        self.now = data.now
        self.today = floor(int(data.now), DAY)
        self.asked = view.span(data.now)
        # What lies before the first row, or after today, is not nothing, it is not known: it is not
        # drawn.
        end = (
            self.today + DAY if self.asked.start <= self.today < self.asked.end else self.asked.end
        )
        first = max(
            self.asked.start,
            min(data.first if data.first is not None else self.asked.start, end - DAY),
        )
        self.span = Span(first, end, self.asked.live)
        self.events = data.told or view.by == "customer" or bool(view.customer)
        self.usage = data.metered if self.events else data.usage
        self._usage_mask = self.usage.where(view.filters)
        self._cost_mask = data.costs.where(view.filters)

    # --- which usage, which money

    @property
    def estimated(self) -> bool:
        """Whether usage was priced. Events are not: they do not tell at which price they count."""
        return "estimate" in self.usage.amounts

    @cached_property
    def billable(self) -> bool:
        """Whether the bill can answer this view: it knows the dimension grouped by and every one
        filtered by.
        """
        return "cost" in self.data.costs.amounts and all(
            self.data.bills(name) for name in (self.view.by, *self.view.filters)
        )

    @cached_property
    def basis(self) -> Basis:
        """Which money is shown: what was asked for, if it can be; else the bill before the
        estimate.
        """
        if self.view.cost == "estimated" and self.estimated:
            return "estimated"
        return "billed" if self.billable or not self.estimated else "estimated"

    @cached_property
    def _money(self) -> tuple[Cube, str, Mask | None]:
        if self.basis == "billed":
            return self.data.costs, "cost", self._cost_mask
        return self.usage, "estimate", self._usage_mask

    @cached_property
    def priced(self) -> bool:
        """Whether there is any money to show."""
        return self.billable or self.estimated

    # --- time

    @cached_property
    def bins(self) -> list[int]:
        """The first day of each bar: every day, or every Monday of a long span."""
        days = range(self.span.start, self.span.end, DAY)
        return (
            list(days)
            if self.span.days <= WEEKLY
            else [day for day in days if day == self.span.start or utc(day).weekday() == 0]
        )

    @property
    def weekly(self) -> bool:
        """Whether a bar is a week."""
        return self.span.days > WEEKLY

    def binned(self, rows: NDArray[np.int64] | Floats) -> Floats:
        """Days added up to bars."""
        edges = [(start - self.span.start) // DAY for start in self.bins]
        return np.add.reduceat(rows, edges, axis=-1).astype(np.float64)

    @cached_property
    def compared(self) -> tuple[Span, Span] | None:
        """The days that are over, and as many before them; None if the store does not reach back so
        far.
        """
        end = min(self.asked.end, self.data.settled if self.basis == "billed" else self.today)
        start = self.asked.start
        if end <= start or self.data.first is None:
            return None
        before = (
            month_start(start - DAY)
            if self.view.period in {"month", "last-month"}
            else start - (end - start)
        )
        length = min(end - start, start - before)
        return (
            None
            if before < self.data.first
            else (Span(start, start + length), Span(before, before + length))
        )

    # --- charts

    @cached_property
    def cost_series(self) -> list[Series]:
        """Cost over time by the dimension of the view."""
        cube, measure, mask = self._money
        return self._series(cube, [measure], mask) if self.priced else []

    @cached_property
    def request_series(self) -> list[Series]:
        """Requests over time by the dimension of the view."""
        return self._series(self.usage, ["requests"], self._usage_mask)

    @cached_property
    def consumed_series(self) -> list[Series]:
        """Input and output tokens over time by the dimension of the view."""
        return self._series(self.usage, ["input", "output"], self._usage_mask)

    @cached_property
    def token_series(self) -> list[Series]:
        """Tokens over time: input that was not cached, cached input, output."""
        days = {
            name: self.usage.by_day(name, self.span, self._usage_mask)
            for name in ("input", "input_cached", "output")
        }
        parts = {
            "Input": days["input"] - days["input_cached"],
            "Cached input": days["input_cached"],
            "Output": days["output"],
        }
        return [Series(label, label, self.binned(rows)) for label, rows in parts.items()]

    @cached_property
    def billed_and_estimated(self) -> tuple[Floats, Floats] | None:
        """Both, by bar, where both can answer; None else."""
        if not (self.billable and self.estimated):
            return None
        return (
            self.binned(self.data.costs.by_day("cost", self.span, self._cost_mask)),
            self.binned(self.usage.by_day("estimate", self.span, self._usage_mask)),
        )

    @cached_property
    def difference(self) -> tuple[float, float] | None:
        """Billed and estimated, over those days of the span that are over, billed and priced; None
        if there are none.
        """
        if self.billed_and_estimated is None:
            return None
        span = Span(self.span.start, max(self.span.start, min(self.span.end, self.data.settled)))
        billed = self.data.costs.by_day("cost", span, self._cost_mask)
        estimated = self.usage.by_day("estimate", span, self._usage_mask)
        both = (billed > 0) & (estimated > 0)
        return (float(billed[both].sum()), float(estimated[both].sum())) if both.any() else None

    def _series(self, cube: Cube, measures: Sequence[str], mask: Mask | None) -> list[Series]:
        known = [
            cube.grouped(measure, self.view.by, self.span, mask)
            for measure in measures
            if measure in cube.amounts
        ]
        if not known:
            return []
        rows = self.binned(np.sum(known, axis=0))
        totals = rows.sum(axis=1)
        ranked = [
            int(place) for place in np.argsort(-np.abs(totals), kind="stable") if totals[place]
        ]
        values = cube.columns[self.view.by].values
        top = ranked if len(ranked) <= TOP + 1 else ranked[:TOP]
        found = [Series(values[place], self.label(values[place]), rows[place]) for place in top]
        if rest := ranked[len(top) :]:
            found.append(Series(None, f"{len(rest)} others", rows[rest].sum(axis=0), rest=True))
        return found

    def label(self, value: str | None) -> str:
        """How a value of the dimension is called."""
        return self.data.label(self.view.by, value)

    # --- numbers

    @cached_property
    def cost(self) -> float | None:
        """Cost over the span."""
        cube, measure, mask = self._money
        return cube.total(measure, self.asked, mask) if self.priced else None

    @cached_property
    def cost_change(self) -> float | None:
        """By which share it grew over the period before."""
        if self.compared is None or not self.priced:
            return None
        cube, measure, mask = self._money
        after, before = (cube.total(measure, span, mask) for span in self.compared)
        return after / before - 1 if before else None

    def counted(self, measure: str) -> int:
        """A count over the span."""
        return int(self.usage.total(measure, self.asked, self._usage_mask))

    def counted_change(self, *measures: str) -> float | None:
        """By which share counts grew over the period before."""
        if self.compared is None:
            return None
        after, before = (
            sum(self.usage.total(each, span, self._usage_mask) for each in measures)
            for span in self.compared
        )
        return after / before - 1 if before else None

    @cached_property
    def unpriced(self) -> tuple[int, list[str]]:
        """Tokens that were not priced, and of which models: by so much an estimate is too low."""
        if not self.estimated:
            return 0, []
        cube = self.usage
        sums = cube.by_value("unpriced", "model", self.span, self._usage_mask).tolist()
        found = [
            (int(tokens), model or "")
            for model, tokens in zip(cube.columns["model"].values, sums, strict=True)
            if tokens
        ]
        return sum(tokens for tokens, _ in found), [
            model for _, model in sorted(found, reverse=True)
        ]

    @cached_property
    def savings(self) -> Savings:
        """What caching saved over the span."""
        cached = self.counted("input_cached")
        into = self.counted("input")
        return Savings(
            self._saved() if self._filters_billed else None, cached / into if into else None
        )

    @property
    def _filters_billed(self) -> bool:
        return (
            not self.events
            and "quantity" in self.data.costs.amounts
            and all(self.data.bills(name) for name in self.view.filters)
        )

    def _saved(self) -> float | None:
        costs = self.data.costs
        sums: dict[str, dict[str, Floats]] = {}
        for kind in ("input", "cached input"):
            mask = costs.columns["charged"].among([kind])
            mask = mask if self._cost_mask is None else mask & self._cost_mask
            sums[kind] = {
                name: costs.by_value(name, "model", self.asked, mask).astype(np.float64)
                for name in ("cost", "quantity")
            }
        full = sums["input"]
        cached = sums["cached input"]
        known = (
            (full["quantity"] > 0) & (cached["quantity"] > 0) & (full["cost"] > 0)
        )  # what credits outweigh has no price
        if not known.any():
            return None
        price = np.divide(
            full["cost"], full["quantity"], out=np.zeros_like(full["cost"]), where=known
        )
        return float(np.where(known, price * cached["quantity"] - cached["cost"], 0.0).sum())

    # --- the month

    @cached_property
    def limit(self) -> Limit | None:
        """The limit that the view can be measured by: the organization's, or that of the one
        project filtered by.
        """
        project: str | None = None
        if self.view.filters:
            if set(self.view.filters) != {"project"} or len(self.view.project) != 1:
                return None
            project = self.view.project[0]
        return next(
            (
                each
                for each in self.data.limits
                if each.project_id == project and each.currency == self.data.currency
            ),
            None,
        )

    @cached_property
    def month(self) -> Span:
        """The days of this month so far."""
        return Span(month_start(self.today), self.today + DAY, live=True)

    @cached_property
    def month_days(self) -> Floats:
        """The cost of each day of this month so far."""
        cube, measure, mask = self._money
        return cube.by_day(measure, self.month, mask).astype(np.float64)

    @cached_property
    def forecast(self) -> Forecast:
        """This month: spent, the rate it goes on at, what it comes to, the limit and when it is
        reached.
        """
        cube, measure, mask = self._money
        settled = self.data.settled if self.basis == "billed" else self.today
        recent = cube.by_day(measure, Span(settled - 7 * DAY, settled), mask)
        if self.data.first is not None:  # days before the first row are not known to be free
            recent = recent[max(0, min(7, (self.data.first - settled + 7 * DAY) // DAY)) :]
        over = max(self.month.start, settled)
        spent = float(self.month_days[: (over - self.month.start) // DAY].sum())
        limit = None if self.limit is None else float(self.limit.amount)
        per_day = rate([float(cost) for cost in recent], (over - self.month.start) / DAY)
        made = forecast(spent, over, month_end(self.today), per_day, limit, self._reached(limit))
        so_far = float(self.month_days.sum())
        total = None if made.total is None else max(made.total, so_far)
        return Forecast(so_far, made.rate, total, limit, made.reached)

    def _reached(self, limit: float | None) -> float | None:
        if limit is None:
            return None
        beyond = np.flatnonzero(np.cumsum(self.month_days) >= limit)
        return float(self.month.start + int(beyond[0]) * DAY) if len(beyond) else None

    # --- the table

    @cached_property
    def entries(self) -> list[Entry]:
        """Every value of the dimension that has used or cost anything in the period or the one
        before, in the order asked for.
        """
        by = self.view.by
        usage = self.usage
        costs = self.data.costs
        found: dict[str | None, dict[str, float]] = {}

        def note(cube: Cube, measure: str, span: Span, mask: Mask | None, name: str) -> None:
            if by in cube.columns and measure in cube.amounts:
                sums = cube.by_value(measure, by, span, mask)
                for value, amount in zip(cube.columns[by].values, sums.tolist(), strict=True):
                    if amount:
                        found.setdefault(value, {})[name] = amount

        for measure in ("requests", "input", "input_cached", "output"):
            note(usage, measure, self.asked, self._usage_mask, measure)
        note(usage, "estimate", self.asked, self._usage_mask, "estimate")
        if self.billable:
            note(costs, "cost", self.asked, self._cost_mask, "billed")
        if self.compared and self.priced:
            cube, measure, mask = self._money
            note(cube, measure, self.compared[0], mask, "after")
            note(cube, measure, self.compared[1], mask, "before")
        return sorted(
            (self._entry(value, sums) for value, sums in found.items()),
            key=_order(self.sort),
            reverse=self.sort[0] == "-",
        )

    @property
    def sort(self) -> str:
        """The column that the table is sorted by, with `-` for the highest first."""
        return self.view.sort or ("-cost" if self.priced else "-requests")

    def _entry(self, value: str | None, sums: dict[str, float]) -> Entry:
        cost = sums.get("billed" if self.basis == "billed" else "estimate") if self.priced else None
        compared = self.compared is not None and self.priced
        return Entry(
            value,
            self.label(value),
            cost,
            cost / self.cost if cost is not None and self.cost else None,
            sums.get("before", 0.0) if compared else None,
            sums.get("after", 0.0) if compared else None,
            sums.get("estimate") if self.estimated else None,
            *(int(sums.get(name, 0)) for name in ("requests", "input", "input_cached", "output")),
        )

    @cached_property
    def movers(self) -> list[Entry]:
        """Those whose cost changed most against the period before, by money."""
        moved = [entry for entry in self.entries if abs(entry.change or 0.0) >= 0.005]
        return sorted(moved, key=lambda entry: -abs(entry.change or 0.0))[:TOP]


class _order:  # noqa: N801 - used like a function
    """The key that a table is sorted by; what is not known counts as nothing."""

    def __init__(self, sort: str) -> None:
        self._column = sort.removeprefix("-")

    def __call__(self, entry: Entry) -> tuple[float, str]:
        if self._column == "name":
            return 0.0, entry.label.casefold()
        value = getattr(entry, self._column)
        return float(value or 0.0), entry.label.casefold()
