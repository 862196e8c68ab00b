"""What the month will come to, and when a budget is reached. Decides; touches nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

DAY = 86400
ENOUGH = 3
"""So many of the last seven days must have cost something; with fewer there is no forecast."""
EARLY = 3
"""In the first days of a month one dear day would be multiplied by thirty: only the week's rate
counts then.
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
    if sum(cost > 0 for cost in week) < ENOUGH:
        return None
    weekly = sum(week) / len(week)
    return weekly if elapsed_days < EARLY else max(weekly, week[-1])


def forecast(
    spent: float,
    known_until: float,
    end: float,
    per_day: float | None,
    limit: float | None,
    reached_before: float | None = None,
) -> Forecast:
    """Go on from `spent`, known until a time, at a rate until the month ends. `reached_before`:
    when the limit was met already.
    """
    total = None if per_day is None else spent + per_day * max(0.0, end - known_until) / DAY
    reached = reached_before
    if reached is None and limit is not None and per_day:
        when = known_until + (limit - spent) / per_day * DAY
        reached = when if when < end else None
    return Forecast(spent, per_day, total, limit, reached)
