"""Budgets: what a period may cost, what it cost so far, and what it will have cost. Pure.

Times are Unix seconds, periods are UTC and half-open. Money is Decimal.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from otel_openai_usage.domain.forecast import Forecast, forecast
from otel_openai_usage.domain.model import Limit, Names, Width, Window, floor
from otel_openai_usage.domain.month_costs import ESTIMATED_FOR
from otel_openai_usage.domain.pricing import CURRENCY

_DAY = int(Width.DAY)
_WEEK = 7 * _DAY
_MONDAY = 4 * _DAY
"""1970-01-05 was a Monday."""

Period: TypeAlias = Literal["day", "week", "month", "quarter", "year"]
Basis: TypeAlias = Literal["billed", "estimated"]
_MONTHS = {"month": 1, "quarter": 3, "year": 12}

NOT_ON_THE_BILL = ("user_id", "operation", "batch")
"""Attributes that the bill does not have: a budget that matches one is estimated."""
MATCHABLE = (
    "organization", "project_id", "project_name", "api_key_id", "api_key_name", "user_id", "model",
    "operation", "batch",
)  # fmt: skip
"""Attributes of cost that a budget may match."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a period may cost. `match` has a pattern for each attribute; empty: everything."""

    name: str
    amount: Decimal
    currency: str
    period: Period = "month"
    match: Mapping[str, str] = field(default_factory=dict)
    basis: Basis = "billed"
    organization: str | None = None
    """The one organization that the budget is about, None for several."""


