"""Counters for readers with delta temporality: only what was booked since the start."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.domain.snapshot import Point, Series
from otel_openai_usage.exporters.sdk.since_start import SinceStart


def points(values: Mapping[str, int], **more: str) -> list[Point]:
    """Return points of models with these values."""
    return [Point(Series({"model": model, **more}), value) for model, value in values.items()]


def shown(counted: list[Point] | object) -> dict[str, float]:
    """Return the values by model."""
    assert isinstance(counted, list)
    return {str(point.series.attributes["model"]): point.value for point in counted}


def named(name: str, value: int) -> list[Point]:
    """Return one project under a name."""
    return [Point(Series({"project_id": "p", "project_name": name}), value)]


def test_only_what_was_booked_since_counts() -> None:
    """A series that was there begins at 0, one that comes later has all that it counts."""
    since = SinceStart(points({"a": 1000}))
    assert shown(since.points(points({"a": 1000}))) == {"a": 0}
    assert shown(since.points(points({"a": 1007, "b": 5}))) == {"a": 7, "b": 5}


def test_a_renamed_series_counts_on() -> None:
    """After a rename the old series stands still, and the new one has only what came after it."""
    since = SinceStart(named("old", 1000))
    since.points(named("old", 1010))
    after = since.points(named("new", 1013))
    by_name = {point.series.attributes["project_name"]: point.value for point in after}
    assert by_name == {"new": 3, "old": 10}


def test_a_silent_series_returns_with_its_count() -> None:
    """A series that was left out for a while stands still, and counts on when it returns."""
    since = SinceStart(points({"a": 100}))
    since.points(points({"a": 110}))
    assert shown(since.points([])) == {"a": 10}
    assert shown(since.points(points({"a": 115}))) == {"a": 15}


def test_two_that_continue_one_share_its_value() -> None:
    """If a dropped id let two projects share a name, what they had is subtracted once."""
    since = SinceStart(points({"a": 100}, api_key_name="old"))
    after = since.points(
        points({"a": 80}, api_key_name="one") + points({"a": 30}, api_key_name="two")
    )
    assert sum(point.value for point in after) == 10


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), min_size=1),
        min_size=1,
        max_size=8,
    )
)
def test_no_counter_falls_and_nothing_is_lost(steps: list[dict[str, int]]) -> None:
    """Whichever snapshots a reader misses, values never fall, and the sum is what was added."""
    totals = {"a": 100}
    since = SinceStart(points(totals))
    before: dict[str, float] = {}
    for step in steps:
        for model, more in step.items():
            totals[model] = totals.get(model, 0) + more
        after = shown(since.points(points(totals)))
        assert all(after[model] >= value for model, value in before.items())
        before = after
    assert sum(before.values()) == sum(totals.values()) - 100
