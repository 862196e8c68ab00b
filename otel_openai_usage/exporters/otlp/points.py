"""Encodes the points of snapshots: the same bytes as the official encoder, at a tenth of its cost.

The points of a snapshot differ in a number and share nearly everything else. So the bytes of an
attribute are encoded once, and a chunk whose points stood still gets a new time only. Field
numbers: opentelemetry/proto/metrics/v1/metrics.proto and common/v1/common.proto.
"""

import zlib
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_openai_usage.domain.snapshot import AttributeValue, Point
from otel_openai_usage.exporters.otlp.left_out import NOT_ENCODABLE, LeftOut
from otel_openai_usage.exporters.otlp.request import CHUNK_POINTS, Chunk
from otel_openai_usage.exporters.otlp.wire import field, length_delimited_tag, varint

_DATA_POINTS = length_delimited_tag(1)  # Gauge.data_points and Sum.data_points
_ATTRIBUTES = length_delimited_tag(7)  # NumberDataPoint.attributes
_START_TAG = b"\x11"  # NumberDataPoint.start_time_unix_nano, fixed64
_TIME_TAG = b"\x19"  # NumberDataPoint.time_unix_nano, fixed64
_DOUBLE_TAG = b"\x21"  # NumberDataPoint.as_double
_INTEGER_TAG = b"\x31"  # NumberDataPoint.as_int, sfixed64

_pack_tagged_time = Struct("<cQ").pack
_pack_tagged_integer = Struct("<cq").pack
_pack_tagged_double = Struct("<cd").pack
_pack_time_into = Struct("<Q").pack_into
_TIME_SIZE = 8

_MAX_ATTRIBUTES = 50_000
"""Attributes whose bytes are remembered, about 150 bytes each."""

MetricKey = tuple[object, ...]
"""Identifies a metric within an export."""


@dataclass(slots=True)
class _LastChunk:
    """A chunk as it was in the last export."""

    points: Sequence[Point]
    encoded_points: int
    compressed: bytes = b""
    """The encoded points, once they stood still; about a twentieth of their size."""
    time_offsets: Sequence[int] = ()
    """Where in the encoded points their times are."""

    def is_still(self, points: Sequence[Point]) -> bool:
        """Return whether these are the same points, and all of them could be encoded.

        Points that could not be encoded are tried again in each export, to be counted.
        """
        return self.encoded_points == len(points) and self.points == points