@dataclass(frozen=True, slots=True)
class CostLine:
    """The cost of one day and attribute set. `attributes` are those by which budgets match."""

    day: int
    attributes: Mapping[str, str]
    currency: str
    cost: Decimal


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget in its current period. `spent` and `forecast` are None while days are unread."""

    budget: Budget
    basis: Basis
    window: Window
    billed: Decimal | None = None
    estimated: Decimal | None = None
    forecast: Forecast | None = None

    @property
    def spent(self) -> Decimal | None:
        """Billed and estimated together, None while days of the period are unread."""
        if self.billed is None or self.estimated is None:
            return None
        return self.billed + self.estimated

    @property
    def used(self) -> Decimal | None:
        """The part of the amount that is spent: 1 for all of it."""
        spent = self.spent
        return None if spent is None else spent / self.budget.amount


def period(kind: Period, now: float, back: int = 0) -> Window:
    """The period of a kind that a time is in, or one of those before it."""
    if kind == "day":
        start = floor(int(now), _DAY) - back * _DAY
        return Window(start, start + _DAY)
    if kind == "week":
        start = (int(now) - _MONDAY) // _WEEK * _WEEK + _MONDAY - back * _WEEK
        return Window(start, start + _WEEK)
    months = _MONTHS[kind]
    at = datetime.fromtimestamp(now, UTC)
    number = (at.year * 12 + at.month - 1) // months * months - back * months
    return Window(_month_start(number), _month_start(number + months))


def _month_start(number: int) -> int:
    return int(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp())


def basis_of(budget: Budget, *, bills: bool, bills_keys: bool) -> Basis:
    """Whether the bill can answer the budget. `bills_keys` says whether it is grouped by API key."""
    matched = budget.match.keys()
    keys = {"api_key_id", "api_key_name"} & matched
    if not bills or matched & set(NOT_ON_THE_BILL) or (keys and not bills_keys):
        return "estimated"
    return budget.basis


def matches(match: Mapping[str, str], attributes: Mapping[str, str]) -> bool:
    """Whether attributes have all that a budget asks for. Patterns are those of fnmatch."""
    return all(
        name in attributes and fnmatchcase(attributes[name], pattern)
        for name, pattern in match.items()
    )


def state_of(
    budget: Budget,
    basis: Basis,
    billed: Iterable[CostLine],
    estimated: Iterable[CostLine],
    now: float,
    is_unread: Callable[[int], bool],
) -> BudgetState:
    """A budget in the period that `now` is in.

    Cost in another currency than the budget's is left out. The lines may be of days before the
    period, too: the forecast learns from them. `is_unread` says whether a day was not read.
    """
    window = period(budget.period, now)
    today = floor(int(now), _DAY)
    if any(is_unread(day) for day in range(window.start, today + 1, _DAY)):
        return BudgetState(budget, basis, window)
    parts = _of_lines(budget, basis, billed, estimated, now)
    days: dict[int, float] = {}
    billed_sum = Decimal(0)
    estimated_sum = Decimal(0)
    for (day, _), (billed_cost, estimated_cost) in parts.items():
        days[day] = days.get(day, 0.0) + float(billed_cost + estimated_cost)
        if day in window:
            billed_sum += billed_cost
            estimated_sum += estimated_cost
    found = forecast(days, days.get(today, 0.0), now, window.start, window.end)
    return BudgetState(budget, basis, window, billed_sum, estimated_sum, found)


def spent_by_day(
    budget: Budget,
    basis: Basis,
    billed: Iterable[CostLine],
    estimated: Iterable[CostLine],
    now: float,
) -> dict[int, Decimal]:
    """What was spent on each day, billed and estimated together."""
    days: dict[int, Decimal] = {}
    for (day, _), (bill, estimate) in _of_lines(budget, basis, billed, estimated, now).items():
        days[day] = days.get(day, Decimal(0)) + bill + estimate
    return days


def _of_lines(
    budget: Budget,
    basis: Basis,
    billed: Iterable[CostLine],
    estimated: Iterable[CostLine],
    now: float,
) -> dict[tuple[int, str], tuple[Decimal, Decimal]]:
    """Billed and estimated cost by day and project."""
    estimate: dict[tuple[int, str], Decimal] = {}
    if budget.currency == CURRENCY:
        estimate = _by_day_and_project(budget, estimated)
    if basis == "estimated":
        return {key: (Decimal(0), cost) for key, cost in estimate.items()}
    return _parts(_by_day_and_project(budget, billed), estimate, now)


def _by_day_and_project(
    budget: Budget, lines: Iterable[CostLine]
) -> dict[tuple[int, str], Decimal]:
    sums: dict[tuple[int, str], Decimal] = {}
    for line in lines:
        if line.currency == budget.currency and matches(budget.match, line.attributes):
            project = line.attributes.get("project_id", "")
            key = (line.day, f"{line.attributes.get('organization', '')} {project}")
            sums[key] = sums.get(key, Decimal(0)) + line.cost
    return sums


def _parts(
    bill: Mapping[tuple[int, str], Decimal],
    estimate: Mapping[tuple[int, str], Decimal],
    now: float,
) -> dict[tuple[int, str], tuple[Decimal, Decimal]]:
    """Billed and estimated, as `cost_month` has them: a new day costs at least its estimate."""
    zero = Decimal(0)
    parts = {key: (cost, zero) for key, cost in bill.items()}
    for key, cost in estimate.items():
        day, _ = key
        if now < day + _DAY + ESTIMATED_FOR:
            billed = bill.get(key, zero)
            parts[key] = (billed, max(zero, cost - billed))
    return parts


def of_limit(organization: str, limit: Limit, names: Names) -> Budget:
    """A spend limit of OpenAI as a budget."""
    match = {"organization": organization}
    name = "spend limit"
    if limit.project_id is not None:
        match["project_id"] = limit.project_id
        name = f"spend limit: {names.projects.get(limit.project_id) or limit.project_id}"
    return Budget(name, limit.amount, limit.currency, match=match, organization=organization)


def with_names(lines: Iterable[CostLine], names: Names) -> Iterable[CostLine]:
    """The lines with the names of their projects and keys."""
    for line in lines:
        added: dict[str, str] = {}
        _add_name(added, "project_name", names.projects, line.attributes.get("project_id"))
        _add_name(added, "api_key_name", names.api_keys, line.attributes.get("api_key_id"))
        yield replace(line, attributes={**line.attributes, **added}) if added else line


def _add_name(
    into: dict[str, str], key: str, names: Mapping[str, str | None], id_: str | None
) -> None:
    name = names.get(id_) if id_ is not None else None
    if name:
        into[key] = name


def passed(used: Decimal, thresholds: Collection[Decimal]) -> Decimal | None:
    """The highest threshold that the used part has reached, None for none."""
    return max((one for one in thresholds if used >= one), default=None)


@dataclass(frozen=True, slots=True)
class Credit:
    """Prepaid money of an organization. `date` and `expires` are midnights; it counts from `date`."""

    organization: str
    date: int
    amount: Decimal
    currency: str
    expires: int | None = None


@dataclass(frozen=True, slots=True)
class Balance:
    """What is left of the credits of an organization in one currency.

    `ends` is when it runs out at the current rate, None if it does not.
    """

    organization: str
    currency: str
    left: Decimal
    ends: float | None


def balance(
    bought: Sequence[Credit], spent_by_day: Mapping[int, Decimal], now: float
) -> Balance | None:
    """What is left of one organization's credits of one currency; None if none has begun.

    What expires first is used first. Spending beyond the credits makes no debt.
    """
    begun = [credit for credit in bought if credit.date <= now]
    if not begun:
        return None
    left = {number: credit.amount for number, credit in enumerate(begun)}
    order = sorted(left, key=lambda number: (begun[number].expires or float("inf"), number))
    today = floor(int(now), _DAY)
    for day in range(min(credit.date for credit in begun), today + 1, _DAY):
        cost = spent_by_day.get(day, Decimal(0))
        for number in order:
            credit = begun[number]
            is_valid = credit.date <= day and (credit.expires is None or day < credit.expires)
            if not is_valid or cost <= 0:
                continue
            used = min(cost, left[number])
            left[number] -= used
            cost -= used
    valid = [
        number for number in order if begun[number].expires is None or now < _expiry(begun[number])
    ]
    total = sum((left[number] for number in valid), Decimal(0))
    ends = _runs_out(total, spent_by_day, now)
    first = begun[0]
    return Balance(first.organization, first.currency, total, ends)


def _expiry(credit: Credit) -> float:
    return float("inf") if credit.expires is None else credit.expires


def _runs_out(left: Decimal, spent_by_day: Mapping[int, Decimal], now: float) -> float | None:
    """When money runs out at the rate of the last seven whole days."""
    today = floor(int(now), _DAY)
    week = [spent_by_day.get(day, Decimal(0)) for day in range(today - _WEEK, today, _DAY)]
    rate = sum(week, Decimal(0)) / 7
    if left <= 0:
        return now
    if rate <= 0:
        return None
    return now + float(left / rate) * _DAY
