"""The gauges beside the counters: daily cost and levels."""

from decimal import Decimal

import pytest

from otel_openai_usage.domain.endpoints import COSTS, USAGE_ENDPOINTS
from otel_openai_usage.domain.legacy_day import COUNTERS, Shown
from otel_openai_usage.domain.model import NO_NAMES, Limit, Names, Width
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.gauges import (
    GaugeTable,
    daily_cost,
    legacy_counters,
    levels,
    spend_limits,
)
from tests.domain.shelf import MIDNIGHT, source_state

PROJECT = ("proj_a", "gpt-5, input", None, None, None, "usd")
NAMED = Names({"proj_a": "Atlas"}, {}, {})


@pytest.fixture
def costs() -> SourceState:
    """The cost of one project on one day, first seen at midnight."""
    one = source_state(COSTS)
    amounts = (Decimal("0E-6176"), Decimal(0))
    one.series.add(StoredSeries(1, PROJECT, amounts, amounts, True, MIDNIGHT, MIDNIGHT))
    one.days = {MIDNIGHT: {PROJECT: amounts}}
    return one


def test_a_day_that_cost_nothing_is_shown(costs: SourceState) -> None:
    """A cost of 0 is shown with all its attributes."""
    ((attributes, value),) = daily_cost(
        costs, costs.days, NAMED, AttributePolicy(), "org-1", MIDNIGHT
    )
    assert (
        attributes["project_name"],
        attributes["organization_id"],
        attributes["currency"],
        value,
    ) == ("Atlas", "org-1", "usd", 0.0)


def test_a_gauge_waits_for_its_name_as_a_counter_does(costs: SourceState) -> None:
    """A cost whose project has no name is shown after 30 s, as `unknown`. Without the wait, a
    Collector would keep both.
    """
    assert daily_cost(costs, costs.days, NO_NAMES, AttributePolicy(), None, MIDNIGHT + 29) == []
    ((attributes, _),) = daily_cost(
        costs, costs.days, NO_NAMES, AttributePolicy(), None, MIDNIGHT + 30
    )
    assert attributes["project_name"] == "unknown"


def test_a_level_is_shown_for_a_day_after_its_last_bucket() -> None:
    """A project whose vector stores were deleted is shown for one more day."""
    one = source_state(USAGE_ENDPOINTS["vector_stores"])
    one.series.add(StoredSeries(1, ("proj_a",), (5,), (5,), True, 0, MIDNIGHT))
    one.status.newest_bucket = MIDNIGHT + Width.DAY
    assert [value for _, value in levels(one, NAMED, AttributePolicy(), MIDNIGHT)] == [5]
    one.status.newest_bucket += 1
    assert levels(one, NAMED, AttributePolicy(), MIDNIGHT) == []


def test_equal_limits_do_not_add_up() -> None:
    """If only the dropped project tells limits apart, the organization's limit is shown."""
    limits = [Limit("proj_a", Decimal(5), "usd", True), Limit(None, Decimal(90), "usd", False)]
    policy = AttributePolicy(drop=frozenset({"project_id", "project_name"}))
    amounts, enforcing = spend_limits("default", limits, NAMED, policy)
    assert amounts == [({"organization": "default", "currency": "usd"}, 90.0)]
    assert enforcing == [({"organization": "default"}, 0)]


def test_legacy_counters_add_up_when_attributes_are_dropped() -> None:
    """Records that differ only in a dropped attribute share a row."""
    sums = {
        ("org-1", "", "completion", "a"): (1, 10, 100),
        ("org-1", "", "edit", "a"): (2, 20, 200),
    }
    policy = AttributePolicy(drop=frozenset({"operation"}))
    rows = legacy_counters(Shown(MIDNIGHT, sums), policy)
    attributes = {"organization_id": "org-1", "snapshot_id": "a"}
    assert [rows[name] for name in COUNTERS] == [
        [(attributes, 3)],
        [(attributes, 30)],
        [(attributes, 300)],
    ]


def test_an_unchanged_table_returns_the_same_list() -> None:
    """Equal rows give the same list of points, and a changed value keeps the series."""
    table = GaugeTable()
    before = table.update([({"source": "costs"}, 1)])
    assert table.update([({"source": "costs"}, 1)]) is before
    after = table.update([({"source": "costs"}, 2)])
    assert after is not before
    assert after[0].series is before[0].series
