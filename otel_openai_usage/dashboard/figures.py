"""The charts of the page: bars over time, billed and estimated, the strip of explained tokens."""

from collections.abc import Mapping, Sequence

import numpy as np

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
    tops = np.maximum(values, 0).cumsum(axis=0)
    bottoms = np.minimum(values, 0).cumsum(axis=0)
    scale = Scale.of([*tops[-1].tolist(), *bottoms[-1].tolist()])
    marks: list[Figure] = []
    rows: list[Figure] = []
    for one, top, bottom in zip(series, tops, bottoms, strict=True):
        shade = colour.get(one.label, REST)
        ends = np.where(one.values > 0, top, bottom)
        starts = ends - one.values
        marks += bars(report, scale, starts, ends, shade)
        rows.append(row(one.label, shade, texts_of(one.values, format_)))
    if len(series) > 1:
        totals = values.sum(axis=0).tolist()
        rows.append(row("Total", "", [format_(total) for total in totals]))
    figure = scale.figure(label, format_, marks, bar_places(report))
    return {**figure, "rows": rows, **bar_texts(report)}


def billed_and_estimated(
    report: Report, billed: Floats, estimated: Floats, format_: Format, label: str
) -> Figure:
    """What was billed as bars, what was estimated as a line."""
    scale = Scale.of([*billed.tolist(), *estimated.tolist()])
    places = bar_places(report)
    # Days without an estimate are a gap of the line.
    points = [
        (place * 10, value or None) for place, value in zip(places, estimated.tolist(), strict=True)
    ]
    from_zero = np.zeros(len(billed))
    marks = bars(report, scale, from_zero, billed, BILLED)
    marks.append(line(scale, points, ESTIMATED))
    marks.append(dots(scale, points, ESTIMATED))
    rows = [
        row("Billed", BILLED, texts_of(billed, format_)),
        row("Estimated", ESTIMATED, texts_of(estimated, format_)),
    ]
    figure = scale.figure(label, format_, marks, places)
    return {**figure, "rows": rows, **bar_texts(report)}


def strip(report: Report, used: Floats, explained: Floats, label: str) -> Figure:
    """A square for each day: the darker, the more of the usage is explained. Days without usage
    have none.
    """
    is_used = used > 0
    unknown = np.full(len(used), np.nan)
    share = np.divide(explained, used, out=unknown, where=is_used)
    levels = np.digitize(share, _LEVELS)
    marks: list[Figure] = []
    for level in range(len(_LEVELS) + 1):
        indexes = np.flatnonzero((levels == level) & is_used)
        if len(indexes):
            path = _squares(indexes.tolist(), len(used))
            marks.append({"kind": f"heat heat{level}", "d": path})
    shares: list[str | None] = [None] * len(used)
    rests: list[str | None] = [None] * len(used)
    for index in np.flatnonzero(is_used).tolist():
        shares[index] = units.percent(float(share[index]))
        rests[index] = units.count(float(used[index] - explained[index]))
    return {
        "label": label,
        "marks": marks,
        "up": [],
        "places": bar_places(report),
        "rows": [row("Explained", "", shares), row("Unexplained", "", rests)],
        **bar_texts(report),
        "across": [],
    }


def _squares(indexes: Sequence[int], count: int) -> str:
    """Squares at some of `count` places, as high as the strip."""
    slot = SIDE / count
    width = slot * 0.9
    squares = [f"M{slot * index:.1f} 0h{width:.1f}V{SIDE}h{-width:.1f}Z" for index in indexes]
    return "".join(squares)


def axis_format(currency: str) -> Format:
    """Money on an axis: without cents where there are none."""
    return lambda value: units.brief(value, currency)
