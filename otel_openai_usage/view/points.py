"""The lists of points that become a snapshot."""

from collections.abc import Iterable

from otel_openai_usage.domain.snapshot import Point
from otel_openai_usage.view.series import AggregatedSeries


class PointLists:
    """The points of each instrument, in the order in which their series came.

    A published list never changes. Readers may keep it, and recognize an unchanged instrument by
    it. The first change after a publication copies the list of that instrument.
    """

    def __init__(self) -> None:
        self._lists: dict[str, list[Point]] = {}
        self._copied: set[str] = set()

    def set(self, series: AggregatedSeries, value: float) -> None:
        """Replace the point of a series, or append its first one."""
        points = self._writable(series.instrument)
        point = Point(series.series, value)
        if series.has_point:
            points[series.position] = point
        else:
            series.position = len(points)
            points.append(point)

    def keep_only(self, instrument: str, remaining: Iterable[AggregatedSeries]) -> None:
        """Remove the points of all other series of an instrument. They keep a stale `position`."""
        before = self._lists.get(instrument, [])
        with_point = [series for series in remaining if series.has_point]
        with_point.sort(key=lambda series: series.position)
        self._lists[instrument] = [before[series.position] for series in with_point]
        self._copied.add(instrument)
        for position, series in enumerate(with_point):
            series.position = position

    def publish(self) -> dict[str, list[Point]]:
        """Return the lists by instrument. They will not change any more."""
        self._copied.clear()
        return dict(self._lists)

    def _writable(self, instrument: str) -> list[Point]:
        if instrument not in self._copied:
            self._copied.add(instrument)
            self._lists[instrument] = list(self._lists.get(instrument, ()))
        return self._lists[instrument]
