"""What charts are made of: a scale, bars, lines, and rows of texts.

Paths lie in a square of 1000 by 1000 that the browser stretches; words stand at per cents of it.
Colours of text and grid come from the style sheet, so that light and dark need no redraw.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import pairwise
from math import ceil, floor, log10
from typing import Any, Self, TypeAlias

from otel_openai_usage.dashboard import units
from otel_openai_usage.dashboard.queries import Floats, Report
from otel_openai_usage.domain.model import utc

Figure: TypeAlias = dict[str, Any]
"""The properties of a `Chart`, or of a part of one."""
Format: TypeAlias = Callable[[float], str]
"""A number as text."""
Points: TypeAlias = Sequence[tuple[float, float | None]]
"""Points of a line, across and value; a gap where the value is None."""

SIDE = 1000
_GAP = 0.22
"""The part of its slot that a bar leaves free."""
_MAX_LABELS = 8
"""So many texts fit below a chart."""
_MAX_MONTHS = 13
"""A chart of more months than this has no space for each."""
_TICK_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Scale:
    """The vertical scale. The ticks are round numbers, from below the lowest value to above the
    highest.
    """

    ticks: Sequence[float]

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """The scale that shows 0 and all values."""
        known = [0.0, *values]
        return cls(ticks(max(known), min(known)))

    def y(self, value: float) -> float:
        """The distance from the top."""
        low = self.ticks[0]
        high = self.ticks[-1]
        share = (high - value) / (high - low)
        return round(share * SIDE, 1)

    def figure(
        self, label: str, format_: Format, marks: Sequence[Figure], places: Sequence[float]
    ) -> Figure:
        """A chart with grid and axis. `places` are the per cents at which texts can be read."""
        grid = ""
        axis: list[list[Any]] = []
        for tick in self.ticks:
            height = self.y(tick)
            grid += f"M0 {height}H{SIDE}"
            axis.append([height / 10, format_(tick)])
        rule = {"kind": "rule", "d": grid}
        return {
            "label": label,
            "marks": [rule, *marks],
            "up": axis,
            "places": [round(place, 2) for place in places],
        }


def ticks(highest: float, lowest: float = 0.0) -> list[float]:
    """Three to six round numbers, from 0 or just below the lowest to just above the highest."""
    if highest <= lowest:
        return [0.0, 1.0]
    rough_step = (highest - lowest) / 4
    power: float = 10.0 ** floor(log10(rough_step))
    # Slightly less, because 0.3 / 3 is not 0.1 in floating point.
    least_step = rough_step * 0.999
    steps = [power * factor for factor in _TICK_STEPS]
    step = next(step for step in steps if step >= least_step)
    first = -ceil(-lowest / step * 0.999)
    last = ceil(highest / step * 0.999)
    # Three times 0.1 is not 0.3 in floating point.
    return [round(step * index, 12) for index in range(first, last + 1)]


def bars(report: Report, scale: Scale, starts: Floats, ends: Floats, colour: str) -> list[Figure]:
    """A bar for each bin, from a start to an end; the last is paler if its day is not over."""
    slot = SIDE / len(report.bins)
    gap = slot * _GAP
    width = slot - gap
    last = len(report.bins) - 1
    over = ""
    not_over = ""
    for index, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        if start == end:
            continue
        left = slot * index + gap / 2
        bottom = scale.y(start)
        top = scale.y(end)
        path = f"M{left:.1f} {bottom}h{width:.1f}V{top}h{-width:.1f}Z"
        if index == last and report.span.live:
            not_over += path
        else:
            over += path
    marks = [_mark("bar", over, colour), _mark("bar pale", not_over, colour)]
    return [mark for mark in marks if mark["d"]]


def _mark(kind: str, path: str, colour: str) -> Figure:
    """A path of a chart. `kind` is its classes in the style sheet."""
    return {"kind": kind, "d": path, "color": colour}


def line(scale: Scale, points: Points, colour: str, kind: str = "line") -> Figure:
    """A line through points, with a gap where a value is None."""
    path = ""
    command = "M"
    for x, value in points:
        if value is None:
            command = "M"
            continue
        path += f"{command}{x:.1f} {scale.y(value)}"
        command = "L"
    return _mark(kind, path, colour)


def dots(scale: Scale, points: Points, colour: str) -> Figure:
    """A dot for each point with a value."""
    path = ""
    for x, value in points:
        if value is not None:
            path += f"M{x:.1f} {scale.y(value)}h0"
    return _mark("dots", path, colour)


def row(name: str, colour: str, texts: Sequence[str | None]) -> Figure:
    """What is read at the places of a chart."""
    return {"name": name, "color": colour, "texts": texts}


def texts_of(values: Floats, format_: Format) -> list[str | None]:
    """Values as texts; none for 0."""
    return [format_(value) if value else None for value in values.tolist()]


def bar_places(report: Report) -> list[float]:
    """The middles of the bars, in per cent."""
    count = len(report.bins)
    return [(index + 0.5) / count * 100 for index in range(count)]


def bar_texts(report: Report) -> Figure:
    """Texts below the bars (`across`), and in full for each bar (`titles`)."""
    across, titles = _bar_texts(tuple(report.bins), weekly=report.weekly)
    return {"across": across, "titles": titles}


@lru_cache(8)  # all charts of a page have the same
def _bar_texts(
    bins: Sequence[int], *, weekly: bool
) -> tuple[Sequence[tuple[float, str]], Sequence[str]]:
    days = [utc(day).date() for day in bins]
    across: list[tuple[float, str]] = []
    for index, text in _labels(days, weekly=weekly).items():
        place = (index + 0.5) / len(bins) * 100
        across.append((round(place, 2), text))
    titles = [_title(day, weekly=weekly) for day in days]
    return across, titles


def _labels(days: Sequence[date], *, weekly: bool) -> dict[int, str]:
    """Texts below bars, by index: months of a long chart, else days."""
    months = _first_of_months(days)
    if len(months) > _MAX_MONTHS:
        return {index: f"{days[index]:%b %Y}" for index in _thinned(months)}
    if weekly:
        return {index: f"{days[index]:%b}" for index in months}
    indexes = range(len(days))
    return {index: units.short(days[index]) for index in _thinned(indexes)}


def _first_of_months(days: Sequence[date]) -> list[int]:
    """Where a new month begins."""
    indexes: list[int] = []
    for index, (before, day) in enumerate(pairwise(days), 1):
        if before.month != day.month:
            indexes.append(index)
    return indexes


def _title(day: date, *, weekly: bool) -> str:
    """A bar's day or week in full."""
    text = units.long(day)
    return f"Week of {text}" if weekly else f"{day:%a} {text}"


def _thinned(indexes: Sequence[int]) -> Sequence[int]:
    """Every so many of the indexes, so that their labels fit."""
    step = max(1, ceil(len(indexes) / _MAX_LABELS))
    return indexes[::step]
