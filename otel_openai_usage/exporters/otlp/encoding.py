"""MetricsData → the bytes of an OTLP request, the same that the official encoder makes, at a tenth
of its cost.

Everything but the points of a Snapshot is left to the official encoder. Those points differ in a
number and share nearly all else, so their bytes are strung together from parts that were encoded
before (fields and numbers: opentelemetry/proto/metrics/v1/metrics.proto and
common/v1/common.proto). Points that did not change since the last request are not encoded again:
only the time in their bytes is new.

A point that cannot be encoded is left out and counted, so that it stops no other.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from struct import Struct
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb2
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
)

from otel_openai_usage.domain.snapshot import AttributeValue, Point, Series
from otel_openai_usage.exporters.otlp.batches import PIECE
from otel_openai_usage.exporters.otlp.producer import Points

_INT = Struct("<cq").pack  # as_int, sfixed64
_DOUBLE = Struct("<cd").pack  # as_double
_TIME = Struct("<cQ").pack  # time_unix_nano, fixed64
_TIMES = Struct("<cQcQ").pack  # start_time_unix_nano and time_unix_nano, fixed64
_RESOURCE_METRICS = b"\x0a"  # ExportMetricsServiceRequest.resource_metrics
_SCOPE_METRICS = b"\x12"  # ResourceMetrics.scope_metrics
_METRICS = b"\x12"  # ScopeMetrics.metrics
_GAUGE = b"\x2a"  # Metric.gauge
_SUM = b"\x3a"  # Metric.sum
_KEPT = 50_000
"""Attributes whose bytes are kept, about 150 bytes each."""
_LARGEST = 2**63
_NOT_ENCODABLE = (struct.error, ValueError, TypeError, ArithmeticError)
"""What is raised for a number out of range, text that is not Unicode, or a Decimal that is none."""
_PLACEHOLDER = NumberDataPoint({}, 0, 0, 0, ())
"""Stands for our points in what the official encoder gets, so that it encodes all else."""


@dataclass(slots=True)
class LeftOut:
    """Points that could not be encoded: how many, and why the first could not."""

    points: int = 0
    reason: str = ""

    def add(self, points: int, reason: object) -> None:
        """Count some more."""
        self.points += points
        self.reason = self.reason or f"{type(reason).__name__}: {reason}"


@dataclass(frozen=True, slots=True)
class Encoded:
    """The bytes of a request, and what is not in it."""

    body: bytes
    left_out: LeftOut


@dataclass(slots=True)
class _Piece:
    """Points as they were last seen; once they stood still also their bytes, packed to a twentieth,
    and the time in these.
    """

    points: Sequence[Point]
    moved: frozenset[str]
    whole: bool = True
    """Whether every point could be encoded; else they are tried again each time, to be counted."""
    time: int = 0
    packed: bytes = b""


class Encoder:
    """Encodes; remembers the attributes and the points that it met. For one thread at a time."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str], bytes] = {}
        self._time = 0
        self._before: dict[Series, _Piece] = {}
        self._seen: dict[Series, _Piece] = {}

    def __call__(self, data: MetricsData) -> Encoded:
        """The request for this data."""
        left_out = LeftOut()
        shells = _shells(data, left_out)
        request = encode_metrics(shells)
        body = [
            _field(_RESOURCE_METRICS, self._resource(resource, target, left_out))
            for resource, target in zip(
                shells.resource_metrics, request.resource_metrics, strict=True
            )
        ]
        return Encoded(b"".join(body), left_out)

    def _resource(
        self, resource: ResourceMetrics, target: pb2.ResourceMetrics, left_out: LeftOut
    ) -> bytes:
        scopes = []
        for scope, shell in zip(resource.scope_metrics, target.scope_metrics, strict=True):
            metrics = [
                _field(_METRICS, self._metric(metric, metric_shell, left_out))
                for metric, metric_shell in zip(scope.metrics, shell.metrics, strict=True)
            ]
            shell.ClearField("metrics")
            scopes.append(_field(_SCOPE_METRICS, shell.SerializeToString() + b"".join(metrics)))
        target.ClearField("scope_metrics")
        return b"".join([target.SerializeToString(), *scopes])

    def _metric(self, metric: Metric, target: pb2.Metric, left_out: LeftOut) -> bytes:
        shell = metric.data.data_points
        if not isinstance(shell, _Shell):
            encoded: bytes = target.SerializeToString()
            return encoded
        points = shell.points
        if isinstance(metric.data, Gauge):
            kind: Any = target.gauge
            field = _GAUGE
            times: _Times = _Now(points.time)
        else:
            kind = target.sum
            field = _SUM
            times = _Times(points.time)
        kind.ClearField("data_points")
        pieces = b"".join(self._pieces(points, times, left_out))
        data = _field(field, pieces + kind.SerializeToString())
        target.ClearField("data")
        head: bytes = target.SerializeToString()
        return head + data

    def _pieces(
        self, points: Points, times: Mapping[int, bytes], left_out: LeftOut
    ) -> Iterator[bytes]:
        if points.time != self._time:
            # A request of a later time: what the last one had is known, what was only in older
            # ones is not.
            self._time = points.time
            self._before = self._seen
            self._seen = {}
        for at in range(0, len(points), PIECE):
            part = points.points[at : at + PIECE]
            first = part[0].series
            known = self._seen.get(first) or self._before.get(first)
            same = known and known.points == part and known.moved == points.moved
            if known and same and known.whole:
                yield self._again(known, points.time, times)
            else:
                encoded = self._points(part, points.moved, times, left_out)
                known = _Piece(part, points.moved, whole=len(encoded) == len(part))
                yield b"".join(encoded)
            self._seen[first] = known

    def _again(self, piece: _Piece, time: int, times: Mapping[int, bytes]) -> bytes:
        """The bytes of points that were met before, as of `time`."""
        if piece.packed:
            then = _TIME(b"\x19", piece.time)
            plain = zlib.decompress(piece.packed)
            # An attribute may happen to hold the bytes of the time; then they are not replaced.
            if plain.count(then) == len(piece.points):
                return plain.replace(then, _TIME(b"\x19", time))
        plain = b"".join(self._points(piece.points, piece.moved, times, LeftOut()))
        piece.time = time
        piece.packed = zlib.compress(plain, 1)
        return plain

    def _points(
        self,
        points: Sequence[Point],
        moved: frozenset[str],
        times: Mapping[int, bytes],
        left_out: LeftOut,
    ) -> list[bytes]:
        if len(self._pairs) > _KEPT:
            self._pairs.clear()
        encoded = []
        for point in points:
            value = point.value
            series = point.series
            try:
                if value != value:  # noqa: PLR0124  # only NaN is; a Decimal, too
                    raise ValueError("the value is not a number")
                number = _INT(b"\x31", value) if isinstance(value, int) else _DOUBLE(b"\x21", value)
                body = times[series.start] + number + self._attributes(series.attributes, moved)
            except _NOT_ENCODABLE as error:
                left_out.add(1, error)
                continue
            encoded.append(b"\x0a" + _varint(len(body)) + body)
        return encoded

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


