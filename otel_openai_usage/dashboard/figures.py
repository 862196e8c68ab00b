"""Charts, as Plotly's own JSON. Colours of text and grid come from the style sheet, so that light and dark need no redraw."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor, log10
from typing import Any, TypeAlias

from otel_openai_usage.core.model import utc
from otel_openai_usage.dashboard import units
from otel_openai_usage.dashboard.queries import Report, Series
from otel_openai_usage.dashboard.view import DAY, month_end

Figure: TypeAlias = dict[str, Any]
Say: TypeAlias = Callable[[float], str]

PALETTE = (
    "#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#a463f2", "#3ca951", "#ff8ab7", "#97bbf5",
    "#9c6b4e", "#d9a3f0", "#2f8f9d", "#c2b04a", "#b84a62", "#7d8fe0", "#8bc34a", "#c97b3d",
)  # fmt: skip
REST = "#9498a0"
BILLED, ESTIMATED, LIMIT = "#4269d0", "#efb118", "#e5484d"
TOKENS = {"Input": "#4269d0", "Cached input": "#97bbf5", "Output": "#efb118"}


def colours(*charts: Sequence[Series]) -> Mapping[str, str]:
    """A colour for each label; one that stands in several charts has the same in all of them."""
    chosen: dict[str, str] = {}
    for chart in charts:
        for one in chart:
            if not one.rest and one.label not in chosen:
                chosen[one.label] = PALETTE[len(chosen) % len(PALETTE)]
    return chosen


def stacked(report: Report, series: Sequence[Series], colour: Mapping[str, str], say: Say) -> Figure:
    """Bars over time, one on the other; what is not over yet is paler."""
    totals = [float(sum(values)) for values in zip(*(one.values for one in series), strict=True)]
    days = [f"{utc(day):%Y-%m-%d}" for day in report.bins]
    opacity = [1.0] * len(days)
    if report.span.live:
        opacity[-1] = 0.45
    traces: list[Figure] = [
        {
            "type": "bar",
            "name": one.label,
            "x": days,
            "y": [round(value, 6) for value in one.values.tolist()],
            "customdata": [say(value) for value in one.values.tolist()],
            "hovertemplate": "%{customdata}",
            "marker": {"color": colour.get(one.label, REST), "opacity": opacity, "line": {"width": 0}},
        }
        for one in series
    ]
    if len(series) > 1:
        traces.append(_unseen("Total", days, totals, say))
    return {"data": traces, "layout": _layout(report, totals, say, barmode="stack")}


def _unseen(name: str, days: Sequence[str], values: Sequence[float], say: Say) -> Figure:
    """A line that only the hover box shows."""
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": days, "y": values, "customdata": [say(value) for value in values],
        "hovertemplate": "%{customdata}", "line": {"width": 0, "color": "rgba(0,0,0,0)"},
    }  # fmt: skip


def billed_and_estimated(report: Report, say: Say) -> Figure:
    """What was billed as bars, what was estimated as a line."""
    both = report.billed_and_estimated
    if both is None:
        return {"data": [], "layout": {}}
    days = [f"{utc(day):%Y-%m-%d}" for day in report.bins]
    billed, estimated = ([round(value, 6) for value in values.tolist()] for values in both)
    shown: list[float | None] = [value or None for value in estimated]  # a day without an estimate is a hole, not free
    return {
        "data": [
            {"type": "bar", "name": "Billed", "x": days, "y": billed, "customdata": [say(value) for value in billed],
             "hovertemplate": "%{customdata}", "marker": {"color": BILLED, "line": {"width": 0}}},
            {"type": "scatter", "mode": "lines+markers", "name": "Estimated", "x": days, "y": shown,
             "customdata": [say(value) for value in estimated], "hovertemplate": "%{customdata}",
             "line": {"color": ESTIMATED, "width": 2}, "marker": {"size": 5}},
        ],
        "layout": _layout(report, [max(pair) for pair in zip(billed, estimated, strict=True)], say),
    }  # fmt: skip


def month(report: Report, say: Say) -> Figure:
    """This month's cost added up day by day, where it goes, and the limit."""
    forecast, start = report.forecast, report.month.start
    ends = list(range(start + DAY, report.today + 1, DAY))
    sums = [0.0]
    for cost in report.month_days[: len(ends)].tolist():
        sums.append(sums[-1] + cost)
    points = [start, *ends, *([report.now] if report.now > report.today else [])]
    sums = [*sums, forecast.spent][: len(points)]
    solid = {"color": BILLED, "width": 3}
    traces = [_line("So far", points, sums, say, solid, fill="tozeroy", fillcolor="rgba(66,105,208,.12)")]
    highest = max(forecast.spent, forecast.total or 0.0)
    end = month_end(report.today)
    if forecast.total is not None and forecast.total > forecast.spent:
        traces.append(_line("Forecast", [points[-1], end], [sums[-1], forecast.total], say, {"color": BILLED, "width": 2, "dash": "dot"}))
    shown_limit = forecast.limit is not None and forecast.limit < highest * 4
    if forecast.limit is not None and shown_limit:
        traces.append(_line("Budget", [start, end], [forecast.limit] * 2, say, {"color": LIMIT, "width": 1.5, "dash": "dash"}))
        highest = max(highest, forecast.limit)
    layout = _layout(report, [highest], say)
    week = {"dtick": 7 * DAY * 1000, "tick0": _moment(start)}
    layout["xaxis"] |= {"range": [_moment(start), _moment(end)], "tickformat": "%-d", "hoverformat": "%-d %b", **week}
    return {"data": traces, "layout": layout}


