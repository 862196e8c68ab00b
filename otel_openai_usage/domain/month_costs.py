"""What this month and the last one cost, by project, as far as OpenAI's bill and the estimates of the
newest days say it; and what this month will have cost. Pure.

Times are Unix seconds; days and months are UTC and half-open.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeAlias

from otel_openai_usage.domain.forecast import Forecast, forecast
from otel_openai_usage.domain.model import Width, Window, floor
from otel_openai_usage.domain.pricing import CURRENCY
from otel_openai_usage.domain.windows import Progress, unread

_DAY = int(Width.DAY)
ESTIMATED_FOR = 2 * _DAY
"""Seconds after the end of a day until its bill counts as complete."""

DayKey: TypeAlias = tuple[int, str | None]
"""The start of a day, and a project; None for costs without one."""


@dataclass(frozen=True, slots=True)
class DayCosts:
    """The costs of days by project. `billed` is by day, project and currency, `estimated` is in US
    dollars.
    """

    billed: Mapping[tuple[int, str | None, str], Decimal] = field(default_factory=dict)
    estimated: Mapping[DayKey, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MonthCost:
    """The cost of one project (or of what has none) in one month and currency."""

    project_id: str | None
    currency: str
    billed: Decimal
    estimated: Decimal


@dataclass(frozen=True, slots=True)
class MonthForecast:
    """What a project will have cost; `project_id` is None for the whole organization."""

    is_organization: bool
    project_id: str | None
    currency: str
    forecast: Forecast


@dataclass(frozen=True, slots=True)
class MonthCosts:
    """The figures of one organization. None where days of the period were not read yet."""

    this_month: Sequence[MonthCost] | None = None
    last_month: Sequence[MonthCost] | None = None
    forecasts: Sequence[MonthForecast] = ()
    days_missing: int = 0
    """How many days of both months are still to be read."""


def month_of(time: float, back: int = 0) -> Window:
    """The UTC month that a time is in, or one of those before it."""
    at = datetime.fromtimestamp(time, UTC)
    number = at.year * 12 + at.month - 1 - back
    return Window(_month_start(number), _month_start(number + 1))


def _month_start(number: int) -> int:
    return int(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp())


def unread_days(
    progress: Progress, backfilled: Sequence[Window], start: int, end: int
) -> list[int]:
    """The days in [start, end) of which a source was not read whole. Both are midnights.

    Before counting began a day was read if a backfill read it; later unless it is marked as unread.
    """
    if not progress.complete:
        return list(range(start, end, _DAY))
    missing = list(unread(start, min(end, progress.epoch), backfilled))
    missing += [window for window in progress.unread if window.start < end and window.end > start]
    days: set[int] = set()
    for window in missing:
        first = floor(max(window.start, start), _DAY)
        days.update(range(first, min(window.end, end), _DAY))
    return sorted(days)


def month_costs(
    costs: DayCosts, is_unread: Callable[[int], bool], now: float, *, bills: bool
) -> MonthCosts:
    """The figures of an organization at `now`. `bills` says whether costs are read at all.

    `is_unread` says whether a day was not read.
    """
    this_month = month_of(now)
    last_month = month_of(now, 1)
    today = floor(int(now), _DAY)
    missing_now = _count(is_unread, range(this_month.start, today + 1, _DAY))
    missing_before = _count(is_unread, range(last_month.start, last_month.end, _DAY))
    days = _by_day(costs, now, bills=bills)
    forecasts: list[MonthForecast] = []
    if not missing_now:
        forecasts = list(_forecasts(days, now, this_month))
    return MonthCosts(
        None if missing_now else _sums(days, this_month),
        None if missing_before else _sums(days, last_month),
        forecasts,
        missing_now + missing_before,
    )


def _count(is_unread: Callable[[int], bool], days: Iterable[int]) -> int:
    return sum(1 for day in days if is_unread(day))


_Parts: TypeAlias = tuple[Decimal, Decimal]
"""Billed and estimated."""


def _by_day(
    costs: DayCosts, now: float, *, bills: bool
) -> dict[tuple[int, str | None, str], _Parts]:
    """Billed and estimated cost by day, project and currency.

    Estimated is what the estimate of a new day exceeds its bill by: OpenAI adds to a bill for hours.
    """
    zero = Decimal(0)
    found = {key: (billed, zero) for key, billed in costs.billed.items()}
    for (day, project), estimate in costs.estimated.items():
        key = (day, project, CURRENCY)
        billed = costs.billed.get(key, zero)
        is_new = now < day + _DAY + ESTIMATED_FOR
        if not bills or is_new:
            found[key] = (billed, max(zero, estimate - billed))
    return found


def _sums(days: Mapping[tuple[int, str | None, str], _Parts], month: Window) -> list[MonthCost]:
    sums: dict[tuple[str | None, str], _Parts] = {}
    zero = Decimal(0)
    for (day, project, currency), (billed, estimated) in days.items():
        if day in month:
            before = sums.get((project, currency), (zero, zero))
            sums[project, currency] = (before[0] + billed, before[1] + estimated)
    return [
        MonthCost(project, currency, billed, estimated)
        for (project, currency), (billed, estimated) in sorted(sums.items(), key=_by_name)
    ]


def _by_name(item: tuple[tuple[str | None, str], object]) -> tuple[str, str]:
    (project, currency), _ = item
    return (project or "", currency)


def _forecasts(
    days: Mapping[tuple[int, str | None, str], _Parts], now: float, month: Window
) -> Iterable[MonthForecast]:
    """The organization's forecast in each currency, then each project's."""
    by_currency: dict[str, dict[int, float]] = {}
    by_project: dict[tuple[str | None, str], dict[int, float]] = {}
    for (day, project, currency), (billed, estimated) in days.items():
        cost = float(billed + estimated)
        for of_days in (
            by_currency.setdefault(currency, {}),
            by_project.setdefault((project, currency), {}),
        ):
            of_days[day] = of_days.get(day, 0.0) + cost
    for currency, of_days in sorted(by_currency.items()):
        found = _forecast(of_days, now, month)
        if found:
            yield MonthForecast(True, None, currency, found)
    for (project, currency), of_days in sorted(by_project.items(), key=_by_name):
        found = _forecast(of_days, now, month)
        if found and project is not None:
            yield MonthForecast(False, project, currency, found)


def _forecast(of_days: Mapping[int, float], now: float, month: Window) -> Forecast | None:
    today = floor(int(now), _DAY)
    return forecast(of_days, of_days.get(today, 0.0), now, month.start, month.end)
