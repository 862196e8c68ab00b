"""MetricsData → OTLP requests, the same that the official encoder makes, at a tenth of its cost.

Everything but the points of a Snapshot is left to the official encoder. Those points differ in a
number and share nearly all else, so their bytes are strung together from parts that were encoded
before (fields and numbers: opentelemetry/proto/metrics/v1/metrics.proto and
common/v1/common.proto). Points that stood still since the last request are not encoded again: in
the bytes of then nothing but the time is new.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from struct import Struct

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.sdk.metrics.export import Gauge, Metric, MetricsData

from otel_openai_usage.core.snapshot import AttributeValue, Point, Series
from otel_openai_usage.metrics.batches import PIECE
from otel_openai_usage.metrics.producer import Points

_INT = Struct("<cq").pack  # as_int, sfixed64
_DOUBLE = Struct("<cd").pack  # as_double
_TIME = Struct("<cQ").pack  # time_unix_nano, fixed64
_TIMES = Struct("<cQcQ").pack  # start_time_unix_nano and time_unix_nano, fixed64
_KEPT = 50_000
"""Attributes whose bytes are kept, about 150 bytes each."""


@dataclass(slots=True)
class _Piece:
    """Points as they were last seen; once they stood still also their bytes, packed to a twentieth,
    and the time in these.
    """

    points: Sequence[Point]
    moved: frozenset[str]
    time: int = 0
    packed: bytes = b""


class Encoder:
    """Encodes; remembers the attributes and the points that it met. For one thread at a time."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str], bytes] = {}
        self._time = 0
        self._before: dict[Series, _Piece] = {}
        self._seen: dict[Series, _Piece] = {}

    def __call__(self, data: MetricsData) -> ExportMetricsServiceRequest:
        """The request for this data."""
        request = encode_metrics(_hollow(data))
        for resource, hollow in zip(data.resource_metrics, request.resource_metrics, strict=True):
            for scope, hollow_scope in zip(
                resource.scope_metrics, hollow.scope_metrics, strict=True
            ):
                for metric, target in zip(scope.metrics, hollow_scope.metrics, strict=True):
                    points = metric.data.data_points
                    if isinstance(points, Points):
                        gauge = isinstance(metric.data, Gauge)
                        kind = target.gauge if gauge else target.sum
                        kind.ClearField("data_points")
                        kind.MergeFromString(
                            b"".join(
                                self._pieces(
                                    points, _Now(points.time) if gauge else _Times(points.time)
                                )
                            )
                        )
        return request

    def _pieces(self, points: Points, times: Mapping[int, bytes]) -> Iterator[bytes]:
        if (
            points.time != self._time
        ):  # a request of a later time: what the last had is known, what only older ones had is not
            self._time = points.time
            self._before = self._seen
            self._seen = {}
        for at in range(0, len(points), PIECE):
            part = points.points[at : at + PIECE]
            first = part[0].series
            known = self._seen.get(first) or self._before.get(first)
            if known and known.points == part and known.moved == points.moved:
                yield self._again(known, points.time, times)
            else:
                known = _Piece(part, points.moved)
                yield b"".join(self._points(part, points.moved, times))
            self._seen[first] = known

    def _again(self, piece: _Piece, time: int, times: Mapping[int, bytes]) -> bytes:
        """The bytes of points that were met before, as of `time`."""
        if piece.packed:
            then = _TIME(b"\x19", piece.time)
            plain = zlib.decompress(piece.packed)
            if plain.count(then) == len(
                piece.points
            ):  # else an attribute happens to hold these bytes
                return plain.replace(then, _TIME(b"\x19", time))
        plain = b"".join(self._points(piece.points, piece.moved, times))
        piece.time = time
        piece.packed = zlib.compress(plain, 1)
        return plain

    def _points(
        self, points: Sequence[Point], moved: frozenset[str], times: Mapping[int, bytes]
    ) -> Iterable[bytes]:
        if len(self._pairs) > _KEPT:
            self._pairs.clear()
        for point in points:
            value = point.value
            series = point.series
            number = _INT(b"\x31", value) if isinstance(value, int) else _DOUBLE(b"\x21", value)
            body = times[series.start] + number + self._attributes(series.attributes, moved)
            yield b"\x0a" + _varint(len(body)) + body

    def _attributes(self, attributes: Mapping[str, AttributeValue], moved: frozenset[str]) -> bytes:
        pairs = self._pairs
        return b"".join(
            [
                (pairs.get(item) or self._pair(*item))  # type: ignore[arg-type]
                if type(item[1]) is str
                else _key_value(*item)
                for item in attributes.items()
                if item[0] not in moved
            ]
        )

    def _pair(self, key: str, value: AttributeValue) -> bytes:
        encoded = self._pairs[key, str(value)] = _key_value(key, value)
        return encoded


class _Times(dict[int, bytes]):
    """By start, the two times of a counter's point."""

    def __init__(self, time: int) -> None:
        super().__init__()
        self._time = time

    def __missing__(self, start: int) -> bytes:
        encoded = self[start] = _TIMES(b"\x11", start, b"\x19", self._time)
        return encoded


class _Now(_Times):
    """Whatever the start, the time of a gauge's point."""

    def __missing__(self, start: int) -> bytes:
        encoded = self[start] = _TIME(b"\x19", self._time)
        return encoded


def _hollow(data: MetricsData) -> MetricsData:
    """The same without the points that we encode ourselves, but for the first of each metric, so
    that all else is encoded.
    """
    return replace(
        data,
        resource_metrics=[
            replace(
                resource,
                scope_metrics=[
                    replace(scope, metrics=list(map(_hollow_metric, scope.metrics)))
                    for scope in resource.scope_metrics
                ],
            )
            for resource in data.resource_metrics
        ],
    )


def _hollow_metric(metric: Metric) -> Metric:
    if not isinstance(metric.data.data_points, Points):
        return metric
    return replace(metric, data=replace(metric.data, data_points=[*metric.data.data_points[:1]]))


def _key_value(key: str, value: AttributeValue) -> bytes:
    if isinstance(value, bool):
        encoded = AnyValue(bool_value=value)
    elif isinstance(value, int):
        encoded = AnyValue(int_value=value)
    elif isinstance(value, float):
        encoded = AnyValue(double_value=value)
    else:
        encoded = AnyValue(string_value=value)
    body: bytes = KeyValue(key=key, value=encoded).SerializeToString()
    return b"\x3a" + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80)) + _varint(number >> 14)
