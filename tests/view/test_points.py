"""The lists of points that snapshots share."""

from otel_openai_usage.domain.snapshot import Series
from otel_openai_usage.view.points import PointLists
from otel_openai_usage.view.series import AggregatedSeries

TOKENS = "openai.api.tokens"


def _series() -> AggregatedSeries:
    return AggregatedSeries(instrument=TOKENS, series=Series({}), floating=False)


def test_a_published_list_never_changes() -> None:
    """A change after a publication goes to a copy, and a second change to the same copy."""
    lists = PointLists()
    one = _series()
    lists.set(one, 1)
    before = lists.publish()[TOKENS]
    lists.set(one, 2)
    lists.set(_series(), 3)
    after = lists.publish()[TOKENS]
    assert [point.value for point in before] == [1]
    assert [point.value for point in after] == [2, 3]


def test_an_unchanged_list_is_the_same_object() -> None:
    """Readers recognize an unchanged instrument by the identity of its list."""
    lists = PointLists()
    lists.set(_series(), 1)
    assert lists.publish()[TOKENS] is lists.publish()[TOKENS]


def test_the_remaining_points_stay_in_their_order() -> None:
    """When a series becomes dormant, the others keep their order and can still change."""
    lists = PointLists()
    series = [_series() for _ in range(3)]
    for value, each in enumerate(series):
        lists.set(each, value)
    before = lists.publish()[TOKENS]
    lists.keep_only(TOKENS, [series[2], series[0]])
    lists.set(series[2], 20)
    assert [point.value for point in lists.publish()[TOKENS]] == [0, 20]
    assert [point.value for point in before] == [0, 1, 2]
