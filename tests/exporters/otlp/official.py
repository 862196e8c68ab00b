"""Snapshots as points of the SDK, and as the official encoder encodes them."""

from collections.abc import Iterator

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_openai_usage import __version__
from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.domain.snapshot import AttributeValue, Point, Snapshot
from otel_openai_usage.exporters.resource import with_moved

_Moved = tuple[tuple[str, AttributeValue], ...]
SCOPE = InstrumentationScope("otel_openai_usage", __version__)
RESOURCE = Resource({"service.name": "x"})
NOW = 1_763_800_000_000_000_000


def official_data(
    snapshot: Snapshot, *to_resource: str, time: int = NOW, resource: Resource = RESOURCE
) -> MetricsData:
    """Return the points of a snapshot as the SDK's own classes."""
    metrics: dict[_Moved, dict[str, list[NumberDataPoint]]] = {}
    for name in INSTRUMENTS:
        for point in snapshot.points.get(name, ()):
            attributes = dict(point.series.attributes)
            moved: _Moved = tuple(
                (key, attributes.pop(key)) for key in to_resource if key in attributes
            )
            points = metrics.setdefault(moved, {}).setdefault(name, [])
            points.append(NumberDataPoint(attributes, _start(name, point), time, point.value, ()))
    resources = []
    for moved, by_name in metrics.items():
        scope = ScopeMetrics(SCOPE, [_metric(name, some) for name, some in by_name.items()], "")
        of_points = with_moved(resource, dict(moved)) if moved else resource
        resources.append(ResourceMetrics(of_points, [scope], ""))
    return MetricsData(resources)


def _start(name: str, point: Point) -> int:
    return point.series.start if INSTRUMENTS[name].kind == "counter" else 0


def _metric(name: str, points: list[NumberDataPoint]) -> Metric:
    row = INSTRUMENTS[name]
    if row.kind == "gauge":
        return Metric(row.name, row.description, row.unit, Gauge(points))
    data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
    return Metric(row.name, row.description, row.unit, data)


def official_bytes(data: MetricsData) -> bytes:
    """Return the request that the official encoder makes."""
    encoded: bytes = encode_metrics(data).SerializeToString(deterministic=True)
    return encoded


def flattened(*bodies: bytes) -> list[tuple[bytes, ...]]:
    """Return resource, scope, metric and point of every point of these requests, in order."""
    return [place for body in bodies for place in _places(body)]


def _places(body: bytes) -> Iterator[tuple[bytes, ...]]:
    request = ExportMetricsServiceRequest.FromString(body)
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                data = getattr(metric, metric.WhichOneof("data"))
                points = [point.SerializeToString() for point in data.data_points]
                data.ClearField("data_points")
                for point in points:
                    yield (
                        resource.resource.SerializeToString(),
                        scope.scope.SerializeToString(),
                        metric.SerializeToString(),
                        point,
                    )