class _Shell(list[NumberDataPoint]):
    """What the official encoder gets instead of our points, and the points."""

    def __init__(self, points: Points) -> None:
        super().__init__([_PLACEHOLDER])
        self.points = points


def _shells(data: MetricsData, left_out: LeftOut) -> MetricsData:
    """The same, with a placeholder for the points that we encode ourselves, and without what the
    official encoder cannot encode.
    """
    resources = []
    for resource in data.resource_metrics:
        scopes = [
            replace(scope, metrics=[_shell(metric, left_out) for metric in scope.metrics])
            for scope in resource.scope_metrics
        ]
        try:
            _require_encodable(resource.resource.attributes)
        except _NOT_ENCODABLE as error:
            metrics = [metric for scope in resource.scope_metrics for metric in scope.metrics]
            left_out.add(sum(len(metric.data.data_points) for metric in metrics), error)
            continue
        resources.append(replace(resource, scope_metrics=scopes))
    return replace(data, resource_metrics=resources)


def _shell(metric: Metric, left_out: LeftOut) -> Metric:
    points = metric.data.data_points
    if isinstance(points, Points):
        shell: Any = _Shell(points)
        return replace(metric, data=replace(metric.data, data_points=shell))
    good: Any = []
    for point in points:
        try:
            _require_encodable({**(point.attributes or {}), "": getattr(point, "value", 0)})
        except _NOT_ENCODABLE as error:
            left_out.add(1, error)
        else:
            good.append(point)
    if len(good) == len(points):
        return metric
    return replace(metric, data=replace(metric.data, data_points=good))


def _require_encodable(attributes: Mapping[str, Any]) -> None:
    """Raise one of `_NOT_ENCODABLE` for what OTLP cannot hold."""
    for key, value in attributes.items():
        key.encode()
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, str):
                item.encode()
            elif isinstance(item, int) and not -_LARGEST <= item < _LARGEST:
                raise ValueError("an integer does not fit into 64 bits")
            elif item != item:  # noqa: PLR0124
                raise ValueError("the value is not a number")


def _key_value(key: str, value: AttributeValue) -> bytes:
    if isinstance(value, bool):
        encoded = AnyValue(bool_value=value)
    elif isinstance(value, int):
        encoded = AnyValue(int_value=value)
    elif isinstance(value, float):
        encoded = AnyValue(double_value=value)
    else:
        encoded = AnyValue(string_value=value)
    return _field(b"\x3a", KeyValue(key=key, value=encoded).SerializeToString())


def _field(tag: bytes, body: bytes) -> bytes:
    """A field whose value has a length."""
    return tag + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80)) + _varint(number >> 14)
