"""One OTLP request: resources with scopes, scopes with metrics, metrics with encoded points.

Field numbers: opentelemetry/proto/metrics/v1/metrics.proto and
opentelemetry/proto/collector/metrics/v1/metrics_service.proto.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from otel_openai_usage.exporters.otlp.wire import field, length_delimited_tag

MAX_POINTS = 5_000
"""Points in one request. A Collector's gRPC receiver takes 4 MiB by default. Our points have about
350 bytes, and with this limit up to 800 fit.
"""
CHUNK_POINTS = 500
"""Points in one chunk. A metric is always cut at the same points, so chunks can be reused."""

_RESOURCE_METRICS = length_delimited_tag(1)  # ExportMetricsServiceRequest.resource_metrics
_SCOPE_METRICS = length_delimited_tag(2)  # ResourceMetrics.scope_metrics
_METRICS = length_delimited_tag(2)  # ScopeMetrics.metrics


@dataclass(frozen=True, slots=True)
class Chunk:
    """Points of one metric, as encoded `data_points` fields."""

    points: int
    body: bytes


@dataclass(frozen=True, slots=True, eq=False)
class EncodedMetric:
    """One metric. Its chunks are encoded when a request needs them."""

    head: bytes
    """The fields `name`, `description` and `unit` of Metric."""
    data_tag: bytes
    """Announces the field of Metric with the data: `gauge`, `sum` or `histogram`."""
    data_tail: bytes
    """The fields of the data other than its points, such as the temporality."""
    chunks: Iterable[Chunk]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedScope:
    """One instrumentation scope and its metrics."""

    head: bytes
    """The fields of ScopeMetrics other than its metrics."""
    metrics: Iterable[EncodedMetric]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedResource:
    """One resource and its scopes."""

    head: bytes
    """The fields of ResourceMetrics other than its scopes."""
    scopes: Sequence[EncodedScope]


@dataclass(frozen=True, slots=True)
class Request:
    """The bytes of an ExportMetricsServiceRequest, and how many points they hold."""

    body: bytes
    points: int


@dataclass(frozen=True, slots=True)
class _Part:
    """One chunk and where it belongs."""

    resource: EncodedResource
    scope: EncodedScope
    metric: EncodedMetric
    chunk: Chunk


def split_into_requests(
    resources: Iterable[EncodedResource], max_points: int = MAX_POINTS
) -> Iterator[Request]:
    """Yield requests with all points in order. Encodes each when it is asked for.

    A request holds at most `max_points`, or one chunk if that alone has more.
    """
    parts: list[_Part] = []
    points = 0
    for part in _parts(resources):
        if parts and points + part.chunk.points > max_points:
            yield Request(_encoded(parts), points)
            parts = []
            points = 0
        parts.append(part)
        points += part.chunk.points
    if parts:
        yield Request(_encoded(parts), points)


def _parts(resources: Iterable[EncodedResource]) -> Iterator[_Part]:
    for resource in resources:
        for scope in resource.scopes:
            for metric in scope.metrics:
                for chunk in metric.chunks:
                    # A chunk is empty if none of its points could be encoded.
                    if chunk.points:
                        yield _Part(resource, scope, metric, chunk)


def _encoded(parts: Sequence[_Part]) -> bytes:
    """Return the body of a request."""
    body = []
    for resource, of_resource in groupby(parts, key=lambda part: part.resource):
        content = resource.head + _encoded_scopes(of_resource)
        body.append(field(_RESOURCE_METRICS, content))
    return b"".join(body)


def _encoded_scopes(parts: Iterable[_Part]) -> bytes:
    body = []
    for scope, of_scope in groupby(parts, key=lambda part: part.scope):
        content = scope.head + _encoded_metrics(of_scope)
        body.append(field(_SCOPE_METRICS, content))
    return b"".join(body)


def _encoded_metrics(parts: Iterable[_Part]) -> bytes:
    body = []
    for metric, of_metric in groupby(parts, key=lambda part: part.metric):
        points = b"".join([part.chunk.body for part in of_metric])
        content = metric.head + field(metric.data_tag, points + metric.data_tail)
        body.append(field(_METRICS, content))
    return b"".join(body)
