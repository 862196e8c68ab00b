"""Budgets and balances, as pure functions."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.domain.budgets import (
    Budget,
    CostLine,
    Credit,
    Period,
    balance,
    basis_of,
    matches,
    passed,
    period,
    state_of,
)

DAY = 86400


def at(text: str) -> int:
    """Unix seconds of a UTC time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("kind", "now", "start", "end"),
    [
        ("day", "2026-11-25T15:00", "2026-11-25", "2026-11-26"),
        ("week", "2026-11-25T15:00", "2026-11-23", "2026-11-30"),
        ("week", "2026-11-23T00:00", "2026-11-23", "2026-11-30"),
        ("week", "2026-11-22T23:59", "2026-11-16", "2026-11-23"),
        ("month", "2026-12-31T23:59", "2026-12-01", "2027-01-01"),
        ("month", "2026-02-01T00:00", "2026-02-01", "2026-03-01"),
        ("quarter", "2026-11-25T15:00", "2026-10-01", "2027-01-01"),
        ("quarter", "2026-03-31T23:59", "2026-01-01", "2026-04-01"),
        ("year", "2026-11-25T15:00", "2026-01-01", "2027-01-01"),
    ],
)
def test_periods(kind: Period, now: str, start: str, end: str) -> None:
    """Periods are UTC and half-open; a week begins on Monday."""
    window = period(kind, at(now))
    assert (window.start, window.end) == (at(start), at(end))


@given(st.sampled_from(["day", "week", "month", "quarter", "year"]), st.integers(0, 2**32))
def test_periods_follow_each_other(kind: Period, now: int) -> None:
    """A time is in its period, and the period before ends where this one begins."""
    window = period(kind, now)
    assert now in window
    assert period(kind, now, 1).end == window.start


def test_the_bill_answers_what_it_has() -> None:
    """A budget that matches what the bill does not have is estimated."""

    def basis(**match: str) -> str:
        budget = Budget("b", Decimal(1), "usd", match=match)
        return basis_of(budget, bills=True, bills_keys=False)

    assert basis() == basis(project_id="p") == basis(model="gpt-5*") == "billed"
    assert basis(user_id="u") == basis(operation="images") == basis(batch="true") == "estimated"
    assert basis(api_key_id="k") == basis(api_key_name="K") == "estimated"
    keyed = Budget("b", Decimal(1), "usd", match={"api_key_id": "k"})
    assert basis_of(keyed, bills=True, bills_keys=True) == "billed"
    assert basis_of(Budget("b", Decimal(1), "usd"), bills=False, bills_keys=False) == "estimated"


def test_patterns_match_whole_values() -> None:
    """Every attribute must be there and match."""
    has = {"model": "gpt-5-mini", "project_id": "p"}
    assert matches({}, has)
    assert matches({"model": "gpt-5*", "project_id": "p"}, has)
    assert not matches({"model": "gpt-5"}, has)
    assert not matches({"user_id": "*"}, has)


def line(day: int, cost: str, currency: str = "usd", **attributes: str) -> CostLine:
    """A cost of an organization."""
    return CostLine(day, {"organization": "o", **attributes}, currency, Decimal(cost))


MONTH = at("2026-11-01")
NOW = at("2026-11-10T12:00")
TODAY = at("2026-11-10")


def test_a_new_day_costs_at_least_its_estimate() -> None:
    """Billed and estimated are as in cost_month; other currencies and projects are left out."""
    budget = Budget("b", Decimal(100), "usd", match={"project_id": "p"})
    billed = [
        line(MONTH, "10", project_id="p"),
        line(MONTH, "99", project_id="q"),
        line(MONTH, "99", "eur", project_id="p"),
        line(TODAY, "1", project_id="p"),
        line(MONTH - DAY, "50", project_id="p"),
    ]
    estimated = [line(MONTH, "77", project_id="p"), line(TODAY, "3", project_id="p")]
    state = state_of(budget, "billed", billed, estimated, NOW, lambda _: False)
    assert (state.billed, state.estimated) == (Decimal(11), Decimal(2))
    assert state.used == Decimal("0.13")
    estimate = state_of(budget, "estimated", billed, estimated, NOW, lambda _: False)
    assert (estimate.billed, estimate.estimated) == (Decimal(0), Decimal(80))


def test_an_unread_day_hides_what_is_spent() -> None:
    """Until every day of the period is read, nothing is shown; a day before the period is no matter."""
    budget = Budget("b", Decimal(100), "usd")
    lines = [line(MONTH + n * DAY, "1") for n in range(9)]
    hidden = state_of(budget, "billed", lines, [], NOW, lambda day: day == MONTH + 3 * DAY)
    assert (hidden.spent, hidden.forecast) == (None, None)
    shown = state_of(budget, "billed", lines, [], NOW, lambda day: day < MONTH)
    assert shown.spent == 9
    assert shown.forecast is not None


def test_a_bill_that_shrinks_is_followed() -> None:
    """Credits are negative costs, and count."""
    budget = Budget("b", Decimal(100), "usd")
    lines = [line(MONTH, "10"), line(MONTH + DAY, "-4.5")]
    state = state_of(budget, "billed", lines, [], NOW, lambda _: False)
    assert state.spent == Decimal("5.5")


def test_the_highest_threshold_counts() -> None:
    """What is reached exactly is reached."""
    thresholds = [Decimal("0.5"), Decimal("1.0"), Decimal("0.8")]
    assert passed(Decimal("0.49"), thresholds) is None
    assert passed(Decimal("0.5"), thresholds) == Decimal("0.5")
    assert passed(Decimal(7), thresholds) == Decimal("1.0")


# --- balance


def test_what_expires_first_is_used_first() -> None:
    """Credits are used from their day on, and are gone when they expire."""
    bought = [
        Credit("o", MONTH, Decimal(100), "usd"),
        Credit("o", MONTH + DAY, Decimal(20), "usd", MONTH + 3 * DAY),
    ]
    spent = {MONTH: Decimal(10), MONTH + DAY: Decimal(5), MONTH + 4 * DAY: Decimal(1)}
    early = balance(bought, spent, MONTH + 2 * DAY)
    assert early is not None
    assert early.left == Decimal(90) + Decimal(15)
    late = balance(bought, spent, MONTH + 5 * DAY)
    assert late is not None
    assert late.left == Decimal(89)


def test_a_balance_ends_at_the_rate_of_a_week() -> None:
    """At 10 a day 100 last ten days; what is used up has ended; without spending it never ends."""
    bought = [Credit("o", MONTH, Decimal(170), "usd")]
    spent = {MONTH + n * DAY: Decimal(10) for n in range(7)}
    found = balance(bought, spent, MONTH + 7 * DAY)
    assert found is not None
    assert found.left == 100
    assert found.ends == pytest.approx(MONTH + 17 * DAY)
    unused = balance(bought, {}, MONTH + 7 * DAY)
    assert unused is not None
    assert unused.ends is None
    assert balance(bought, spent, MONTH - 1) is None
    gone = balance(bought, {MONTH: Decimal(1000)}, MONTH + DAY)
    assert gone is not None
    assert gone.left == 0
    assert gone.ends == MONTH + DAY
