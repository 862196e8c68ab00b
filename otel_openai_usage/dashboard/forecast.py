"""What the month will cost, and when a budget is reached. Pure decisions, without I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

DAY = 86400
LEAST_DAYS = 3
"""So many of the last seven days must have cost something; with fewer there is no forecast."""
EARLY = 3
"""In the first days of a month only the week's rate counts: one expensive day would be multiplied by
thirty.
"""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Money, and times in Unix seconds. `rate` is money a day; None where too little is known.

    `reached` is when the month's spending meets the limit: in the past if it has, None if it will
    not this month.
    """

    spent: float
    rate: float | None
    total: float | None
    limit: float | None
    reached: float | None


def rate(days: Sequence[float], elapsed_days: float) -> float | None:
    """Money a day from the whole days that ended last, oldest first: the higher of the last day's
    and the week's.
    """
    week = list(days[-7:])
    days_with_cost = [cost for cost in week if cost > 0]
    if len(days_with_cost) < LEAST_DAYS:
        return None
    weekly = sum(week) / len(week)
    if elapsed_days < EARLY:
        return weekly
    return max(weekly, week[-1])


def forecast(
    spent: float,
    known_until: float,
    end: float,
    per_day: float | None,
    limit: float | None,
    reached_before: float | None = None,
) -> Forecast:
    """Continue from `spent`, known until a time, at a daily rate until the month ends.

    `reached_before` is when the limit was reached already.
    """
    total: float | None = None
    if per_day is not None:
        days_left = max(0.0, end - known_until) / DAY
        total = spent + per_day * days_left
    reached = reached_before
    if reached is None and limit is not None and per_day:
        days_to_limit = (limit - spent) / per_day
        when = known_until + days_to_limit * DAY
        reached = when if when < end else None
    return Forecast(spent, per_day, total, limit, reached)