class PointEncoder:
    """Encodes points in chunks; remembers attributes and chunks. For one thread at a time.

    The attributes named in `moved` are left out of the points: they stand in the resource.
    """

    def __init__(self, moved: Collection[str] = (), chunk_points: int = CHUNK_POINTS) -> None:
        self._moved = frozenset(moved)
        self._chunk_points = chunk_points
        self._time = 0
        self._times = _TimesByStart(0)
        self._attribute_bytes: dict[tuple[str, str], bytes] = {}
        self._last_export: dict[tuple[MetricKey, int], _LastChunk] = {}
        self._this_export: dict[tuple[MetricKey, int], _LastChunk] = {}

    def begin_export(self, time: int) -> None:
        """Give the points that follow this time (Unix nanoseconds). Forget older exports."""
        self._time = time
        self._times = _TimesByStart(time)
        self._last_export = self._this_export
        self._this_export = {}
        if len(self._attribute_bytes) > _MAX_ATTRIBUTES:
            # Attributes of series that are gone would stay for ever.
            self._attribute_bytes.clear()

    def chunks(
        self, metric: MetricKey, points: Sequence[Point], left_out: LeftOut, *, has_start: bool
    ) -> Iterator[Chunk]:
        """Yield the points of a metric, encoded. `has_start` is false for gauges.

        Points that cannot be encoded are counted in `left_out`. `metric` identifies the metric
        within an export.
        """
        for first in range(0, len(points), self._chunk_points):
            part = points[first : first + self._chunk_points]
            last = self._last_export.get((metric, first))
            if last is not None and last.is_still(part):
                body = self._still_points(last, has_start=has_start)
            else:
                encoded = self._encode(part, left_out, has_start=has_start)
                body = b"".join(encoded)
                last = _LastChunk(part, len(encoded))
            self._this_export[metric, first] = last
            yield Chunk(last.encoded_points, body)

    def _still_points(self, chunk: _LastChunk, *, has_start: bool) -> bytes:
        """Return the bytes of points that stood still since the last export."""
        if chunk.compressed:
            body = bytearray(zlib.decompress(chunk.compressed))
            for offset in chunk.time_offsets:
                _pack_time_into(body, offset, self._time)
            return bytes(body)
        # Compressing costs more than encoding, so it waits until points stood still once: points
        # that move in every export never pay for it.
        encoded = self._encode(chunk.points, LeftOut(), has_start=has_start)
        plain = b"".join(encoded)
        chunk.compressed = zlib.compress(plain, level=1)
        chunk.time_offsets = _time_offsets(chunk.points, encoded, has_start=has_start)
        return plain

    def _encode(
        self, points: Sequence[Point], left_out: LeftOut, *, has_start: bool
    ) -> list[bytes]:
        """Return a `data_points` field for each point that can be encoded."""
        encoded = []
        times_by_start = self._times
        for point in points:
            series = point.series
            # A gauge has no start, whatever its series says.
            times = times_by_start[series.start if has_start else 0]
            try:
                value = _encoded_value(point.value)
                body = times + value + self._encoded_attributes(series.attributes)
            except NOT_ENCODABLE as error:
                left_out.add(1, error)
                continue
            encoded.append(_DATA_POINTS + varint(len(body)) + body)
        return encoded

    def _encoded_attributes(self, attributes: Mapping[str, AttributeValue]) -> bytes:
        known = self._attribute_bytes
        encoded = []
        for item in attributes.items():
            key, value = item
            if key in self._moved:
                continue
            # Equal values of other types have other bytes (1, True, 1.0), so only text is
            # remembered.
            if type(value) is str:
                # `item` is the key of the dictionary, which saves making another tuple.
                known_bytes = known.get(item)  # type: ignore[arg-type]
                encoded.append(known_bytes or self._remember(key, value))
            else:
                encoded.append(_key_value(key, value))
        return b"".join(encoded)

    def _remember(self, key: str, value: str) -> bytes:
        encoded = _key_value(key, value)
        self._attribute_bytes[key, value] = encoded
        return encoded


class _TimesByStart(dict[int, bytes]):
    """Encoded start and time of points by their start. Without a start (0) only the time."""

    def __init__(self, time: int) -> None:
        super().__init__()
        self._time = _pack_tagged_time(_TIME_TAG, time)

    def __missing__(self, start: int) -> bytes:
        encoded = self._time
        if start:
            encoded = _pack_tagged_time(_START_TAG, start) + self._time
        self[start] = encoded
        return encoded


def _time_offsets(
    points: Sequence[Point], encoded: Sequence[bytes], *, has_start: bool
) -> Sequence[int]:
    """Return where the times of these points are once their fields are joined."""
    offsets = array("I")
    position = 0
    for point, point_field in zip(points, encoded, strict=True):
        offset = position + _body_offset(point_field) + len(_TIME_TAG)
        if has_start and point.series.start:
            offset += len(_START_TAG) + _TIME_SIZE
        offsets.append(offset)
        position += len(point_field)
    return offsets


def _body_offset(point_field: bytes) -> int:
    """Return where the body of a field begins: after the tag and the length."""
    offset = len(_DATA_POINTS)
    while point_field[offset] >= 0x80:  # another byte of the length follows
        offset += 1
    return offset + 1


def _encoded_value(value: float) -> bytes:
    """Return the value as a field. Raises one of `NOT_ENCODABLE`."""
    if value != value:  # noqa: PLR0124  # true for NaN only, float or Decimal
        raise ValueError("the value is not a number")
    if isinstance(value, int):
        return _pack_tagged_integer(_INTEGER_TAG, value)
    return _pack_tagged_double(_DOUBLE_TAG, value)


def _key_value(key: str, value: AttributeValue) -> bytes:
    """Return an attribute as a field of NumberDataPoint."""
    if isinstance(value, bool):
        encoded = AnyValue(bool_value=value)
    elif isinstance(value, int):
        encoded = AnyValue(int_value=value)
    elif isinstance(value, float):
        encoded = AnyValue(double_value=value)
    else:
        encoded = AnyValue(string_value=value)
    return field(_ATTRIBUTES, KeyValue(key=key, value=encoded).SerializeToString())
