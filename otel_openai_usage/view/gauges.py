"""The gauges, as rows: cost by day, levels, spend limits, coverage; and the legacy counters.

Each function returns the rows of one poll. `GaugeTable` turns rows into points.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from operator import add
from typing import TypeAlias, TypeVar

from otel_openai_usage.domain.budgets import Balance, BudgetState
from otel_openai_usage.domain.legacy_day import COUNTERS, LABELS, Shown, Sums
from otel_openai_usage.domain.metered import Share
from otel_openai_usage.domain.model import Limit, Names, Rows, Width, floor
from otel_openai_usage.domain.month_costs import MonthCost, MonthForecast
from otel_openai_usage.domain.series_marks import Attributes, Key
from otel_openai_usage.domain.snapshot import Point, Series
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.domain.unusual import Score
from otel_openai_usage.view.attributes import (
    AttributePolicy,
    aggregate,
    attribute_key,
    dimensions,
    named,
    unnamed,
)

V = TypeVar("V")
GaugeRow: TypeAlias = tuple[Attributes, int | float]
"""The attributes and the value of one point."""

UNMETERED = "openai.unmetered.tokens"
COVERAGE = "openai.metered.coverage"
BUDGET = "openai.api.budget"
BUDGET_SPENT = "openai.api.budget_spent"
BUDGET_FORECAST = "openai.api.budget_forecast"
BALANCE = "openai.api.balance"
BALANCE_ENDS = "openai.api.balance_ends"

LEVEL_LASTS = Width.DAY
"""Seconds that a level is shown after its last bucket, up to the newest bucket of its source.

