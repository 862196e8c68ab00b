"""Snapshot → MetricsData."""

from hypothesis import given, settings
from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, MetricsData, Sum
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_openai_usage import __version__
from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.domain.snapshot import Snapshot
from otel_openai_usage.exporters.otlp.producer import produce
from otel_openai_usage.exporters.resource import resource
from otel_openai_usage.exporters.self_metrics import SHOWN
from tests.exporters.boards import HOUSE, START, Rows, board, snapshot, stock_data
from tests.exporters.test_exposition import boards

SCOPE = InstrumentationScope("otel_openai_usage", __version__)
NOW = 1_763_800_000_000_000_000


def made(shown: Snapshot, *to_resource: str, time: int = NOW) -> MetricsData:
    """The MetricsData of a snapshot."""
    return produce(
        shown,
        INSTRUMENTS,
        time=time,
        resource=Resource({"service.name": "x"}),
        scope=SCOPE,
        to_resource=to_resource,
    )


def points(data: MetricsData) -> list[object]:
    """Everything but resource and times, in an order of its own."""
    found = [
        (
            scope.scope.name,
            scope.scope.version,
            metric.name,
            metric.unit,
            metric.description,
            type(metric.data).__name__,
            getattr(metric.data, "is_monotonic", None),
            getattr(metric.data, "aggregation_temporality", None),
            frozenset((point.attributes or {}).items()),
            type(point.value).__name__,
            point.value,
        )
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if isinstance(metric.data, Sum | Gauge)
        for point in metric.data.data_points
    ]
    return sorted(found, key=repr)


@given(boards)
@settings(max_examples=100, deadline=None)
def test_the_producer_and_the_callbacks_give_the_same_points(rows: Rows) -> None:
    """Name, unit, description, kind, temporality, attributes, value and its type are those of the
    SDK's own collection.
    """
    assert points(made(snapshot(rows))) == points(stock_data(board(rows)))


def test_a_counter_point_carries_the_start_of_its_counting() -> None:
    """Counters begin at their series' start and end now; ints stay ints and floats floats."""
    (resource,) = made(snapshot(HOUSE)).resource_metrics
    metrics = {metric.name: metric.data for metric in resource.scope_metrics[0].metrics}
    tokens = metrics["openai.api.tokens"]
    cost = metrics["openai.api.cost"]
    assert isinstance(tokens, Sum)
    assert isinstance(cost, Sum)
    assert (tokens.aggregation_temporality, tokens.is_monotonic) == (
        AggregationTemporality.CUMULATIVE,
        True,
    )
    assert {(point.start_time_unix_nano, point.time_unix_nano) for point in tokens.data_points} == {
        (START, NOW)
    }
    assert [point.value for point in tokens.data_points] == [12_345_678, 999_999, 0, 7]
    assert {type(point.value) for point in tokens.data_points} == {int}
    assert {type(point.value) for point in cost.data_points} == {float}


def test_attributes_move_to_the_resource() -> None:
    """One ResourceMetrics per set of moved attributes; its points lack them and together they are
    all points.
    """
    rows: Rows = {
        "openai.api.tokens": [
            ({"organization": "a", "model": "m"}, 1),
            ({"organization": "b", "model": "m"}, 2),
        ],
        "openai.api.requests": [({"organization": "b"}, 3), ({"model": "m"}, 4)],
    }
    seen: dict[object, list[tuple[str, object, float]]] = {}
    for part in made(snapshot(rows), "organization").resource_metrics:
        assert part.resource.attributes["service.name"] == "x"
        seen[part.resource.attributes.get("organization")] = [
            (metric.name, point.attributes, point.value)
            for metric in part.scope_metrics[0].metrics
            if isinstance(metric.data, Sum)
            for point in metric.data.data_points
        ]
    assert seen == {
        "a": [("openai.api.tokens", {"model": "m"}, 1)],
        "b": [("openai.api.tokens", {"model": "m"}, 2), ("openai.api.requests", {}, 3)],
        None: [("openai.api.requests", {"model": "m"}, 4)],
    }


def instance_ids(common: Resource, *to_resource: str) -> dict[object, object]:
    """The instance id by the organization in the resource."""
    rows: Rows = {
        "openai.api.up": [
            ({"organization": "a", "source": "costs"}, 1),
            ({"organization": "b", "source": "costs"}, 1),
            ({"source": "costs"}, 1),
        ]
    }
    data = produce(
        snapshot(rows),
        SHOWN,
        time=NOW,
        resource=common,
        scope=InstrumentationScope("x"),
        to_resource=to_resource,
    )
    attributes = [each.resource.attributes for each in data.resource_metrics]
    return {each.get("organization"): each["service.instance.id"] for each in attributes}


def test_each_resource_is_an_instance() -> None:
    """What moved makes an instance id of its own, which follows from the common one and stays the
    same; without moved attributes it is the common one.
    """
    one = instance_ids(resource("one", {}), "organization")
    assert one == instance_ids(resource("one", {}), "organization")
    assert one[None] == "one"
    assert len(set(one.values())) == 3
    two = instance_ids(resource("two", {}), "organization")
    assert not set(one.values()) & set(two.values())
    both = instance_ids(resource("one", {}), "source", "organization")
    assert both == instance_ids(resource("one", {}), "organization", "source")
    assert instance_ids(resource("one", {})) == {None: "one"}
    # A released id must not change: to a backend it would be a new series.
    assert one["a"] == "756cbf8d-d963-575a-ad20-7121e374b6cc"


def test_nothing_is_nothing() -> None:
    """An empty snapshot makes MetricsData without resources."""
    assert made(Snapshot()) == MetricsData([])
