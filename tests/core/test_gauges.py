"""The gauges beside the counters: cost by day, levels."""

from decimal import Decimal

import pytest

from otel_openai_usage.core.book import Book, Leaf
from otel_openai_usage.core.gauges import daily_cost, levels
from otel_openai_usage.core.kinds import COSTS, USAGE_KINDS
from otel_openai_usage.core.model import NO_NAMES, Names, Width
from otel_openai_usage.core.shape import Look
from tests.core.shelf import MIDNIGHT, book

PROJECT = ("proj_a", "gpt-5, input", None, None, None, "usd")
NAMED = Names({"proj_a": "Atlas"}, {}, {})


@pytest.fixture
def costs() -> Book:
    """A day's cost of one project, first seen at midnight."""
    one = book(COSTS)
    amounts = (Decimal("0E-6176"), Decimal(0))
    one.leaves[PROJECT] = Leaf(1, PROJECT, amounts, amounts, True, MIDNIGHT, MIDNIGHT)
    one.days = {MIDNIGHT: {PROJECT: amounts}}
    return one


def test_a_day_that_cost_nothing_is_said(costs: Book) -> None:
    """Zero is a cost like any other, with all its labels."""
    ((attributes, value),) = daily_cost(costs, costs.days, NAMED, Look(), "org-1", MIDNIGHT)
    assert (
        attributes["project_name"],
        attributes["organization_id"],
        attributes["currency"],
        value,
    ) == ("Atlas", "org-1", "usd", 0.0)


def test_a_gauge_waits_for_its_name_as_a_counter_does(costs: Book) -> None:
    """Not shown for 30 s while its project has no name, then as `unknown`: else a Collector would
    keep both.
    """
    assert daily_cost(costs, costs.days, NO_NAMES, Look(), None, MIDNIGHT + 29) == []
    ((attributes, _),) = daily_cost(costs, costs.days, NO_NAMES, Look(), None, MIDNIGHT + 30)
    assert attributes["project_name"] == "unknown"


def test_a_level_ends_a_day_after_the_last_word_of_it() -> None:
    """A project whose vector stores were deleted is not shown for ever."""
    one = book(USAGE_KINDS["vector_stores"])
    one.leaves[("proj_a",)] = Leaf(1, ("proj_a",), (5,), (5,), True, 0, MIDNIGHT)
    one.newest_bucket = MIDNIGHT + Width.DAY
    assert [value for _, value in levels(one, NAMED, Look(), MIDNIGHT)] == [5]
    one.newest_bucket += 1
    assert levels(one, NAMED, Look(), MIDNIGHT) == []
