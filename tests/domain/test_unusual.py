"""Unusual cost: seldom a false alarm, and soon a true one."""

import random
from collections.abc import Sequence
from decimal import Decimal

import pytest

from otel_openai_usage.domain.unusual import DAY, HOUR, HourlyCost, Score, scores, usual

ALARM = 13.0
"""The score of the alert rule OpenAIUnusualCost."""
FIRST = 20_000 * DAY
HOURS = (3, 23)
"""At these hours the scores are looked at."""


def hour_of(rng: random.Random, day_cost: float, hour: int) -> Decimal:
    """The cost of an hour: more by day than by night, with chance."""
    shape = 0.3 + max(0.0, 1 - abs(hour - 14) / 8)
    return Decimal(str(round(day_cost * shape / 12 * rng.lognormvariate(0, 0.3), 6)))


def company(seed: int, days: int, series: int = 9) -> dict[int, list[HourlyCost]]:
    """The costs of an ordinary company, by day. Its projects grow a little, and rest at weekends."""
    rng = random.Random(seed)
    found: dict[int, list[HourlyCost]] = {}
    for number in range(series):
        project, model = f"p{number // 3}", f"m{number % 3}"
        level = rng.lognormvariate(3, 1.2)
        weekend = rng.uniform(0.2, 0.8)
        growth = rng.uniform(-0.004, 0.008)
        for place in range(days):
            day = FIRST + place * DAY
            factor = rng.lognormvariate(0, 0.25) * (1 + growth) ** place
            if (day // DAY + 3) % 7 >= 5:
                factor *= weekend
            for hour in range(24):
                cost = hour_of(rng, level * factor, hour)
                found.setdefault(day, []).append(
                    HourlyCost(day + hour * HOUR, project, model, cost)
                )
    return found


def at(costs: dict[int, list[HourlyCost]], now: int) -> list[Score]:
    """The scores at a time."""
    today = now // DAY * DAY
    past = [cost for day in costs if today - 35 * DAY <= day < today for cost in costs[day]]
    return scores(costs[today], usual(past, now), now)


def alarms(found: Sequence[Score]) -> set[object]:
    """What is beyond the threshold of the alert."""
    return {score.subject for score in found if score.value > ALARM}


def test_ordinary_months_have_hardly_a_false_alarm() -> None:
    """In twelve months of ordinary companies there is at most one false alarm a month and hundred
    series.
    """
    false_alarms = 0
    series_months = 0
    for seed in range(12):
        costs = company(seed, 65)
        seen: set[object] = set()
        for place in range(35, 65):
            for hour in HOURS:
                found = at(costs, FIRST + place * DAY + hour * HOUR + 600)
                seen |= {(place, subject) for subject in alarms(found)}
        false_alarms += len(seen)
        series_months += len(found)
    assert series_months > 100
    assert false_alarms <= series_months / 100


@pytest.mark.parametrize("hour", [1, 7, 13, 20])
@pytest.mark.parametrize("seed", [3, 4])
def test_a_leaked_key_is_seen_within_two_hours(seed: int, hour: int) -> None:
    """A key that spends as much in an hour as its project in a day is seen within two hours."""
    costs = company(seed, 48)
    today = FIRST + 47 * DAY
    of_project = [cost for cost in costs[today - DAY] if cost.project_id == "p0"]
    stolen = sum((cost.cost for cost in of_project), Decimal(0))
    for later in (hour, hour + 1):
        costs[today].append(HourlyCost(today + later * HOUR, "p0", "m0", stolen))
    found = alarms(at(costs, today + (hour + 2) * HOUR + 600))
    assert any(getattr(subject, "project_id", None) == "p0" for subject in found)


@pytest.mark.parametrize("seed", [5, 6])
def test_a_model_swap_is_seen_within_a_day(seed: int) -> None:
    """A new model that costs five times as much as the main one of its project, which it replaces, is
    seen on the same day.
    """
    costs = company(seed, 48)
    today = FIRST + 46 * DAY
    spent: dict[str | None, Decimal] = {}
    for cost in costs[today]:
        if cost.project_id == "p1":
            spent[cost.model] = spent.get(cost.model, Decimal(0)) + cost.cost
    replaced = max(spent, key=lambda model: spent[model])
    costs[today] = [
        cost._replace(model="new", cost=cost.cost * 5)
        if (cost.project_id, cost.model) == ("p1", replaced)
        else cost
        for cost in costs[today]
    ]
    found = alarms(at(costs, today + 23 * HOUR + 600))
    assert any(getattr(subject, "model", None) == "new" for subject in found)


def test_without_a_past_there_is_no_score() -> None:
    """Nine days of weekdays are too few, a tenth is enough; at midnight nothing is over yet."""
    monday = FIRST + (7 - (FIRST // DAY + 3) % 7) * DAY
    weekdays = [monday + place * DAY for place in range(14) if place % 7 < 5]

    def score(days: list[int]) -> list[Score]:
        costs = [HourlyCost(day + HOUR, "p", "m", Decimal(5)) for day in days]
        now = monday + 14 * DAY + 3 * HOUR
        return scores([], usual(costs, now), now)

    assert score(weekdays[:9]) == []
    assert {found.value for found in score(weekdays)} == {-5.0}
    midnight = monday + 14 * DAY
    costs = [HourlyCost(day + HOUR, "p", "m", Decimal(5)) for day in weekdays]
    assert scores([], usual(costs, midnight), midnight) == []
