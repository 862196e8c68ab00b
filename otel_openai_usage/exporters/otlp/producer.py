"""Snapshot → MetricsData, without the SDK's instruments: what the OpenTelemetry specification calls
a MetricProducer.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias, overload

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

from otel_openai_usage.domain.instruments import Instrument
from otel_openai_usage.domain.snapshot import AttributeValue, Point, Snapshot
from otel_openai_usage.exporters.resource import with_moved

_Moved: TypeAlias = tuple[tuple[str, AttributeValue], ...]


class Points(Sequence[NumberDataPoint]):
    """Data points that are made while they are looked at, so that 100,000 of them are never in
    memory at once.
    """

    def __init__(self, points: Sequence[Point], time: int, moved: Sequence[str] = ()) -> None:
        self.points = points
        self.time = time
        self.moved = frozenset(moved)

    def __len__(self) -> int:
        return len(self.points)

    @overload
    def __getitem__(self, index: int) -> NumberDataPoint: ...
    @overload
    def __getitem__(self, index: slice) -> "Points": ...
    def __getitem__(self, index: int | slice) -> "NumberDataPoint | Points":
        if isinstance(index, slice):
            return Points(self.points[index], self.time, tuple(self.moved))
        return self._point(self.points[index])

    def __iter__(self) -> Iterator[NumberDataPoint]:
        return map(self._point, self.points)

    def _point(self, point: Point) -> NumberDataPoint:
        attributes = point.series.attributes
        if self.moved:
            attributes = {key: value for key, value in attributes.items() if key not in self.moved}
        return NumberDataPoint(attributes, point.series.start, self.time, point.value, ())


def produce(
    snapshot: Snapshot,
    rows: Mapping[str, Instrument],
    *,
    time: int,
    resource: Resource,
    scope: InstrumentationScope,
    to_resource: Sequence[str] = (),
) -> MetricsData:
    """All points of the snapshot whose instrument has a row, as of `time` (Unix nanoseconds),
    cumulative.

    Counters are monotonic sums that begin at their series' own start; int stays int, float stays
    float. Attributes named in `to_resource` move to the resource: one ResourceMetrics for each set
    of them, with an instance id of its own.
    """
    return MetricsData(
        [
            ResourceMetrics(
                with_moved(resource, dict(moved)) if moved else resource,
                [
                    ScopeMetrics(
                        scope,
                        [
                            _metric(rows[name], Points(points, time, to_resource))
                            for name, points in group.items()
                        ],
                        "",
                    )
                ],
                "",
            )
            for moved, group in _groups(snapshot, rows, to_resource).items()
        ]
    )


def _metric(row: Instrument, points: Points) -> Metric:
    if row.kind == "gauge":
        return Metric(row.name, row.description, row.unit, Gauge(points))
    return Metric(
        row.name,
        row.description,
        row.unit,
        Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True),
    )


def _groups(
    snapshot: Snapshot, rows: Mapping[str, Instrument], to_resource: Sequence[str]
) -> Mapping[_Moved, Mapping[str, Sequence[Point]]]:
    shown = {name: points for name in rows if (points := snapshot.points.get(name))}
    if not to_resource:
        return {(): shown} if shown else {}
    groups: dict[_Moved, dict[str, list[Point]]] = {}
    for name, points in shown.items():
        for point in points:
            attributes = point.series.attributes
            moved = tuple((key, attributes[key]) for key in to_resource if key in attributes)
            groups.setdefault(moved, {}).setdefault(name, []).append(point)
    return groups
