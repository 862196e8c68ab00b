"""Snapshot → OTLP requests, beside what the official encoder makes of the same points."""

import gc
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource

from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.domain.pricing import Unpriced
from otel_openai_usage.domain.snapshot import Board, Point, Series, Snapshot
from otel_openai_usage.exporters.otlp.encoder import SnapshotEncoder
from otel_openai_usage.exporters.otlp.left_out import LeftOut
from otel_openai_usage.exporters.otlp.points import PointEncoder
from otel_openai_usage.exporters.otlp.request import CHUNK_POINTS
from otel_openai_usage.exporters.otlp.sdk_metrics import sdk_requests
from otel_openai_usage.exporters.resource import resource
from otel_openai_usage.exporters.self_instruments import SNAPSHOT_INSTRUMENTS
from otel_openai_usage.exporters.self_metrics import SelfMetrics
from tests.exporters.boards import ORGANIZATION, START, Rows, board, snapshot, stock_data
from tests.exporters.otlp.official import (
    NOW,
    RESOURCE,
    SCOPE,
    flattened,
    official_bytes,
    official_data,
)
from tests.exporters.prometheus.test_exposition import boards

WHOLE = 1_000_000


def encoder(*to_resource: str, **sizes: int) -> SnapshotEncoder:
    """Return an encoder of the catalogue's instruments."""
    return SnapshotEncoder(INSTRUMENTS, RESOURCE, SCOPE, to_resource, **sizes)


def whole(shown: Snapshot, *to_resource: str, time: int = NOW) -> bytes:
    """Return the only request of a small snapshot; empty if there is none."""
    left_out = LeftOut()
    bodies = [each.body for each in encoder(*to_resource).requests(shown, time, left_out)]
    assert left_out.points == 0
    assert len(bodies) <= 1
    return b"".join(bodies)


def decoded(body: bytes) -> ExportMetricsServiceRequest:
    """Return the request that these bytes are."""
    request: ExportMetricsServiceRequest = ExportMetricsServiceRequest.FromString(body)
    return request


def one_metric(points: Sequence[Point]) -> Snapshot:
    """Return a snapshot whose only instrument is a counter with these points."""
    return Snapshot(1, 0, {"openai.api.requests": points})


@given(boards)
@settings(max_examples=100, deadline=None)
def test_our_bytes_are_those_of_the_official_encoder(rows: Rows) -> None:
    """Whatever the snapshot holds, its request is byte for byte the official encoder's."""
    assert whole(snapshot(rows)) == official_bytes(official_data(snapshot(rows)))


@given(boards)
@settings(max_examples=100, deadline=None)
def test_our_points_are_those_of_the_sdks_instruments(rows: Rows) -> None:
    """What `instrument()` hands to any exporter has the same metrics, attributes and values."""
    ours = decoded(whole(snapshot(rows)))
    stock = decoded(official_bytes(stock_data(board(rows))))
    assert _without_times(ours) == _without_times(stock)


def _without_times(request: ExportMetricsServiceRequest) -> list[tuple[bytes, ...]]:
    for each in request.resource_metrics:
        for scope in each.scope_metrics:
            for metric in scope.metrics:
                for point in (*metric.sum.data_points, *metric.gauge.data_points):
                    point.time_unix_nano = 0
                    point.start_time_unix_nano = 0
                    point.attributes.sort(key=lambda pair: pair.key)
    places = flattened(request.SerializeToString())
    return sorted((scope, metric, point) for _, scope, metric, point in places)


@pytest.mark.parametrize("sizes", [(WHOLE, CHUNK_POINTS), (3, 1), (7, 4)])
@pytest.mark.parametrize("moved", [(), ("organization",)])
def test_requests_together_are_the_official_one(
    sizes: tuple[int, int], moved: tuple[str, ...]
) -> None:
    """Attributes of every type, moved or not, and our own health: each point once, in order."""
    health = SelfMetrics(Board(), RESOURCE)
    health.polled("acme", "usage/completions", 1.5, 10)
    odd: Rows = {
        **ORGANIZATION,
        "openai.api.sessions": [
            ({"a": 1, "b": True, "c": 1.5, "d": "1", "e": ""}, 2**62),
            ({"a": True, "b": 1}, 0),
        ],
    }
    own = health.collect()
    assert own
    max_points, chunk_points = sizes
    subject = encoder(*moved, max_points=max_points, chunk_points=chunk_points)
    for rows in (odd, {}):
        left_out = LeftOut()
        made = list(subject.requests(snapshot(rows), NOW, left_out, own))
        ours = flattened(*(request.body for request in made))
        official = official_bytes(official_data(snapshot(rows), *moved))
        assert ours == flattened(official, official_bytes(own))
        assert sum(request.points for request in made) == len(ours)
        assert left_out.points == 0
    health.shutdown()
    gc.collect()