def _line(name: str, times: Sequence[float], values: Sequence[float], say: Say, line: Figure, **more: str) -> Figure:
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": [_moment(time) for time in times],
        "y": [round(value, 6) for value in values], "customdata": [say(value) for value in values],
        "hovertemplate": "%{customdata}", "line": line, **more,
    }  # fmt: skip


def _moment(unix: float) -> str:
    return f"{utc(unix):%Y-%m-%dT%H:%M}"


def _layout(report: Report, heights: Sequence[float], say: Say, **more: Any) -> Figure:
    places = ticks(max(heights, default=0.0))
    half = (7 * DAY if report.weekly else DAY) / 2
    first, last = report.bins[0], report.bins[-1]
    unseen = {"ticks": "outside", "ticklen": 6, "tickcolor": "rgba(0,0,0,0)", "fixedrange": True, "zeroline": False}
    return {
        "autosize": True,
        "margin": {"l": 52, "r": 6, "t": 8, "b": 28},  # fixed: Plotly draws everything twice to find them out
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "inherit", "size": 12},
        "showlegend": False,
        "hovermode": "x unified",
        "bargap": 0.22 if len(report.bins) < 60 else 0.08,
        "dragmode": False,
        "xaxis": {
            "type": "date", "range": [_moment(first - half), _moment(last + half)], "showgrid": False,
            "nticks": min(len(report.bins) + 1, 9), "tickformat": "%-d %b",
            "hoverformat": "Week of %-d %b %Y" if report.weekly else "%a %-d %b %Y", **unseen,
        },
        "yaxis": {
            "tickvals": places, "ticktext": [say(place) for place in places], "range": [0, places[-1] * 1.02], "gridwidth": 1, **unseen,
        },
        **more,
    }  # fmt: skip


def ticks(highest: float) -> list[float]:
    """Three to five round numbers from 0 to just above the highest."""
    if highest <= 0:
        return [0.0, 1.0]
    rough = highest / 4
    power: float = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    return [round(step * index, 12) for index in range(ceil(highest / step * 0.999) + 1)]


def brief(currency: str) -> Say:
    """Money on an axis: without cents where there are none."""
    return lambda value: units.brief(value, currency)
