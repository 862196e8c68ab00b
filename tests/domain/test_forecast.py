"""One forecast, tried on simulated companies that were not used to build it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from statistics import mean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.domain.forecast import PERCENTILES, forecast
from tests.domain.companies import DAY, KINDS, company, months

SEEDS = (101, 102, 103)
"""Those below 100 were used to choose the constants."""
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "forecast.md"
START = 20_000 * DAY
END = START + 30 * DAY


@dataclass
class Score:
    """How one kind of company was forecast, from the 7th of each month on."""

    errors: list[float] = field(default_factory=list)
    naive_errors: list[float] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    """Of the band of 80 % on the 10th, as a part of the month."""


@cache
def scores() -> dict[str, Score]:
    """The backtest, by kind of company."""
    found = {kind: Score() for kind in KINDS}
    for kind, score in found.items():
        for seed in SEEDS:
            for month in months():
                start = int(month.timestamp())
                end = int((month + timedelta(days=32)).replace(day=1).timestamp())
                _score(score, company(kind, month, seed), start, end)
    return found


def _score(score: Score, days: Mapping[int, float], start: int, end: int) -> None:
    truth = sum(cost for day, cost in days.items() if start <= day < end)
    for today in range(start + 6 * DAY, end, DAY):
        now = today + 0.4 * DAY
        known = {day: cost for day, cost in days.items() if day < today}
        spent_today = 0.4 * days[today]
        spent = spent_today + sum(cost for day, cost in known.items() if day >= start)
        naive = spent / (now - start) * (end - start)
        found = forecast(known, spent_today, now, start, end)
        assert found is not None
        low, middle, high = (found.by_percentile[percentile] for percentile in PERCENTILES)
        score.errors.append(abs(middle - truth) / truth)
        score.naive_errors.append(abs(naive - truth) / truth)
        score.held.append(low <= truth <= high)
        if today == start + 9 * DAY:
            score.widths.append((high - low) / truth)


def table() -> list[str]:
    """The rows of the table in the documentation."""
    rows = []
    for kind, score in scores().items():
        rows.append(
            f"| {kind} | {median(score.errors):.1%} | {median(score.naive_errors):.1%} |"
            f" {mean(score.held):.0%} | {mean(score.widths):.0%} |"
        )
    errors = [error for score in scores().values() for error in score.errors]
    naive = [error for score in scores().values() for error in score.naive_errors]
    held = [one for score in scores().values() for one in score.held]
    widths = [one for score in scores().values() for one in score.widths]
    rows.append(
        f"| all | {median(errors):.1%} | {median(naive):.1%} | {mean(held):.0%} |"
        f" {mean(widths):.0%} |"
    )
    return rows


def test_the_error_is_below_that_of_the_mean() -> None:
    """From the 7th on the median error is below that of days so far times days of the month."""
    errors = [error for score in scores().values() for error in score.errors]
    naive = [error for score in scores().values() for error in score.naive_errors]
    assert median(errors) < median(naive)
    assert mean(errors) < mean(naive)


def test_the_band_holds_as_often_as_it_says() -> None:
    """Between the 10th and the 90th percentile lie 70 to 90 % of the months."""
    held = [one for score in scores().values() for one in score.held]
    assert 0.7 <= mean(held) <= 0.9


@pytest.mark.parametrize("kind", ["steady", "growing"])
def test_the_band_is_narrow_enough_to_be_of_use(kind: str) -> None:
    """On the 10th the band of companies that do not jump is at most 40 % of the month wide."""
    assert mean(scores()[kind].widths) <= 0.4


def test_the_documentation_has_these_figures() -> None:
    """docs/forecast.md has the table of this backtest."""
    text = DOCUMENT.read_text()
    assert [row for row in table() if row not in text] == []


costs = st.dictionaries(
    st.integers(-40, 29).map(lambda number: START + number * DAY),
    st.floats(0, 1e6, allow_nan=False),
)


@given(costs, st.floats(0, 1e6), st.integers(START, END - 1))
def test_a_forecast_is_never_below_what_is_spent(
    days: dict[int, float], spent_today: float, now: int
) -> None:
    """Every percentile is a number, not below month to date, and not below a lower percentile."""
    today = now // DAY * DAY
    known = {day: cost for day, cost in days.items() if day < today}
    found = forecast(known, spent_today, now, START, END)
    if found is None:
        return
    spent = spent_today + sum(cost for day, cost in known.items() if day >= START)
    values = [found.by_percentile[percentile] for percentile in PERCENTILES]
    assert values == sorted(values)
    assert all(math.isfinite(value) for value in values)
    assert values[0] >= spent * (1 - 1e-12)


def test_fewer_than_three_whole_days_are_no_forecast() -> None:
    """With two whole days there is none, with three there is."""
    two = {START: 5.0, START + DAY: 5.0}
    assert forecast(two, 1.0, START + 2 * DAY + 60, START, END) is None
    three = {**two, START + 2 * DAY: 5.0}
    found = forecast(three, 0.0, START + 3 * DAY, START, END)
    assert found is not None
    assert found.median == pytest.approx(150, rel=0.02)


def test_a_period_that_is_over_costs_what_it_cost() -> None:
    """All percentiles of a past period are its cost."""
    days = {START + number * DAY: 2.0 for number in range(60)}
    found = forecast(days, 0.0, END + 20 * DAY, START, END)
    assert found is not None
    assert set(found.by_percentile.values()) == {60.0}
