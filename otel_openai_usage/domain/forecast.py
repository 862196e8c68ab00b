"""What a period will have cost, from what its days have cost so far. Pure: no clock, no I/O.

A day of the future is expected to cost the recent level, times what its weekday usually costs more
or less, times the growth of the last weeks. How far the past was from such an expectation says how
far the future may be.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

DAY = 86400
PERCENTILES = (10, 50, 90)
LEAST_DAYS = 3
"""With fewer whole days there is no forecast."""
_MOST_DAYS = 56
"""Older days say nothing about the level or the weekdays of now."""
_WEEK = 7
_SHORT_HALF_LIFE = 3.0
_LONG_HALF_LIFE = 14.0
"""Days after which a day counts half as much for the level: while days differ by chance only, many
days say more; after a jump only the newest do.
"""
_FULL_WEEKS = 3
"""With so many weeks the weekdays count fully, with fewer in part."""
_GROWTH_SPAN = 28
_MOST_GROWTH = 0.03
"""The most growth, or decline, of a day that is believed."""
_GROWTH_BELIEF = 0.5
"""How much of the growth of the last weeks is expected to go on."""
_LEAST_COST = 1e-9
_OUTLIER = 3.0
"""A day that cost so many times more than usual (a batch) does not raise the level."""
_LEAST_SPREAD = 0.05
_PRIOR_SPREAD = 0.2
_PRIOR_DAYS = 4.0
"""The spread of a day's cost that is assumed before any day is known, and how many days it weighs."""
_DRIFT = 0.009
"""How much the level itself may drift in a day, as a part of it."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The cost of a whole period, by percentile, in currency units. Never below what is spent."""

    by_percentile: Mapping[int, float]

    @property
    def median(self) -> float:
        """The cost that is as likely exceeded as not."""
        return self.by_percentile[50]


