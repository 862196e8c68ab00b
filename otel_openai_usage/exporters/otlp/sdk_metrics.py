"""Metrics of the OpenTelemetry SDK → encoded resources, by the official encoder."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb2
from opentelemetry.sdk.metrics.export import Metric, MetricsData, ResourceMetrics

from otel_openai_usage.exporters.otlp.left_out import NOT_ENCODABLE, LeftOut, require_encodable
from otel_openai_usage.exporters.otlp.request import (
    CHUNK_POINTS,
    Chunk,
    EncodedMetric,
    EncodedResource,
    EncodedScope,
    Request,
    split_into_requests,
)
from otel_openai_usage.exporters.otlp.wire import length_delimited_tag


def encoded_sdk_metrics(data: MetricsData, left_out: LeftOut) -> list[EncodedResource]:
    """Return what the official encoder makes of these metrics.

    Points that it cannot encode are counted in `left_out`.
    """
    request = encode_metrics(_without_unencodable(data, left_out))
    return [_encoded_resource(message) for message in request.resource_metrics]


def sdk_requests(data: MetricsData, left_out: LeftOut) -> Iterator[Request]:
    """Yield requests with all points of these metrics."""
    yield from split_into_requests(encoded_sdk_metrics(data, left_out))


def _encoded_resource(message: pb2.ResourceMetrics) -> EncodedResource:
    head = pb2.ResourceMetrics(resource=message.resource, schema_url=message.schema_url)
    scopes = [_encoded_scope(scope) for scope in message.scope_metrics]
    return EncodedResource(head.SerializeToString(), scopes)


def _encoded_scope(message: pb2.ScopeMetrics) -> EncodedScope:
    head = pb2.ScopeMetrics(scope=message.scope, schema_url=message.schema_url)
    metrics = [_encoded_metric(metric) for metric in message.metrics]
    return EncodedScope(head.SerializeToString(), metrics)


def _encoded_metric(message: pb2.Metric) -> EncodedMetric:
    head = pb2.Metric(name=message.name, description=message.description, unit=message.unit)
    kind = str(message.WhichOneof("data"))
    data_field = message.DESCRIPTOR.fields_by_name[kind]
    data: Any = getattr(message, kind)
    tail = type(data)()
    tail.CopyFrom(data)
    tail.ClearField("data_points")
    return EncodedMetric(
        head.SerializeToString(),
        length_delimited_tag(data_field.number),
        tail.SerializeToString(),
        _chunks(data),
    )


def _chunks(data: Any) -> Iterator[Chunk]:
    """Yield the points of a Gauge, Sum or Histogram message."""
    for first in range(0, len(data.data_points), CHUNK_POINTS):
        points = data.data_points[first : first + CHUNK_POINTS]
        only_points = type(data)(data_points=points)
        yield Chunk(len(points), only_points.SerializeToString())


def _without_unencodable(data: MetricsData, left_out: LeftOut) -> MetricsData:
    """Return the same without the points that the official encoder would stumble over."""
    resources = []
    for resource_metrics in data.resource_metrics:
        try:
            require_encodable(resource_metrics.resource.attributes)
        except NOT_ENCODABLE as error:
            left_out.add(_point_count(resource_metrics), error)
            continue
        scopes = []
        for scope_metrics in resource_metrics.scope_metrics:
            metrics = [_encodable_metric(metric, left_out) for metric in scope_metrics.metrics]
            # The official encoder writes no data for a metric without points.
            with_points = [metric for metric in metrics if metric.data.data_points]
            scopes.append(replace(scope_metrics, metrics=with_points))
        resources.append(replace(resource_metrics, scope_metrics=scopes))
    return MetricsData(resources)


def _encodable_metric(metric: Metric, left_out: LeftOut) -> Metric:
    points: list[Any] = []
    for point in metric.data.data_points:
        try:
            require_encodable(point.attributes or {})
            # Points of histograms have no single value.
            require_encodable({"value": getattr(point, "value", 0)})
        except NOT_ENCODABLE as error:
            left_out.add(1, error)
        else:
            points.append(point)
    data: Any = metric.data
    return replace(metric, data=replace(data, data_points=points))


def _point_count(resource_metrics: ResourceMetrics) -> int:
    count = 0
    for scope_metrics in resource_metrics.scope_metrics:
        for metric in scope_metrics.metrics:
            count += len(metric.data.data_points)
    return count
