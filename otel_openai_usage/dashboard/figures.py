"""The charts of the page: bars over time, billed and estimated, the strip of explained tokens."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from otel_openai_usage.dashboard import units
from otel_openai_usage.dashboard.chart_parts import (
    SIDE,
    Figure,
    Format,
    Scale,
    bar_places,
    bar_texts,
    bars,
    dots,
    line,
    row,
    texts_of,
)
from otel_openai_usage.dashboard.queries import Floats, Report, Series

PALETTE = (
    "#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#a463f2", "#3ca951", "#ff8ab7", "#97bbf5",
    "#9c6b4e", "#d9a3f0", "#2f8f9d", "#c2b04a", "#b84a62", "#7d8fe0", "#8bc34a", "#c97b3d",
)  # fmt: skip
REST = "#9498a0"
BILLED = "#4269d0"
ESTIMATED = "#efb118"
TOKENS = {"Input": "#4269d0", "Cached input": "#97bbf5", "Output": "#efb118"}
_LEVELS = (0.005, 0.25, 0.5, 0.75, 0.95)
"""Shares at which a square of the strip gets darker."""


def colours(*charts: Sequence[Series]) -> Mapping[str, str]:
    """A colour for each label; a label in several charts has the same in all of them."""
    chosen: dict[str, str] = {}
    for chart in charts:
        for series in chart:
            if not series.rest and series.label not in chosen:
                index = len(chosen) % len(PALETTE)
                chosen[series.label] = PALETTE[index]
    return chosen


def stacked(
    report: Report,
    series: Sequence[Series],
    colour: Mapping[str, str],
    format_: Format,
    label: str,
) -> Figure:
    """Bars over time, one on the other; negative values go down from 0."""
    values = np.array([one.values for one in series])
    tops = _running_sum(np.maximum(values, 0))
    bottoms = _running_sum(np.minimum(values, 0))
    scale = Scale.of([*tops[-1].tolist(), *bottoms[-1].tolist()])
    marks: list[Figure] = []
    rows: list[Figure] = []
    for one, top, bottom in zip(series, tops, bottoms, strict=True):
        shade = colour.get(one.label, REST)
        is_up = one.values > 0
        # A bar ends at the running sum on its own side of 0, and begins where the last one ended.
        ends = np.where(is_up, top, bottom)
        starts = ends - one.values
        marks += bars(report, scale, starts, ends, shade)
        texts = texts_of(one.values, format_)
        rows.append(row(one.label, shade, texts))
    if len(series) > 1:
        rows.append(_total_row(values, format_))
    places = bar_places(report)
    figure = scale.figure(label, format_, marks, places)
    figure["rows"] = rows
    return figure | bar_texts(report)


def _running_sum(values: Floats) -> Floats:
    """For each series the sum of it and those below, by bar."""
    return values.cumsum(axis=0)


def _total_row(values: Floats, format_: Format) -> Figure:
    """The sum of all series, also where it is 0."""
    totals = values.sum(axis=0)
    texts = [format_(total) for total in totals.tolist()]
    return row("Total", "", texts)


def billed_and_estimated(
    report: Report, billed: Floats, estimated: Floats, format_: Format, label: str
) -> Figure:
    """What was billed as bars, what was estimated as a line."""
    scale = Scale.of([*billed.tolist(), *estimated.tolist()])
    places = bar_places(report)
    points: list[tuple[float, float | None]] = []
    for place, value in zip(places, estimated.tolist(), strict=True):
        # Days without an estimate are a gap of the line.
        points.append((place * 10, value or None))
    from_zero = np.zeros(len(billed))
    marks = bars(report, scale, from_zero, billed, BILLED)
    marks.append(line(scale, points, ESTIMATED))
    marks.append(dots(scale, points, ESTIMATED))
    billed_texts = texts_of(billed, format_)
    estimated_texts = texts_of(estimated, format_)
    figure = scale.figure(label, format_, marks, places)
    figure["rows"] = [
        row("Billed", BILLED, billed_texts),
        row("Estimated", ESTIMATED, estimated_texts),
    ]
    return figure | bar_texts(report)


def strip(report: Report, used: Floats, explained: Floats, label: str) -> Figure:
    """A square for each day: the darker, the more of the usage is explained. Days without usage
    have none.
    """
    days = np.flatnonzero(used > 0)
    shares = explained[days] / used[days]
    rests = used[days] - explained[days]
    count = len(used)
    share_texts: list[str | None] = [None] * count
    rest_texts: list[str | None] = [None] * count
    for day, share, rest in zip(days.tolist(), shares.tolist(), rests.tolist(), strict=True):
        share_texts[day] = units.percent(share)
        rest_texts[day] = units.count(rest)
    figure = {
        "label": label,
        "marks": _heat(days, shares, count),
        "up": [],
        "places": bar_places(report),
        "rows": [row("Explained", "", share_texts), row("Unexplained", "", rest_texts)],
    }
    figure |= bar_texts(report)
    # The strip is too low for texts below it.
    figure["across"] = []
    return figure


def _heat(days: NDArray[np.intp], shares: Floats, count: int) -> list[Figure]:
    """The squares of each shade that occurs."""
    levels = np.digitize(shares, _LEVELS)
    marks: list[Figure] = []
    for level in range(len(_LEVELS) + 1):
        places = days[levels == level].tolist()
        if places:
            path = _squares(places, count)
            marks.append({"kind": f"heat heat{level}", "d": path})
    return marks


def _squares(places: Sequence[int], count: int) -> str:
    """Squares at some of `count` places, as high as the strip."""
    slot = SIDE / count
    width = slot * 0.9
    path = ""
    for place in places:
        left = slot * place
        path += f"M{left:.1f} 0h{width:.1f}V{SIDE}h{-width:.1f}Z"
    return path


def axis_format(currency: str) -> Format:
    """Money on an axis: without cents where there are none."""
    return lambda value: units.brief(value, currency)
