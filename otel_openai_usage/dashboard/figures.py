"""Charts, laid out: paths in a square of 1000 by 1000 that the browser stretches, and words at per
cents of it.

Colours of text and grid come from the style sheet, so that light and dark need no redraw.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, log10
from typing import Any, Self, TypeAlias

import numpy as np

from otel_openai_usage.dashboard import units
from otel_openai_usage.dashboard.queries import Floats, Report, Series
from otel_openai_usage.dashboard.view import DAY, month_end
from otel_openai_usage.domain.model import utc

Figure: TypeAlias = dict[str, Any]
Say: TypeAlias = Callable[[float], str]
Points: TypeAlias = Sequence[tuple[float, float | None]]

PALETTE = (
    "#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#a463f2", "#3ca951", "#ff8ab7", "#97bbf5",
    "#9c6b4e", "#d9a3f0", "#2f8f9d", "#c2b04a", "#b84a62", "#7d8fe0", "#8bc34a", "#c97b3d",
)  # fmt: skip
REST = "#9498a0"
BILLED = "#4269d0"
ESTIMATED = "#efb118"
LIMIT = "#e5484d"
_SIDE = 1000
_WORDS = 8
_MONTHS = 13
"""So many words stand below a chart, if they are long; so many months."""
_LEVELS = (0.005, 0.25, 0.5, 0.75, 0.95)
TOKENS = {"Input": "#4269d0", "Cached input": "#97bbf5", "Output": "#efb118"}


def colours(*charts: Sequence[Series]) -> Mapping[str, str]:
    """A colour for each label; one that stands in several charts has the same in all of them."""
    chosen: dict[str, str] = {}
    for chart in charts:
        for one in chart:
            if not one.rest and one.label not in chosen:
                chosen[one.label] = PALETTE[len(chosen) % len(PALETTE)]
    return chosen


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where values stand: the ticks are round numbers, from the lowest to just above the highest."""

    ticks: Sequence[float]

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        known = list(values)
        return cls(ticks(max([0.0, *known]), min([0.0, *known])))

    def y(self, value: float) -> float:
        """Down from the top."""
        low = self.ticks[0]
        high = self.ticks[-1]
        return round((high - value) / (high - low) * _SIDE, 1)

    def figure(
        self, label: str, say: Say, marks: Sequence[Figure], places: Sequence[float], **more: Any
    ) -> Figure:
        """All that charts have in common."""
        lines = "".join(f"M0 {self.y(place)}H{_SIDE}" for place in self.ticks)
        return {
            "label": label,
            "marks": [{"kind": "rule", "d": lines}, *marks],
            "up": [[self.y(place) / 10, say(place)] for place in self.ticks],
            "places": [round(place, 2) for place in places],
            **more,
        }


def stacked(
    report: Report, series: Sequence[Series], colour: Mapping[str, str], say: Say, label: str
) -> Figure:
    """Bars over time, one on the other, what is below nothing downwards; what is not over yet is
    paler.
    """
    values = np.array([one.values for one in series])
    above = np.maximum(values, 0).cumsum(axis=0)
    below = np.minimum(values, 0).cumsum(axis=0)
    scale = _Scale.of([*above[-1].tolist(), *below[-1].tolist()])
    marks = []
    for one, up, down in zip(series, above, below, strict=True):
        ends = np.where(one.values > 0, up, down)
        marks += _bars(report, scale, ends - one.values, ends, colour.get(one.label, REST))
    rows = [_row(one.label, colour.get(one.label, REST), _said(one.values, say)) for one in series]
    if len(series) > 1:
        rows.append(_row("Total", "", [say(value) for value in values.sum(axis=0).tolist()]))
    return scale.figure(label, say, marks, _places(report), rows=rows, **_dates(report))