def forecast(
    days: Mapping[int, float], spent_today: float, now: float, start: int, end: int
) -> Forecast | None:
    """Return what [start, end) will have cost; None with fewer than three whole days.

    `days` has the cost of whole UTC days by their start, also of days before the period; a day
    between the first one and today that is missing cost nothing. `spent_today` is the cost of the
    running day so far. Times are Unix seconds, `start` and `end` are midnights.
    """
    today = int(now // DAY) * DAY
    known = _whole_days(days, today)
    if len(known) < LEAST_DAYS:
        return None
    spent = spent_today if start <= today < end else 0.0
    spent += sum(cost for day, cost in days.items() if start <= day < min(today, end))
    model = _Model.of(known, today)
    remaining = [(today, 1.0 - (now - today) / DAY)] if start <= today < end else []
    remaining += [(day, 1.0) for day in range(max(start, today + DAY), end, DAY)]
    rest = sum(part * model.expected(day) for day, part in remaining)
    spread = model.spread_of_sum(remaining, rest)
    found = {}
    for percentile in PERCENTILES:
        distance = NormalDist().inv_cdf(percentile / 100)
        found[percentile] = spent + max(0.0, rest * math.exp(distance * spread))
    return Forecast(found)


def _whole_days(days: Mapping[int, float], today: int) -> list[float]:
    """The costs of the last whole days, the newest last, from the first one with a cost on."""
    first = min((day for day, cost in days.items() if day < today and cost > 0), default=today)
    first = max(first, today - _MOST_DAYS * DAY)
    costs = [days.get(day, 0.0) for day in range(first, today, DAY)]
    # What is less than any price is nothing: ratios of such costs are no numbers.
    return [cost if cost >= _LEAST_COST else 0.0 for cost in costs]


@dataclass(frozen=True, slots=True)
class _Model:
    today: int
    level: float
    growth: float
    """The growth of a day: 0.01 is one per cent."""
    weekdays: Sequence[float]
    """By the number of days since the epoch, modulo 7."""
    spread: float
    """How far a day is from its expectation: the standard deviation of the logarithm."""

    @classmethod
    def of(cls, known: Sequence[float], today: int) -> "_Model":
        first = today // DAY - len(known)
        weekdays = _weekday_factors(known, first)
        even = [cost / weekdays[(first + place) % _WEEK] for place, cost in enumerate(known)]
        growth = _growth(even)
        spread = _spread(even)
        level = _level(even, growth, spread)
        return cls(today, level, growth, weekdays, spread)

    def expected(self, day: int) -> float:
        """The expected cost of a whole day, today or later."""
        ahead = (day - self.today) / DAY
        return float(self.level * (1 + self.growth) ** ahead * self.weekdays[day // DAY % _WEEK])

    def spread_of_sum(self, remaining: Sequence[tuple[int, float]], rest: float) -> float:
        """The spread of the sum of days: each day has its own, and the level drifts."""
        if not remaining or rest <= 0:
            return 0.0
        variance = 0.0
        for day, part in remaining:
            cost = part * self.expected(day)
            variance += (cost * self.spread) ** 2
        own = math.sqrt(variance) / rest
        # The level is known from a few days only.
        of_level = self.spread / math.sqrt(3 * _SHORT_HALF_LIFE)
        drift = _DRIFT * len(remaining) ** 0.75 + abs(self.growth) * len(remaining) / 3
        return math.sqrt(own**2 + of_level**2 + drift**2)


def _weekday_factors(known: Sequence[float], first: int) -> list[float]:
    """How much more or less each weekday costs than the mean day of its week."""
    by_weekday: list[list[float]] = [[] for _ in range(_WEEK)]
    for place in range(len(known)):
        begin = max(0, min(place - _WEEK // 2, len(known) - _WEEK))
        week = known[begin : begin + _WEEK]
        mean = sum(week) / len(week)
        if len(week) == _WEEK and mean > 0:
            by_weekday[(first + place) % _WEEK].append(known[place] / mean)
    usual = [median(ratios) if ratios else 1.0 for ratios in by_weekday]
    noise = [
        (ratio - usual[number]) ** 2 for number, ratios in enumerate(by_weekday) for ratio in ratios
    ]
    weeks = len(noise) / _WEEK
    if weeks < 1:
        return [1.0] * _WEEK
    between = sum((factor - 1) ** 2 for factor in usual) / _WEEK
    within = sum(noise) / len(noise)
    # Weekdays that differ no more than by chance are alike.
    is_real = max(0.0, 1 - within / weeks / between) if between else 0.0
    belief = is_real * min(1.0, weeks / _FULL_WEEKS)
    factors = [max(0.01, belief * factor + (1 - belief)) for factor in usual]
    mean = sum(factors) / _WEEK
    return [factor / mean for factor in factors]


def _growth(even: Sequence[float]) -> float:
    """The growth of a day over the last weeks, from the medians of its halves."""
    recent = even[-_GROWTH_SPAN:]
    half = len(recent) // 2
    if half < _WEEK:
        return 0.0
    earlier = median(recent[:half])
    later = median(recent[-half:])
    if earlier <= 0 or later <= 0:
        return 0.0
    growth = (later / earlier) ** (1 / (len(recent) - half)) - 1
    believed = max(-_MOST_GROWTH, min(_MOST_GROWTH, growth))
    return float(believed * _GROWTH_BELIEF)


def _level(even: Sequence[float], growth: float, spread: float) -> float:
    """What a mean day costs now."""
    usual = median(even[-2 * _WEEK :])
    counted = []
    for place, cost in enumerate(even):
        is_outlier = usual > 0 and cost > _OUTLIER * usual and not _goes_on(even, place, usual)
        counted.append(usual if is_outlier else cost)
    short = _weighted(counted[-2 * _WEEK :], growth, _SHORT_HALF_LIFE)
    long = _weighted(counted, growth, _LONG_HALF_LIFE)
    if short <= 0 or long <= 0:
        return short
    # How surprising the newest days are if the level did not change.
    surprise = abs(math.log(short / long)) / (spread / math.sqrt(2 * _SHORT_HALF_LIFE))
    belief = min(1.0, (surprise / 2) ** 2)
    return float(belief * short + (1 - belief) * long)


def _weighted(costs: Sequence[float], growth: float, half_life: float) -> float:
    """The mean of the days, the newest last and counting most, each grown until now."""
    weight = 0.0
    total = 0.0
    for age, cost in enumerate(reversed(costs), 1):
        share = 0.5 ** (age / half_life)
        total += share * cost * (1 + growth) ** age
        weight += share
    return float(total / weight)


def _goes_on(even: Sequence[float], place: int, usual: float) -> bool:
    """Whether the day before or after cost as much: then it is a new level, not an outlier."""
    neighbours = [*even[max(0, place - 1) : place], *even[place + 1 : place + 2]]
    return any(cost > _OUTLIER * usual for cost in neighbours)


def _spread(even: Sequence[float]) -> float:
    """How far a day was from the days before it: the standard deviation of the logarithm."""
    squares = []
    for place in range(1, len(even)):
        before = [cost for cost in even[max(0, place - _WEEK) : place] if cost > 0]
        if before and even[place] > 0:
            # A single day beyond a factor of e says no more than that.
            distance = math.log(even[place] / (sum(before) / len(before)))
            squares.append(max(-1.0, min(1.0, distance)) ** 2)
    known = sum(squares)
    variance = (known + _PRIOR_DAYS * _PRIOR_SPREAD**2) / (len(squares) + _PRIOR_DAYS)
    return max(_LEAST_SPREAD, math.sqrt(variance))
