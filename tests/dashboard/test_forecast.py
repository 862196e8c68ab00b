"""Tests of what the month will come to. How good the forecast is, tests/domain/test_forecast.py says."""

import pytest

from otel_openai_usage.dashboard.cube import DAY
from otel_openai_usage.dashboard.forecast import of_month

DAYS = {day * DAY: 10.0 for day in range(30)}


def test_a_forecast_goes_on_at_the_level() -> None:
    """Ten days of 10 make 300 in a month of 30 days, and a limit of 150 is met after fifteen."""
    so_far = {day: cost for day, cost in DAYS.items() if day < 10 * DAY}
    made = of_month(so_far, 10 * DAY, 0, 30 * DAY, 150.0)
    assert made.spent == 100.0
    assert made.total == pytest.approx(300)
    assert made.reached == pytest.approx(15 * DAY)
    assert made.low is not None
    assert made.high is not None
    assert made.low < 300 < made.high


def test_a_limit_beyond_the_month_is_not_reached() -> None:
    """A limit that is reached after the end of the month has no day; with two days there is no
    forecast.
    """
    so_far = {day: cost for day, cost in DAYS.items() if day < 10 * DAY}
    assert of_month(so_far, 10 * DAY, 0, 30 * DAY, 301.0).reached is None
    nothing = of_month({0: 10.0, DAY: 10.0}, 2 * DAY, 0, 30 * DAY, 150.0)
    assert (nothing.total, nothing.reached, nothing.spent) == (None, None, 20.0)


def test_a_limit_that_was_reached_has_a_day() -> None:
    """The day on which it happened stands, whatever the forecast says."""
    assert of_month(DAYS, 10 * DAY, 0, 30 * DAY, 50.0, 6 * DAY).reached == 6 * DAY