def _bars(report: Report, scale: _Scale, starts: Floats, ends: Floats, colour: str) -> list[Figure]:
    slot = _SIDE / len(report.bins)
    gap = slot * 0.22
    bars = [
        ""
        if start == end
        else f"M{slot * at + gap / 2:.1f} {scale.y(start)}h{slot - gap:.1f}V{scale.y(end)}h{gap - slot:.1f}Z"
        for at, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True))
    ]
    whole = len(bars) - report.span.live
    parts = [("bar", "".join(bars[:whole])), ("bar pale", "".join(bars[whole:]))]
    return [{"kind": kind, "d": path, "color": colour} for kind, path in parts if path]


def _said(values: Floats, say: Say) -> list[str | None]:
    """What is nothing is not said."""
    return [say(value) if value else None for value in values.tolist()]


def _row(name: str, colour: str, texts: Sequence[str | None]) -> Figure:
    return {"name": name, "color": colour, "texts": texts}


def _places(report: Report) -> list[float]:
    return [(at + 0.5) / len(report.bins) * 100 for at in range(len(report.bins))]


def _dates(report: Report) -> Figure:
    across, titles = _words(tuple(report.bins), weekly=report.weekly)
    return {"across": across, "titles": titles}


@lru_cache(8)  # all charts of a page have the same
def _words(
    bins: Sequence[int], *, weekly: bool
) -> tuple[Sequence[tuple[float, str]], Sequence[str]]:
    """Below the bars: months of a long chart, else days. Above the box: every day or week in full."""
    days = [utc(day).date() for day in bins]
    months = [at for at, day in enumerate(days) if at and day.month != days[at - 1].month]
    if len(months) > _MONTHS:
        across = [(at, f"{days[at]:%b %Y}") for at in months[:: ceil(len(months) / _WORDS)]]
    else:
        across = (
            [(at, f"{days[at]:%b}") for at in months]
            if weekly
            else [
                (at, units.short(days[at])) for at in range(0, len(days), ceil(len(days) / _WORDS))
            ]
        )
    titles = [
        f"Week of {units.long(day)}" if weekly else f"{day:%a} {units.long(day)}" for day in days
    ]
    return [(round((at + 0.5) / len(bins) * 100, 2), text) for at, text in across], titles


def billed_and_estimated(
    report: Report, both: tuple[Floats, Floats], say: Say, label: str
) -> Figure:
    """What was billed as bars, what was estimated as a line."""
    billed, estimated = both
    scale = _Scale.of([*billed.tolist(), *estimated.tolist()])
    points = [
        (place * 10, value or None)
        for place, value in zip(_places(report), estimated.tolist(), strict=True)
    ]
    marks = [
        *_bars(report, scale, np.zeros(len(billed)), billed, BILLED),
        *_line(scale, points, ESTIMATED, dots=True),
    ]
    rows = [
        _row("Billed", BILLED, _said(billed, say)),
        _row("Estimated", ESTIMATED, _said(estimated, say)),
    ]
    return scale.figure(label, say, marks, _places(report), rows=rows, **_dates(report))


def _line(
    scale: _Scale, points: Points, colour: str, kind: str = "line", *, dots: bool = False
) -> list[Figure]:
    """A line through points; one without a value is a hole."""
    path = ""
    pen = "M"
    for x, value in points:
        path += "" if value is None else f"{pen}{x:.1f} {scale.y(value)}"
        pen = "M" if value is None else "L"
    made = [{"kind": kind, "d": path, "color": colour}]
    if dots:
        path = "".join(f"M{x:.1f} {scale.y(value)}h0" for x, value in points if value is not None)
        made.append({"kind": "dots", "d": path, "color": colour})
    return made


def strip(report: Report, used: Floats, explained: Floats, label: str) -> Figure:
    """A square for each day: the darker, the more of what was used is explained. Days without use
    are left out.
    """
    share = np.divide(explained, used, out=np.full(len(used), np.nan), where=used > 0)
    level = np.digitize(share, _LEVELS)
    slot = _SIDE / len(used)
    marks = [
        {
            "kind": f"heat heat{at}",
            "d": "".join(
                f"M{slot * here:.1f} 0h{slot * 0.9:.1f}V{_SIDE}h{slot * -0.9:.1f}Z"
                for here in places
            ),
        }
        for at in range(len(_LEVELS) + 1)
        if len(places := np.flatnonzero((level == at) & (used > 0)))
    ]
    days = list(zip(share.tolist(), (used - explained).tolist(), (used > 0).tolist(), strict=True))
    rows = [
        _row("Explained", "", [units.percent(part) if known else None for part, _, known in days]),
        _row("Unexplained", "", [units.count(rest) if known else None for _, rest, known in days]),
    ]
    return {
        "label": label,
        "marks": marks,
        "up": [],
        "places": _places(report),
        "rows": rows,
        **_dates(report),
        "across": [],
    }


