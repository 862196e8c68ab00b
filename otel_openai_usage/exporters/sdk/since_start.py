"""What a counter counted since a reader with delta temporality began."""

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TypeAlias

from otel_openai_usage.domain.snapshot import AttributeValue, Point, Series

_NAMES = ("project_name", "api_key_name", "user_name")
"""Attributes that may change while a series goes on counting: a project can be renamed."""

_Key: TypeAlias = frozenset[tuple[str, AttributeValue]]


class SinceStart:
    """The points of one counter, less what they had at the start.

    A series that appears later began at 0, so all of it counts, with two exceptions: one that
    continues a renamed series counts from where that one ended, and one that returns after it was
    silent counts from where it began.

    A series that disappeared stays at its last value. A reader that had not collected this value
    yet gets it later; without the series the difference would be lost.

    Safe in any thread.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        self._lock = Lock()
        self._base: dict[_Key, int | float] = {_key(point): point.value for point in points}
        self._last: dict[_Key, int | float] = dict(self._base)
        self._present = set(self._base)
        self._gone: dict[_Key, Point] = {}
        self._read: Sequence[Point] = points
        self._result: list[Point] = [Point(point.series, _zero(point.value)) for point in points]

    def points(self, points: Sequence[Point]) -> Sequence[Point]:
        """Return what was counted since the start."""
        with self._lock:
            if points is not self._read:
                self._result = self._advance(points)
                self._read = points
            return self._result

    def _advance(self, points: Sequence[Point]) -> list[Point]:
        by_key = {_key(point): point for point in points}
        ended = [key for key in self._present if key not in by_key]
        continued = self._ended_values(ended)
        for key in ended:
            # A cumulative reader would see the series fall if it were left out.
            value = self._last[key] - self._base[key]
            self._gone[key] = Point(Series(dict(key)), value)
        result = []
        for key, point in by_key.items():
            if key not in self._base:
                self._base[key] = self._begin(key, point.value, continued)
            elif key in self._gone:
                # What it counted meanwhile belongs to it: it has been silent, not renamed.
                del self._gone[key]
            self._last[key] = point.value
            # A series that is 0 first for a second time must not count backwards.
            counted = max(_zero(point.value), point.value - self._base[key])
            result.append(Point(point.series, counted))
        self._present = set(by_key)
        return [*result, *self._gone.values()]

    def _ended_values(self, ended: Sequence[_Key]) -> dict[_Key, int | float]:
        """Return the last values of series that disappeared, by their attributes without names."""
        values: dict[_Key, int | float] = {}
        for key in ended:
            without_names = _without_names(key)
            values[without_names] = values.get(without_names, 0) + self._last[key]
        return values

    def _begin(self, key: _Key, value: float, continued: dict[_Key, int | float]) -> int | float:
        without_names = _without_names(key)
        base = min(value, continued.get(without_names, _zero(value)))
        if without_names in continued:
            # Two series may continue one: what the first takes is not there for the second.
            continued[without_names] -= base
        return base


def _zero(value: float) -> int | float:
    """Return 0 of the same type: a series never changes between integer and double."""
    return 0 if isinstance(value, int) else 0.0


def _key(point: Point) -> _Key:
    attributes: Mapping[str, AttributeValue] = point.series.attributes
    return frozenset(attributes.items())


def _without_names(key: _Key) -> _Key:
    return frozenset(pair for pair in key if pair[0] not in _NAMES)
