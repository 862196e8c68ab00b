"""Tests of what the month will come to."""

import pytest

from otel_openai_usage.dashboard.forecast import DAY, forecast, rate


@pytest.mark.parametrize(
    ("days", "elapsed", "expected"),
    [
        ([10.0] * 7, 10, 10.0),
        ([10.0] * 6 + [24.0], 10, 24.0),
        ([10.0] * 6 + [3.0], 10, 9.0),
        ([10.0] * 6 + [24.0], 2, 12.0),
        ([0, 0, 0, 0, 0, 9.0, 9.0], 10, None),
        ([], 10, None),
        ([4.0, 5.0, 6.0], 10, 6.0),
    ],
    ids=[
        "steady",
        "a dear day counts",
        "a cheap day does not",
        "but not early in a month",
        "sparse",
        "nothing",
        "a young store",
    ],
)
def test_the_rate_is_the_higher_of_a_day_and_a_week(
    days: list[float], elapsed: float, expected: float | None
) -> None:
    """Early in a month one day does not count for thirty; with fewer than three days with cost
    there is no rate.
    """
    assert rate(days, elapsed) == expected


def test_a_forecast_continues_at_the_rate() -> None:
    """Ten days of 30 at 10 a day make 300 with the 100 that were spent, and a limit of 150 is met
    after five more days.
    """
    made = forecast(100.0, 10 * DAY, 30 * DAY, 10.0, 150.0)
    assert (made.total, made.reached) == (300.0, 15 * DAY)


def test_a_limit_beyond_the_month_is_not_reached() -> None:
    """A limit that is reached after the end of the month has no day; without a rate there is no forecast."""
    assert forecast(100.0, 10 * DAY, 30 * DAY, 10.0, 301.0).reached is None
    nothing = forecast(100.0, 10 * DAY, 30 * DAY, None, 150.0)
    assert (nothing.total, nothing.reached, nothing.spent) == (None, None, 100.0)


def test_a_limit_that_was_reached_has_a_day() -> None:
    """The day on which it happened stands, whatever the rate says."""
    assert forecast(200.0, 10 * DAY, 30 * DAY, 10.0, 150.0, 6 * DAY).reached == 6 * DAY