def test_our_health_is_a_scope_beside_the_snapshot() -> None:
    """Health and snapshot of one resource are one ResourceMetrics."""
    health = SelfMetrics(Board(), RESOURCE)
    (request,) = encoder().requests(snapshot(ORGANIZATION), NOW, LeftOut(), health.collect())
    (only,) = decoded(request.body).resource_metrics
    names = [scope.scope.name for scope in only.scope_metrics]
    assert names == ["otel_openai_usage", "otel_openai_usage.health"]
    health.shutdown()


def test_a_request_has_a_limited_number_of_points() -> None:
    """Chunks are not divided, so a request may have fewer points than the limit, never more."""
    points = [Point(Series({"model": f"m{number}"}, 7), number) for number in range(20)]
    made = encoder(max_points=10, chunk_points=4).requests(one_metric(points), NOW, LeftOut())
    assert [request.points for request in made] == [8, 8, 4]


MOVES = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 3)), max_size=3)


@given(
    st.lists(st.tuples(MOVES, st.integers(0, 2), st.booleans()), min_size=3, max_size=6),
    st.sampled_from(["", "organization"]),
)
def test_points_that_stood_still_have_the_official_bytes(
    steps: list[tuple[list[tuple[int, int]], int, bool]], moved: str
) -> None:
    """In export after export, whatever moves, comes and goes, the bytes are the official ones."""
    to_resource = [moved] if moved else []
    subject = encoder(*to_resource, max_points=WHOLE, chunk_points=4)
    series = [Series({"organization": f"o{nth % 2}", "model": f"m{nth}"}, 7) for nth in range(30)]
    counter = [Point(each, 1) for each in series[:25]]
    gauge = [Point(each, 1) for each in series[:25]]
    for step, (moves, fewer, more) in enumerate(steps):
        for place, value in moves:
            if place < len(counter):
                counter[place] = Point(counter[place].series, value)
        counter = counter[fewer:]
        if more:
            counter = [*counter, Point(Series({"model": f"new{step}"}, 7), 1)]
        shown = Snapshot(
            step, 0, {"openai.api.requests": list(counter), "openai.api.daily_cost": list(gauge)}
        )
        bodies = [each.body for each in subject.requests(shown, NOW + step, LeftOut())]
        official = official_bytes(official_data(shown, *to_resource, time=NOW + step))
        assert b"".join(bodies) == official


def test_points_that_stood_still_are_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the third export on, a chunk that stood still is not encoded; one that moved is."""
    encoded: list[int] = []
    encode = PointEncoder._encode

    def counting(self: PointEncoder, points: Sequence[Point], *rest: Any, **named: Any) -> Any:
        encoded.append(len(points))
        return encode(self, points, *rest, **named)

    monkeypatch.setattr(PointEncoder, "_encode", counting)
    points = [Point(Series({"model": f"m{nth}"}, 7), 1) for nth in range(3 * CHUNK_POINTS)]
    subject = encoder()
    for step in range(4):
        list(subject.requests(one_metric(points), NOW + step, LeftOut()))
    assert encoded == [CHUNK_POINTS] * 6
    points[CHUNK_POINTS] = Point(points[CHUNK_POINTS].series, 2)
    list(subject.requests(one_metric(points), NOW + 9, LeftOut()))
    assert encoded == [CHUNK_POINTS] * 7


@pytest.mark.parametrize("model", ["m", "\x19" + "B" * 8, "m" * 200, "m" * 20_000])
def test_only_the_times_of_points_that_stood_still_change(model: str) -> None:
    """Attributes of any length stay as they are, even one with the bytes of the last time."""
    shown = one_metric([Point(Series({"model": model}, start), 1) for start in (0, 7)])
    subject = encoder()
    for letter in (b"A", b"B", b"C", b"D"):
        time = int.from_bytes(letter * 8, "little")
        (request,) = subject.requests(shown, time, LeftOut())
        assert request.body == official_bytes(official_data(shown, time=time))


def test_an_empty_snapshot_needs_no_request() -> None:
    """Without points there is nothing to send."""
    assert list(encoder().requests(Snapshot(), NOW, LeftOut())) == []
    assert list(sdk_requests(MetricsData([]), LeftOut())) == []


@pytest.mark.parametrize(
    ("attributes", "value"),
    [
        ({"model": "m"}, 2**63),
        ({"model": "m"}, -(2**63) - 1),
        ({"model": "m"}, 10**400),
        ({"model": "m"}, float("nan")),
        ({"model": "m"}, Decimal("NaN")),
        ({"model": "m"}, Decimal("sNaN")),
        ({"model": "half \ud83d"}, 1),
        ({"half \ud83d": "m"}, 1),
        ({"model": 2**63}, 1),
    ],
    ids=repr,
)
def test_a_point_that_cannot_be_encoded_is_left_out(attributes: dict[str, Any], value: Any) -> None:
    """All other points are sent in every export, and it is counted in every export."""
    good = [Point(Series({"model": f"m{nth}"}, 7), nth) for nth in range(4)]
    bad = Point(Series(attributes, 7), value)
    subject = encoder()
    for step in range(4):
        for place in (0, 2, 4):
            points = [*good[:place], bad, *good[place:]]
            shown = {"openai.api.requests": points, "openai.api.daily_cost": points}
            without = {"openai.api.requests": good, "openai.api.daily_cost": good}
            left_out = LeftOut()
            (request,) = subject.requests(Snapshot(1, 0, shown), NOW + step, left_out)
            official = official_data(Snapshot(1, 0, without), time=NOW + step)
            assert request.body == official_bytes(official)
            assert left_out.points == 2
            assert left_out.reason


def test_a_resource_that_cannot_be_encoded_is_left_out() -> None:
    """If an attribute that moved to the resource is not Unicode, its points are left out."""
    points = [
        Point(Series({"organization": name, "model": "m"}, 7), 1) for name in ("a", "b\udc00")
    ]
    left_out = LeftOut()
    (request,) = encoder("organization").requests(one_metric(points), NOW, left_out)
    (only,) = decoded(request.body).resource_metrics
    assert "a" in [pair.value.string_value for pair in only.resource.attributes]
    assert left_out.points == 1


def test_our_health_with_an_odd_name_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A point of the SDK whose attribute is not Unicode is left out, and nothing is logged."""
    health = SelfMetrics(Board(), Resource({}))
    for model in ("half \ud83d", "whole"):
        health.unpriced("acme", "completions", Unpriced(model, "tokens", "no_price"), 2)
    health.request("half \ud83d", "costs", 200, 1.5)
    data = health.collect()
    assert data
    left_out = LeftOut()
    (request,) = sdk_requests(data, left_out)
    assert b"whole" in request.body
    assert left_out.points == 3  # unpriced, and the number and duration of requests
    assert caplog.records == []
    health.shutdown()
    gc.collect()