OpenAI reports no 0 for a deleted vector store: it stops reporting it.
"""

_DAILY_COST_DIMENSIONS = ("project_id", "line_item", "currency")


class GaugeTable:
    """The points of one gauge.

    A series that is in two successive updates stays the same object, and so does the list of points
    if nothing changed. Readers rely on that to reuse what they rendered.
    """

    def __init__(self) -> None:
        self._series: dict[Key, Series] = {}
        self._points: list[Point] = []
        self._start = 0

    def update(self, rows: Iterable[GaugeRow], start: int = 0) -> list[Point]:
        """Return the points for these rows: the list of the last call if they are equal.

        `start` is for counters: when counting began, in Unix nanoseconds.
        """
        reusable = self._series if start == self._start else {}
        self._start = start
        self._series = {}
        points = []
        for attributes, value in rows:
            key = attribute_key(attributes)
            series = reusable.get(key) or Series(attributes, start)
            self._series[key] = series
            points.append(Point(series, value))
        if points != self._points:
            self._points = points
        return self._points


def awaits_name(
    source_state: SourceState,
    stored_series: StoredSeries | None,
    names: Names,
    policy: AttributePolicy,
    now: float,
) -> bool:
    """Return whether a new stored series still waits for its name, as it does in the counters.

    Without the wait, a Collector would keep the point called `unknown` beside the named one.
    """
    if stored_series is None:
        return False
    age = now - stored_series.first_seen
    # An age below 0 means that the clock was set back: the wait could take days.
    is_new = 0 <= age < policy.name_wait
    return is_new and unnamed(dimensions(source_state, stored_series), names)


def daily_cost(
    source_state: SourceState,
    days: Mapping[int, Rows],
    names: Names,
    policy: AttributePolicy,
    organization_id: str | None,
    now: float,
) -> list[GaugeRow]:
    """Return the cost of each day. `days` is by the Unix time at which the day starts."""

    def rows() -> Iterator[tuple[Attributes, Decimal]]:
        for day in sorted(days):
            date = f"{datetime.fromtimestamp(day, UTC):%Y-%m-%d}"
            for dims, amounts in days[day].items():
                stored_series = source_state.series.get(dims)
                if awaits_name(source_state, stored_series, names, policy, now):
                    continue
                raw: Attributes = {"organization": source_state.organization, "date": date}
                for name, value in zip(source_state.endpoint.dimensions, dims, strict=True):
                    if value is not None and name in _DAILY_COST_DIMENSIONS:
                        raw[name] = value
                if organization_id:
                    raw["organization_id"] = organization_id
                yield policy.attributes(named(raw, names)), Decimal(amounts[0])

    costs = aggregate(rows(), add)
    return [(attributes, float(cost)) for attributes, cost in costs]


def levels(
    source_state: SourceState, names: Names, policy: AttributePolicy, now: float
) -> list[GaugeRow]:
    """Return the newest value of each stored series of a level."""
    oldest_shown = (source_state.status.newest_bucket or 0) - LEVEL_LASTS

    def rows() -> Iterator[tuple[Attributes, int]]:
        for stored_series in source_state.series.values():
            if stored_series.changed < oldest_shown:
                continue
            if awaits_name(source_state, stored_series, names, policy, now):
                continue
            raw: Attributes = {"organization": source_state.organization}
            raw.update(dimensions(source_state, stored_series))
            yield policy.attributes(named(raw, names)), int(stored_series.shown[0])

    return [*aggregate(rows(), add)]


def spend_limits(
    organization: str, limits: Iterable[Limit], names: Names, policy: AttributePolicy
) -> tuple[list[GaugeRow], list[GaugeRow]]:
    """Return the rows of spend_limit and of spend_limit_enforcing.

    Limits do not add up. If dropped attributes make two rows equal, the organization's limit stays.
    """
    amounts: list[tuple[Attributes, float]] = []
    enforcing: list[tuple[Attributes, int]] = []
    organization_first = sorted(limits, key=lambda limit: limit.project_id or "")
    for limit in organization_first:
        raw: Attributes = {"organization": organization}
        if limit.project_id:
            raw["project_id"] = limit.project_id
        raw = named(raw, names)
        with_currency = policy.attributes({**raw, "currency": limit.currency})
        amounts.append((with_currency, float(limit.amount)))
        enforcing.append((policy.attributes(raw), int(limit.enforcing)))
    return [*aggregate(amounts, _first)], [*aggregate(enforcing, _first)]


def month_cost(
    organization: str, costs: Iterable[MonthCost], names: Names, policy: AttributePolicy
) -> list[GaugeRow]:
    """Return the cost of a month: one row for each project, currency and part."""

    def rows() -> Iterator[tuple[Attributes, Decimal]]:
        for cost in costs:
            raw: Attributes = {"organization": organization}
            if cost.project_id is not None:
                raw["project_id"] = cost.project_id
            raw = {**named(raw, names), "currency": cost.currency}
            yield policy.attributes({**raw, "part": "billed"}), cost.billed
            yield policy.attributes({**raw, "part": "estimated"}), cost.estimated

    return [(attributes, float(cost)) for attributes, cost in aggregate(rows(), add)]


def month_forecast(
    organization: str,
    forecasts: Iterable[MonthForecast],
    names: Names,
    policy: AttributePolicy,
) -> list[GaugeRow]:
    """Return the forecasts of a month: the organization's, then each project's.

    Forecasts do not add up, so projects that the policy does not tell apart have none.
    """
    found: list[GaugeRow] = []
    for each in forecasts:
        if not each.is_organization and "project_id" in policy.drop:
            continue
        raw: Attributes = {"organization": organization}
        raw["scope"] = "organization" if each.is_organization else "project"
        if each.project_id is not None:
            raw["project_id"] = each.project_id
        raw = {**named(raw, names), "currency": each.currency}
        for percentile, cost in each.forecast.by_percentile.items():
            found.append((policy.attributes({**raw, "percentile": str(percentile)}), cost))
    return found


def budgets(states: Iterable[BudgetState], policy: AttributePolicy) -> dict[str, list[GaugeRow]]:
    """Return the rows of the instruments of budgets."""
    rows: dict[str, list[GaugeRow]] = {BUDGET: [], BUDGET_SPENT: [], BUDGET_FORECAST: []}
    for state in states:
        budget = state.budget
        raw: Attributes = {"budget": budget.name, "currency": budget.currency}
        if budget.organization is not None:
            raw["organization"] = budget.organization
        rows[BUDGET].append((policy.attributes(raw), float(budget.amount)))
        for part, cost in (("billed", state.billed), ("estimated", state.estimated)):
            if cost is not None:
                rows[BUDGET_SPENT].append((policy.attributes({**raw, "part": part}), float(cost)))
        by_percentile = state.forecast.by_percentile if state.forecast else {}
        for percentile, expected in by_percentile.items():
            attributes = policy.attributes({**raw, "percentile": str(percentile)})
            rows[BUDGET_FORECAST].append((attributes, expected))
    return rows


def balances(found: Iterable[Balance], policy: AttributePolicy) -> dict[str, list[GaugeRow]]:
    """Return the rows of the balance, and of when it runs out."""
    rows: dict[str, list[GaugeRow]] = {BALANCE: [], BALANCE_ENDS: []}
    for one in found:
        raw: Attributes = {"organization": one.organization, "currency": one.currency}
        rows[BALANCE].append((policy.attributes(raw), float(one.left)))
        if one.ends is not None:
            rows[BALANCE_ENDS].append((policy.attributes(raw), one.ends))
    return rows


def unusual_costs(
    organization: str, found: Iterable[Score], names: Names, policy: AttributePolicy
) -> list[GaugeRow]:
    """Return the scores of unusual cost. Scores do not add up: those of a dropped attribute are left
    out.
    """
    needed = {
        "organization": set[str](),
        "project": {"project_id"},
        "model": {"project_id", "model"},
    }
    rows: list[GaugeRow] = []
    for score in found:
        subject = score.subject
        if needed[subject.scope] & policy.drop:
            continue
        raw: Attributes = {"organization": organization, "scope": subject.scope}
        if subject.project_id is not None:
            raw["project_id"] = subject.project_id
        if subject.model is not None:
            raw["model"] = subject.model
        rows.append((policy.attributes(named(raw, names)), score.value))
    return rows


def legacy_counters(shown: Shown, policy: AttributePolicy) -> dict[str, list[GaugeRow]]:
    """Return the rows of the legacy counters, by instrument."""

    def rows() -> Iterator[tuple[Attributes, Sums]]:
        for labels, sums in shown.sums.items():
            pairs = zip(LABELS, labels, strict=True)
            raw: Attributes = {name: value for name, value in pairs if value}
            yield policy.attributes(raw), sums

    totals = aggregate(rows(), _add_sums)
    return {
        name: [(attributes, sums[index]) for attributes, sums in totals]
        for index, name in enumerate(COUNTERS)
    }


def coverage(shares: Iterable[Share], policy: AttributePolicy) -> dict[str, list[GaugeRow]]:
    """Return the rows of the two gauges that compare usage with events.

    `openai.unmetered.tokens` is used minus explained. `openai.metered.coverage` is explained
    divided by used; it has no row where nothing was used.
    """

    def rows() -> Iterator[tuple[Attributes, tuple[int, int]]]:
        for share in shares:
            raw: Attributes = {"organization": share.organization, "token_type": share.token_type}
            if share.model is not None:
                raw["model"] = share.model
            yield policy.attributes(raw), (share.used, share.explained)

    unmetered: list[GaugeRow] = []
    explained_parts: list[GaugeRow] = []
    # Divide after the rows are added up: parts of different totals do not add up.
    for attributes, (used, explained) in aggregate(rows(), _add_pairs):
        unmetered.append((attributes, used - explained))
        if used:
            explained_parts.append((attributes, explained / used))
    return {UNMETERED: unmetered, COVERAGE: explained_parts}


def days_shown(now: int, days: int) -> range:
    """Return the starts of the last `days` UTC days, today included."""
    today = floor(now, Width.DAY)
    first = today - (days - 1) * Width.DAY
    return range(first, today + 1, Width.DAY)


def _first(earlier: V, _: V) -> V:
    return earlier


def _add_sums(one: Sums, other: Sums) -> Sums:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2])


def _add_pairs(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return (one[0] + other[0], one[1] + other[1])
