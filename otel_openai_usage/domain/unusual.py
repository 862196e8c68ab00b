"""Is today's cost unusual? Compares the estimated cost so far with what it usually is at this hour.

Usual is the median of the cost until this hour of the day, of weekdays or of weekends; a deviation
is a robust standard deviation of it. Pure. Times are Unix seconds, days are UTC.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from statistics import median
from typing import Literal, NamedTuple, TypeAlias

DAY = 86400
HOUR = 3600
KEPT = 35 * DAY
"""How long estimated cost is kept by the hour: 35 days have ten days of weekends."""
_NEWEST = 28 * DAY
_LEAST_SAMPLES = 10
_OF_MAD = 1.4826
"""The standard deviation of a normal distribution with a median absolute deviation of 1."""
_LEAST_DEVIATION = 1.0
"""In US dollars: what costs next to nothing is never unusual."""

Scope: TypeAlias = Literal["organization", "project", "model"]


class HourlyCost(NamedTuple):
    """The estimated cost of one hour, in US dollars."""

    hour: int
    project_id: str | None
    model: str | None
    cost: Decimal


class Subject(NamedTuple):
    """What is looked at: the organization, a project, or a model in a project."""

    scope: Scope
    project_id: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual until this hour: the median, and a deviation from it."""

    median: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Score:
    """How many deviations today's cost so far is from what is usual."""

    subject: Subject
    value: float


def subjects_of(cost: HourlyCost) -> tuple[Subject, ...]:
    """What a cost belongs to."""
    return (
        Subject("organization"),
        Subject("project", cost.project_id),
        Subject("model", cost.project_id, cost.model),
    )


def usual(past: Iterable[HourlyCost], now: float) -> dict[Subject, Usual]:
    """What is usual until the last whole hour, of those with enough samples.

    `past` has the costs of the days before today. A day without any cost of the organization is no
    sample; a day on which only a project had none is a sample of 0.
    """
    today = int(now // DAY) * DAY
    until = int(now // HOUR) * HOUR - today
    sums: dict[Subject, dict[int, float]] = {}
    days: set[int] = set()
    for cost in past:
        day = cost.hour // DAY * DAY
        if day >= today or _is_weekend(day) != _is_weekend(today):
            continue
        days.add(day)
        counted = float(cost.cost) if cost.hour - day < until else 0.0
        for subject in subjects_of(cost):
            by_day = sums.setdefault(subject, {})
            by_day[day] = by_day.get(day, 0.0) + counted
    samples = sorted(days, reverse=True)
    newest = [day for day in samples if day >= today - _NEWEST]
    kept = newest if len(newest) >= _LEAST_SAMPLES else samples
    if len(kept) < _LEAST_SAMPLES:
        return {}
    return {
        subject: _usual([by_day.get(day, 0.0) for day in kept]) for subject, by_day in sums.items()
    }


def _is_weekend(day: int) -> bool:
    # 1970-01-01 was a Thursday.
    return (day // DAY + 3) % 7 >= 5


def _usual(samples: list[float]) -> Usual:
    middle = median(samples)
    spread = median(abs(sample - middle) for sample in samples)
    return Usual(middle, max(_LEAST_DEVIATION, _OF_MAD * spread))


def scores(
    today: Iterable[HourlyCost], usual_costs: Mapping[Subject, Usual], now: float
) -> list[Score]:
    """How unusual today's costs are, until the last whole hour.

    A model without a past in a project with a past counts as usual 0, with the project's deviation.
    """
    until = int(now // HOUR) * HOUR
    if until % DAY == 0:
        return []
    sums: dict[Subject, float] = dict.fromkeys(usual_costs, 0.0)
    for cost in today:
        if cost.hour < until:
            for subject in subjects_of(cost):
                sums[subject] = sums.get(subject, 0.0) + float(cost.cost)
    found = []
    for subject, spent in sums.items():
        expected = usual_costs.get(subject)
        if expected is None and subject.scope == "model":
            of_project = usual_costs.get(Subject("project", subject.project_id))
            expected = of_project and Usual(0.0, of_project.deviation)
        if expected is not None:
            found.append(Score(subject, (spent - expected.median) / expected.deviation))
    return found