def test_a_counter_point_has_the_start_of_its_series() -> None:
    """Counters begin at their series' start and end now; ints stay ints and floats floats."""
    (only,) = decoded(whole(snapshot(ORGANIZATION))).resource_metrics
    metrics = {metric.name: metric.sum for metric in only.scope_metrics[0].metrics}
    tokens = metrics["openai.api.tokens"].data_points
    cost = metrics["openai.api.cost"].data_points
    assert metrics["openai.api.tokens"].is_monotonic
    times = {(point.start_time_unix_nano, point.time_unix_nano) for point in tokens}
    assert times == {(START, NOW)}
    assert [point.as_int for point in tokens] == [12_345_678, 999_999, 0, 7]
    assert {point.WhichOneof("value") for point in tokens} == {"as_int"}
    assert {point.WhichOneof("value") for point in cost} == {"as_double"}


def test_attributes_move_to_the_resource() -> None:
    """Each set of moved attributes is one resource; its points lack them; no point is lost."""
    rows: Rows = {
        "openai.api.tokens": [
            ({"organization": "a", "model": "m"}, 1),
            ({"organization": "b", "model": "m"}, 2),
        ],
        "openai.api.requests": [({"organization": "b"}, 3), ({"model": "m"}, 4)],
    }
    seen: dict[str | None, list[tuple[str, dict[str, str], int]]] = {}
    for part in decoded(whole(snapshot(rows), "organization")).resource_metrics:
        attributes = {pair.key: pair.value.string_value for pair in part.resource.attributes}
        assert attributes["service.name"] == "x"
        seen[attributes.get("organization")] = [
            (
                metric.name,
                {pair.key: pair.value.string_value for pair in point.attributes},
                point.as_int,
            )
            for metric in part.scope_metrics[0].metrics
            for point in metric.sum.data_points
        ]
    assert seen == {
        "a": [("openai.api.tokens", {"model": "m"}, 1)],
        "b": [("openai.api.tokens", {"model": "m"}, 2), ("openai.api.requests", {}, 3)],
        None: [("openai.api.requests", {"model": "m"}, 4)],
    }


def instance_ids(common: Resource, *to_resource: str) -> dict[str | None, str]:
    """Return the instance id by the organization in the resource."""
    rows: Rows = {
        "openai.api.up": [
            ({"organization": "a", "source": "costs"}, 1),
            ({"organization": "b", "source": "costs"}, 1),
            ({"source": "costs"}, 1),
        ]
    }
    subject = SnapshotEncoder(SNAPSHOT_INSTRUMENTS, common, SCOPE, to_resource)
    (request,) = subject.requests(snapshot(rows), NOW, LeftOut())
    ids = {}
    for part in decoded(request.body).resource_metrics:
        attributes = {pair.key: pair.value.string_value for pair in part.resource.attributes}
        ids[attributes.get("organization")] = attributes["service.instance.id"]
    return ids


def test_each_resource_is_an_instance() -> None:
    """The instance id follows from the common one and the moved attributes, at every start."""
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
