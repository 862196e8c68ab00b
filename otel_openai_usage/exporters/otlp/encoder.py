"""Snapshot → OTLP requests, without the SDK's instruments and their callbacks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb2
from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_openai_usage.domain.gen_ai import GEN_AI_INSTRUMENTS, SCHEMA_URL
from otel_openai_usage.domain.instruments import Instrument
from otel_openai_usage.domain.snapshot import AttributeValue, Point, Snapshot
from otel_openai_usage.exporters.otlp.left_out import NOT_ENCODABLE, LeftOut, require_encodable
from otel_openai_usage.exporters.otlp.points import PointEncoder
from otel_openai_usage.exporters.otlp.request import (
    CHUNK_POINTS,
    MAX_POINTS,
    EncodedMetric,
    EncodedResource,
    EncodedScope,
    Request,
    split_into_requests,
)
from otel_openai_usage.exporters.otlp.sdk_metrics import encoded_sdk_metrics
from otel_openai_usage.exporters.otlp.wire import length_delimited_tag
from otel_openai_usage.exporters.resource import with_moved

_Moved: TypeAlias = tuple[tuple[str, AttributeValue], ...]
_PointsByName: TypeAlias = Mapping[str, Sequence[Point]]

_GAUGE = length_delimited_tag(5)  # Metric.gauge
_SUM = length_delimited_tag(7)  # Metric.sum
_COUNTER_TAIL: bytes = pb2.Sum(
    aggregation_temporality=pb2.AGGREGATION_TEMPORALITY_CUMULATIVE, is_monotonic=True
).SerializeToString()


class SnapshotEncoder:
    """Encodes snapshots. Remembers what it encoded. For one thread at a time.

    Counters become cumulative monotonic sums that begin at their series' own start; int stays int,
    float stays float. The attributes named in `to_resource` move to the resource: one
    ResourceMetrics for each set of their values, with an instance id of its own.
    """

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        resource: Resource,
        scope: InstrumentationScope,
        to_resource: Sequence[str] = (),
        *,
        max_points: int = MAX_POINTS,
        chunk_points: int = CHUNK_POINTS,
    ) -> None:
        self._instruments = instruments
        self._resource = resource
        self._scope = scope
        self._gen_ai_scope = InstrumentationScope(scope.name, scope.version, SCHEMA_URL)
        self._to_resource = to_resource
        self._max_points = max_points
        self._points = PointEncoder(to_resource, chunk_points)

    def requests(
        self,
        snapshot: Snapshot,
        time: int,
        left_out: LeftOut,
        sdk_metrics: MetricsData | None = None,
    ) -> Iterator[Request]:
        """Yield the requests of one export as of `time` (Unix nanoseconds).

        They hold the points whose instrument is known, and `sdk_metrics` (our own health). What
        cannot be encoded is counted in `left_out`.
        """
        self._points.begin_export(time)
        resources = self._encoded_snapshot(snapshot, left_out)
        if sdk_metrics is not None:
            resources += encoded_sdk_metrics(sdk_metrics, left_out)
        yield from split_into_requests(_merged(resources), self._max_points)

    def _encoded_snapshot(self, snapshot: Snapshot, left_out: LeftOut) -> list[EncodedResource]:
        resources = []
        for moved, points_by_name in self._groups(snapshot).items():
            resource = with_moved(self._resource, dict(moved)) if moved else self._resource
            try:
                require_encodable(resource.attributes)
            except NOT_ENCODABLE as error:
                left_out.add(sum(map(len, points_by_name.values())), error)
                continue
            for scope, some in self._by_scope(points_by_name):
                metrics = self._encoded_metrics(moved, some, left_out)
                resources.append(_envelope(resource, scope, metrics))
        return resources

    def _by_scope(
        self, points_by_name: _PointsByName
    ) -> Iterator[tuple[InstrumentationScope, _PointsByName]]:
        """Yield our instruments, then those of the GenAI conventions with their schema URL."""
        ours: dict[str, Sequence[Point]] = {}
        gen_ai: dict[str, Sequence[Point]] = {}
        for name, points in points_by_name.items():
            of_scope = gen_ai if name in GEN_AI_INSTRUMENTS else ours
            of_scope[name] = points
        if ours:
            yield self._scope, ours
        if gen_ai:
            yield self._gen_ai_scope, gen_ai

    def _groups(self, snapshot: Snapshot) -> Mapping[_Moved, _PointsByName]:
        """Return the points by the attributes that move to the resource, and by instrument."""
        exported: dict[str, Sequence[Point]] = {}
        for name in self._instruments:
            points = snapshot.points.get(name)
            if points:
                exported[name] = points
        # Without moved attributes the sequences of the snapshot are used as they are.
        if not self._to_resource:
            return {(): exported} if exported else {}
        groups: dict[_Moved, dict[str, list[Point]]] = {}
        for name, points in exported.items():
            for point in points:
                moved = self._moved(point)
                groups.setdefault(moved, {}).setdefault(name, []).append(point)
        return groups

    def _moved(self, point: Point) -> _Moved:
        attributes = point.series.attributes
        return tuple((key, attributes[key]) for key in self._to_resource if key in attributes)

    def _encoded_metrics(
        self, moved: _Moved, points_by_name: _PointsByName, left_out: LeftOut
    ) -> Iterator[EncodedMetric]:
        for name, points in points_by_name.items():
            instrument = self._instruments[name]
            is_counter = instrument.kind == "counter"
            head = pb2.Metric(name=name, description=instrument.description, unit=instrument.unit)
            yield EncodedMetric(
                head.SerializeToString(),
                _SUM if is_counter else _GAUGE,
                _COUNTER_TAIL if is_counter else b"",
                self._points.chunks((moved, name), points, left_out, has_start=is_counter),
            )


def _envelope(
    resource: Resource, scope: InstrumentationScope, metrics: Iterator[EncodedMetric]
) -> EncodedResource:
    """Return a resource with one scope, both as the official encoder encodes them."""
    scope_metrics = ScopeMetrics(scope, [], scope.schema_url or "")
    empty = MetricsData([ResourceMetrics(resource, [scope_metrics], "")])
    (message,) = encode_metrics(empty).resource_metrics
    (scope_message,) = message.scope_metrics
    head = pb2.ResourceMetrics(resource=message.resource, schema_url=message.schema_url)
    encoded_scope = EncodedScope(scope_message.SerializeToString(), metrics)
    return EncodedResource(head.SerializeToString(), [encoded_scope])


def _merged(resources: Sequence[EncodedResource]) -> list[EncodedResource]:
    """Return each resource once, with all its scopes, as the SDK's exporters send it."""
    scopes_by_head: dict[bytes, list[EncodedScope]] = {}
    for resource in resources:
        scopes_by_head.setdefault(resource.head, []).extend(resource.scopes)
    return [EncodedResource(head, scopes) for head, scopes in scopes_by_head.items()]
