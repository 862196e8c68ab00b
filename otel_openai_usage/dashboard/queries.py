"""The numbers of a page, from the cubes: series, totals, movers, the month, the table."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from otel_openai_usage.dashboard.cube import DAY, Cube, Mask, Numbers
from otel_openai_usage.dashboard.data import Data
from otel_openai_usage.dashboard.forecast import Forecast, of_month
from otel_openai_usage.dashboard.view import Span, View, month_end, month_start
from otel_openai_usage.domain.model import Limit, floor, utc
from otel_openai_usage.domain.month_costs import ESTIMATED_FOR

TOP = 7
"""So many series have a colour of their own; the others are one."""
WEEKLY = 100
"""A chart of more days than this has a bar for each week."""

_LEAST_CHANGE = 0.005
"""Half a cent: a smaller change is none."""

Floats: TypeAlias = NDArray[np.float64]
Basis: TypeAlias = Literal["billed", "estimated"]


@dataclass(frozen=True, eq=False)
class Series:
    """One colour of a chart.

    `id` is the value of the dimension; None for usage without a value, and for the rest.
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
    """A row of the table.

    `cost`, `before` and `after` are billed or estimated, as the page says. `before` is the cost of
    the period before, `after` that of the compared days of this one. None means not known.
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
        if self.before is None or self.after is None:
            return None
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Savings:
    """What caching saved.

    `money` is the difference to the full price that was billed for the same model, `share` the
    cached part of all input. None means not known.
    """

    money: float | None
    share: float | None


class _Amounts(NamedTuple):
    """One measure of a cube, for the attribute sets of the view."""

    cube: Cube
    measure: str
    mask: Mask | None

    @property
    def is_known(self) -> bool:
        """Whether the cube has the measure."""
        return self.measure in self.cube.amounts

    def total(self, span: Span) -> float:
        """The sum over a span."""
        return self.cube.total(self.measure, span, self.mask)

    def by_day(self, span: Span) -> Numbers:
        """One sum for each day of the span."""
        return self.cube.by_day(self.measure, span, self.mask)

    def by_value(self, dimension: str, span: Span) -> dict[str | None, float]:
        """The sums that are not 0, by value; empty if the cube does not know the dimension."""
        column = self.cube.columns.get(dimension)
        if column is None or not self.is_known:
            return {}
        sums = self.cube.by_value(self.measure, dimension, span, self.mask)
        pairs = zip(column.values, sums.tolist(), strict=True)
        return {value: sum_ for value, sum_ in pairs if sum_}

    def grouped(self, dimension: str, span: Span) -> Numbers:
        """A row of days for each value of the dimension."""
        return self.cube.grouped(self.measure, dimension, span, self.mask)


class Report:
    """One view of an organization's data. Each number is worked out once, when it is asked for.

    `shows_events` tells whether usage is what applications reported: only they know customers.
    `asked` is the period of the view, `span` the part of it that charts draw.
    """

    def __init__(self, data: Data, view: View) -> None:
        self.data = data
        self.view = view
        self.now = data.now
        self.today = floor(int(data.now), DAY)
        self.asked = view.span(data.now)
        self.span = self._drawn()
        about_customers = view.by == "customer" or bool(view.customer)
        self.shows_events = data.only_metered or about_customers
        self.usage = data.metered if self.shows_events else data.usage
        # Nearly every number needs the masks.
        self._usage_mask = self.usage.where(view.filters)
        self._costs = data.costs_by_customer if about_customers else data.costs
        self._cost_mask = self._costs.where(view.filters)

    def _drawn(self) -> Span:
        """The part of the period that may have usage."""
        # Before the first row, and after today, usage is not 0 but unknown: it is not drawn.
        start = self.asked.start
        end = self.asked.end
        if start <= self.today < end:
            end = self.today + DAY
        if self.data.first is not None:
            known_from = min(self.data.first, end - DAY)
            start = max(start, known_from)
        return Span(start, end, self.asked.live)

    # --- which usage, which money

    @property
    def estimated(self) -> bool:
        """Whether usage was priced."""
        return self._estimate.is_known

    @cached_property
    def billable(self) -> bool:
        """Whether the bill can answer this view: it knows every dimension of it."""
        if not self._bill.is_known:
            return False
        dimensions = (self.view.by, *self.view.filters)
        return all(self.data.bills(dimension, self._costs) for dimension in dimensions)

    @cached_property
    def basis(self) -> Basis:
        """Which money is shown: as the view asks, if possible; else the bill before the estimate."""
        if not self.estimated:
            return "billed"
        if self.view.cost == "estimated" or not self.billable:
            return "estimated"
        return "billed"

    @property
    def _bill(self) -> _Amounts:
        """What OpenAI billed."""
        return _Amounts(self._costs, "cost", self._cost_mask)

    @property
    def _estimate(self) -> _Amounts:
        """What usage costs by the price list."""
        return self._used("estimate")

    @property
    def _money(self) -> _Amounts:
        """The money that is shown."""
        return self._bill if self.basis == "billed" else self._estimate

    def _used(self, measure: str) -> _Amounts:
        """A measure of usage."""
        return _Amounts(self.usage, measure, self._usage_mask)

    @cached_property
    def priced(self) -> bool:
        """Whether there is any money to show."""
        return self.billable or self.estimated

    # --- time

    @cached_property
    def bins(self) -> list[int]:
        """The first day of each bar: every day, or every Monday of a long span."""
        first, *others = range(self.span.start, self.span.end, DAY)
        if self.weekly:
            others = [day for day in others if utc(day).weekday() == 0]
        return [first, *others]

    @property
    def weekly(self) -> bool:
        """Whether a bar is a week."""
        return self.span.days > WEEKLY

    def binned(self, rows: Numbers) -> Floats:
        """Days added up to bars."""
        first = self.span.start
        edges = [(start - first) // DAY for start in self.bins]
        sums = np.add.reduceat(rows, edges, axis=-1)
        return sums.astype(np.float64)

    @cached_property
    def compared(self) -> tuple[Span, Span] | None:
        """The days that are over, and as many before them.

        None if the store does not reach back so far.
        """
        start = self.asked.start
        end = min(self.asked.end, self._settled)
        if end <= start or self.data.first is None:
            return None
        length = end - start
        before = start - length
        if self.view.period in {"month", "last-month"}:
            # A month is compared from the first day of the month before, which may be shorter.
            before = month_start(start - DAY)
            length = min(length, start - before)
        # Days before the first row would count as free.
        if before < self.data.first:
            return None
        after_span = Span(start, start + length)
        before_span = Span(before, before + length)
        return after_span, before_span

    @property
    def _settled(self) -> int:
        """Days before this one will not cost more."""
        return self.data.settled if self.basis == "billed" else self.today

    # --- charts

    @cached_property
    def cost_series(self) -> list[Series]:
        """Cost over time by the dimension of the view."""
        return self._series(self._money) if self.priced else []

    @cached_property
    def request_series(self) -> list[Series]:
        """Requests over time by the dimension of the view."""
        return self._series(self._used("requests"))

    @cached_property
    def consumed_series(self) -> list[Series]:
        """Input and output tokens over time by the dimension of the view."""
        return self._series(self._used("input"), self._used("output"))

    @cached_property
    def token_series(self) -> list[Series]:
        """Tokens over time: input that was not cached, cached input, output."""
        input_ = self._used("input").by_day(self.span)
        cached = self._used("input_cached").by_day(self.span)
        output = self._used("output").by_day(self.span)
        parts = {"Input": input_ - cached, "Cached input": cached, "Output": output}
        series: list[Series] = []
        for label, days in parts.items():
            bars = self.binned(days)
            series.append(Series(label, label, bars))
        return series

    @cached_property
    def billed_and_estimated(self) -> tuple[Floats, Floats] | None:
        """Both, by bar; None unless both can answer the view.

        Events explain only a part of the bill, so their price says nothing about it.
        """
        if self.shows_events or not (self.billable and self.estimated):
            return None
        billed = self._bill.by_day(self.span)
        estimated = self._estimate.by_day(self.span)
        return self.binned(billed), self.binned(estimated)

    @cached_property
    def difference(self) -> tuple[float, float] | None:
        """Billed and estimated, over the days of the span that are over, billed and priced.

        None if there are none.
        """
        if self.billed_and_estimated is None:
            return None
        end = max(self.span.start, min(self.span.end, self.data.settled))
        span = Span(self.span.start, end)
        billed = self._bill.by_day(span)
        estimated = self._estimate.by_day(span)
        has_both = (billed > 0) & (estimated > 0)
        if not has_both.any():
            return None
        billed_sum = billed[has_both].sum()
        estimated_sum = estimated[has_both].sum()
        return float(billed_sum), float(estimated_sum)

    def _series(self, *measures: _Amounts) -> list[Series]:
        """The sum of measures of one cube: the highest series, and the rest as one."""
        known = [each for each in measures if each.is_known]
        if not known:
            return []
        days = [each.grouped(self.view.by, self.span) for each in known]
        rows = self.binned(np.sum(days, axis=0))
        ranked = _ranked(rows)
        # One more series has its own colour, because "1 others" would be no shorter.
        count = len(ranked) if len(ranked) <= TOP + 1 else TOP
        values = known[0].cube.columns[self.view.by].values
        series: list[Series] = []
        for index in ranked[:count]:
            value = values[index]
            series.append(Series(value, self.label(value), rows[index]))
        others = ranked[count:]
        if others:
            label = f"{len(others)} others"
            rest = rows[others].sum(axis=0)
            series.append(Series(None, label, rest, rest=True))
        return series

    def label(self, value: str | None) -> str:
        """The name of a value of the dimension."""
        return self.data.label(self.view.by, value)

    # --- numbers

    @cached_property
    def cost(self) -> float | None:
        """Cost over the period."""
        return self._money.total(self.asked) if self.priced else None

    @cached_property
    def cost_change(self) -> float | None:
        """By which share the cost grew over the period before."""
        return self._growth(self._money) if self.priced else None

    def counted(self, measure: str) -> int:
        """A count over the period."""
        return int(self._used(measure).total(self.asked))

    def counted_change(self, *measures: str) -> float | None:
        """By which share the sum of counts grew over the period before."""
        return self._growth(*(self._used(measure) for measure in measures))

    def _growth(self, *measures: _Amounts) -> float | None:
        """The growth as a share of the earlier sum; None without one."""
        if self.compared is None:
            return None
        after_span, before_span = self.compared
        after = sum(each.total(after_span) for each in measures)
        before = sum(each.total(before_span) for each in measures)
        return after / before - 1 if before else None

    @cached_property
    def unpriced(self) -> tuple[int, list[str]]:
        """Tokens that were not priced, and their models: by so much an estimate is too low."""
        if not self.estimated:
            return 0, []
        tokens = self._used("unpriced").by_value("model", self.span)
        total = sum(tokens.values())
        ranked = sorted(tokens, key=lambda model: (tokens[model], model or ""), reverse=True)
        return int(total), [model or "" for model in ranked]

    @cached_property
    def savings(self) -> Savings:
        """What caching saved over the period."""
        cached = self.counted("input_cached")
        input_ = self.counted("input")
        share = cached / input_ if input_ else None
        money = self._saved() if self._bill_has_classes else None
        return Savings(money, share)

    @property
    def _bill_has_classes(self) -> bool:
        """Whether the bill can tell cached from full input, by the filters of the view."""
        if self.shows_events or "quantity" not in self.data.costs.amounts:
            return False
        return all(self.data.bills(name) for name in self.view.filters)

    def _saved(self) -> float | None:
        """Cached quantities at the full price of their model, less what was billed for them."""
        saved = [self._saved_of(modality) for modality in ("", "text ", "audio ", "image ")]
        known = [money for money in saved if money is not None]
        return sum(known) if known else None

    def _saved_of(self, modality: str) -> float | None:
        """The same of tokens that the bill names by this modality."""
        full_cost, full_quantity = self._charged(f"{modality}input")
        cached_cost, cached_quantity = self._charged(f"{modality}cached input")
        is_used = (full_quantity > 0) & (cached_quantity > 0)
        # What credits outweigh has no price.
        is_known = is_used & (full_cost > 0)
        if not is_known.any():
            return None
        price = full_cost[is_known] / full_quantity[is_known]
        saved = price * cached_quantity[is_known] - cached_cost[is_known]
        return float(saved.sum())

    def _charged(self, charged: str) -> tuple[Floats, Floats]:
        """Cost and quantity by model of what is billed under this name."""
        costs = self.data.costs
        mask = costs.columns["charged"].among([charged])
        if self._cost_mask is not None:
            mask = mask & self._cost_mask
        cost = costs.by_value("cost", "model", self.asked, mask)
        quantity = costs.by_value("quantity", "model", self.asked, mask)
        return cost.astype(np.float64), quantity.astype(np.float64)

    # --- the month

    @cached_property
    def limit(self) -> Limit | None:
        """The spend limit of the view: the organization's, or that of the one project it shows.

        None for any other filter.
        """
        filters = self.view.filters
        project: str | None = None
        if filters:
            if filters.keys() != {"project"} or len(self.view.project) > 1:
                return None
            project = self.view.project[0]
        for limit in self.data.limits:
            if limit.project_id == project and limit.currency == self.data.currency:
                return limit
        return None

    @cached_property
    def month(self) -> Span:
        """The days of this month so far."""
        return Span(month_start(self.today), self.today + DAY, live=True)

    @cached_property
    def month_days(self) -> Floats:
        """The cost of each day of this month so far."""
        days = range(self.month.start, self.month.end, DAY)
        return np.array([self._daily_costs.get(day, 0.0) for day in days], np.float64)

    @cached_property
    def _daily_costs(self) -> dict[int, float]:
        """The cost of the last months by day, as the metrics of the month have it.

        A new day costs what it is estimated to, where its bill is still lower.
        """
        start = month_start(month_start(month_start(self.today) - DAY) - DAY)
        if self.data.first is not None:
            start = min(self.today, max(start, self.data.first))
        span = Span(start, self.today + DAY)
        days = range(span.start, span.end, DAY)
        costs = dict(zip(days, self._money.by_day(span).tolist(), strict=True))
        # Which part of a bill that is still to come is whose is not known yet.
        if self.basis == "billed" and self.estimated and not self.shows_events:
            new_from = floor(int(self.now) - ESTIMATED_FOR, DAY) - DAY
            for day in range(max(start, new_from), span.end, DAY):
                if self.now < day + DAY + ESTIMATED_FOR:
                    costs[day] += self._beyond_bill(Span(day, day + DAY))
        return costs

    def _beyond_bill(self, day: Span) -> float:
        """By how much the estimates of a day exceed its bill, project by project."""
        billed = self._bill.by_value("project", day)
        estimated = self._estimate.by_value("project", day)
        return sum(max(0.0, cost - billed.get(name, 0.0)) for name, cost in estimated.items())

    @cached_property
    def forecast(self) -> Forecast:
        """This month: spent, what it will have cost, the limit and when it is reached."""
        limit = None if self.limit is None else float(self.limit.amount)
        return of_month(
            self._daily_costs,
            self.now,
            self.month.start,
            month_end(self.today),
            limit,
            self._reached(limit),
        )

    def _reached(self, limit: float | None) -> float | None:
        """The start of the day on which the month's cost reached the limit; None if it did not."""
        if limit is None:
            return None
        is_beyond = np.cumsum(self.month_days) >= limit
        if not is_beyond.any():
            return None
        day = int(is_beyond.argmax())
        return float(self.month.start + day * DAY)

    # --- the table

    @cached_property
    def entries(self) -> list[Entry]:
        """Every value of the dimension with usage or cost in the period or the one before, sorted as
        the view asks.
        """
        sums: dict[str | None, dict[str, float]] = {}
        for column, (amounts, span) in self._table_amounts().items():
            for value, amount in amounts.by_value(self.view.by, span).items():
                sums.setdefault(value, {})[column] = amount
        entries = [self._entry(value, columns) for value, columns in sums.items()]
        return sorted(entries, key=_sort_key(self.sort), reverse=self.sort[0] == "-")

    def _table_amounts(self) -> dict[str, tuple[_Amounts, Span]]:
        """What the columns of the table are made from, by name."""
        amounts: dict[str, tuple[_Amounts, Span]] = {}
        for measure in ("requests", "input", "input_cached", "output", "estimate"):
            amounts[measure] = self._used(measure), self.asked
        if self.billable:
            amounts["billed"] = self._bill, self.asked
        if self.compared and self.priced:
            after, before = self.compared
            amounts["after"] = self._money, after
            amounts["before"] = self._money, before
        return amounts

    @property
    def sort(self) -> str:
        """The column that the table is sorted by, with `-` for the highest first."""
        return self.view.sort or ("-cost" if self.priced else "-requests")

    def _entry(self, value: str | None, sums: dict[str, float]) -> Entry:
        """An entry from the sums of its columns; what was not used is 0."""
        cost: float | None = None
        share: float | None = None
        if self.priced:
            cost = sums.get("billed" if self.basis == "billed" else "estimate")
        if cost is not None and self.cost:
            share = cost / self.cost
        before: float | None = None
        after: float | None = None
        if self.compared is not None and self.priced:
            before = sums.get("before", 0.0)
            after = sums.get("after", 0.0)

        def count(measure: str) -> int:
            return int(sums.get(measure, 0))

        return Entry(
            id=value,
            label=self.label(value),
            cost=cost,
            share=share,
            before=before,
            after=after,
            estimated=sums.get("estimate") if self.estimated else None,
            requests=count("requests"),
            input=count("input"),
            cached=count("input_cached"),
            output=count("output"),
        )

    @cached_property
    def movers(self) -> list[Entry]:
        """The entries whose cost changed most against the period before, by money."""

        def size(entry: Entry) -> float:
            return abs(entry.change or 0.0)

        moved = [entry for entry in self.entries if size(entry) >= _LEAST_CHANGE]
        moved.sort(key=size, reverse=True)
        return moved[:TOP]


def _ranked(rows: Floats) -> list[int]:
    """The rows with a sum, the one with the largest first."""
    totals = rows.sum(axis=1)
    order = np.argsort(-np.abs(totals), kind="stable")
    return [int(index) for index in order if totals[index]]


def _sort_key(sort: str) -> Callable[[Entry], tuple[float, str]]:
    """The key that sorts the table by a column. Unknown values count as 0."""
    column = sort.removeprefix("-")

    def key(entry: Entry) -> tuple[float, str]:
        label = entry.label.casefold()
        if column == "name":
            return 0.0, label
        return float(getattr(entry, column) or 0.0), label

    return key