def month(report: Report, say: Say, label: str) -> Figure:
    """This month's cost added up day by day, where it goes, and the limit."""
    forecast = report.forecast
    start = report.month.start
    now = (report.now - start) / DAY
    days = (month_end(report.today) - start) // DAY
    sums = np.concatenate([[0.0], report.month_days.cumsum()])[: int(now) + 1].tolist()
    known = (
        max(0, (report.data.first - start) // DAY) if report.data.first is not None else 0
    )  # before it nothing is known
    past = [
        *((float(day), value) for day, value in enumerate(sums) if day >= known),
        (now, forecast.spent),
    ]
    ahead = (
        [past[-1], (float(days), forecast.total)]
        if forecast.total is not None and forecast.total > forecast.spent
        else []
    )
    highest = max(value for _, value in [*past, *ahead])
    budget = (
        [(0.0, float(forecast.limit)), (float(days), float(forecast.limit))]
        if forecast.limit and forecast.limit < highest * 4
        else []
    )
    scale = _Scale.of(value for _, value in [*past, *ahead, *budget])

    def line(points: Sequence[tuple[float, float]], colour: str, kind: str) -> list[Figure]:
        return (
            _line(scale, [(day / days * _SIDE, value) for day, value in points], colour, kind)
            if points
            else []
        )

    area = {
        "kind": "area",
        "d": f"{line(past, '', '')[0]['d']}V{scale.y(0)}H{past[0][0] / days * _SIDE:.1f}Z",
        "color": BILLED,
    }
    marks = [
        area,
        *line(past, BILLED, "line thick"),
        *line(ahead, BILLED, "line dotted"),
        *line(budget, LIMIT, "line dashed"),
    ]
    told = {
        "So far": dict(past[1:]),
        "Forecast": _daily(ahead),
        "Budget": {now: budget[0][1], **_daily(budget)} if budget else {},
    }
    ends = sorted({day for values in told.values() for day in values})
    shades = {"So far": BILLED, "Forecast": BILLED, "Budget": LIMIT}
    return scale.figure(
        label,
        say,
        marks,
        [day / days * 100 for day in ends],
        rows=[
            _row(name, shades[name], [say(values[day]) if day in values else None for day in ends])
            for name, values in told.items()
        ],
        titles=[
            "Now" if day == now else f"End of {units.day(start + (int(day) - 1) * DAY)}"
            for day in ends
        ],
        across=[[round((day + 0.5) / days * 100, 2), str(day + 1)] for day in range(0, days, 7)],
    )


def _daily(ahead: Sequence[tuple[float, float]]) -> dict[float, float]:
    """A straight line's values at the ends of its days."""
    if not ahead:
        return {}
    (first, low), (last, high) = ahead
    return {
        float(day): low + (high - low) * (day - first) / (last - first)
        for day in range(floor(first) + 1, int(last) + 1)
    }


def ticks(highest: float, lowest: float = 0.0) -> list[float]:
    """Three to six round numbers, from 0 or just below the lowest to just above the highest."""
    if highest <= lowest:
        return [0.0, 1.0]
    rough = (highest - lowest) / 4
    power: float = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = -ceil(-lowest / step * 0.999)
    last = ceil(highest / step * 0.999)
    return [round(step * index, 12) for index in range(first, last + 1)]


def brief(currency: str) -> Say:
    """Money on an axis: without cents where there are none."""
    return lambda value: units.brief(value, currency)
