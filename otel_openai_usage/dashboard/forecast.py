"""What the month will cost, and when a budget is reached. Pure decisions, without I/O.

The forecast itself is the one of the metrics: `domain.forecast`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from otel_openai_usage.domain.forecast import DAY, forecast


@dataclass(frozen=True, slots=True)
class Forecast:
    """Money, and times in Unix seconds.

    `total` is the month as likely exceeded as not, `low` and `high` are its 10th and 90th
    percentile, `rate` is money a day until its end; None where too little is known. `reached` is
    when the month's spending meets the limit: in the past if it has, None if it will not this month.
    """

    spent: float
    rate: float | None
    total: float | None
    low: float | None
    high: float | None
    limit: float | None
    reached: float | None


def of_month(
    days: Mapping[int, float],
    now: float,
    start: int,
    end: int,
    limit: float | None,
    reached_before: float | None = None,
) -> Forecast:
    """The forecast of the month [start, end).

    `days` has the cost by day, the running one and those before the month included.
    `reached_before` is when the limit was reached already.
    """
    today = int(now // DAY) * DAY
    spent = sum(cost for day, cost in days.items() if start <= day < end)
    found = forecast(days, days.get(today, 0.0), now, start, end)
    if found is None:
        return Forecast(spent, None, None, None, None, limit, reached_before)
    days_left = max(0.0, end - now) / DAY
    rate = (found.median - spent) / days_left if days_left else 0.0
    reached = reached_before
    if reached is None and limit is not None and rate > 0:
        when = now + (limit - spent) / rate * DAY
        reached = when if when < end else None
    low, high = found.by_percentile[10], found.by_percentile[90]
    return Forecast(spent, rate, found.median, low, high, limit, reached)
