"""The chart of this month: cost added up day by day, its forecast, and the budget.

Lines are points of (day of the month, money). Day 0.0 is the start of the first day.
"""

from math import floor
from typing import TypeAlias

from otel_openai_usage.dashboard import units
from otel_openai_usage.dashboard.chart_parts import SIDE, Figure, Format, Scale, line, row
from otel_openai_usage.dashboard.figures import BILLED
from otel_openai_usage.dashboard.queries import Report
from otel_openai_usage.dashboard.view import DAY, month_end

LIMIT = "#e5484d"
_BUDGET_REACH = 4
"""A budget is drawn if it is lower than this many times the highest cost; else it would press all
else to the ground.
"""
_LABEL_DAYS = 7

_Line: TypeAlias = list[tuple[float, float]]


def month(report: Report, format_: Format, label: str) -> Figure:
    """This month's cost added up day by day, its forecast, and the limit."""
    start = report.month.start
    days = (month_end(report.today) - start) // DAY
    now = (report.now - start) / DAY
    past = _past(report, now)
    ahead = _ahead(report, past[-1], days)
    budget = _budget(report, [*past, *ahead], days)
    # The first point is a start, not the end of a day.
    so_far = dict(past[1:])
    forecast = _daily(ahead)
    limits = _daily(budget)
    if budget:
        limits[now] = budget[0][1]
    ends = sorted({*so_far, *forecast, *limits})
    scale = Scale.of(value for _, value in [*past, *ahead, *budget])
    marks = [
        _area(scale, past, days),
        *_line(scale, past, days, BILLED, "line thick"),
        *_line(scale, ahead, days, BILLED, "line dotted"),
        *_line(scale, budget, days, LIMIT, "line dashed"),
    ]
    places = [end / days * 100 for end in ends]
    figure = scale.figure(label, format_, marks, places)
    figure["rows"] = [
        _row("So far", BILLED, so_far, ends, format_),
        _row("Forecast", BILLED, forecast, ends, format_),
        _row("Budget", LIMIT, limits, ends, format_),
    ]
    figure["titles"] = [_title(start, end, now) for end in ends]
    figure["across"] = _day_labels(days)
    return figure


def _row(
    name: str, colour: str, values: dict[float, float], ends: list[float], format_: Format
) -> Figure:
    """The values of a line at the ends that it has."""
    texts: list[str | None] = []
    for end in ends:
        value = values.get(end)
        texts.append(None if value is None else format_(value))
    return row(name, colour, texts)


def _past(report: Report, now: float) -> _Line:
    """The cost so far at the end of each day, and now."""
    known_from = _known_from(report)
    total = 0.0
    points: _Line = [(0.0, 0.0)] if known_from == 0 else []
    for day, cost in enumerate(report.month_days[: int(now)].tolist(), 1):
        total += cost
        if day >= known_from:
            points.append((float(day), total))
    points.append((now, report.forecast.spent))
    return points


def _known_from(report: Report) -> int:
    """The day of the month of the first row: before it nothing is known."""
    first = report.data.first
    if first is None:
        return 0
    return max(0, (first - report.month.start) // DAY)


def _ahead(report: Report, last: tuple[float, float], days: int) -> _Line:
    """From now to the forecast; empty if the month will cost no more."""
    forecast = report.forecast
    if forecast.total is None or forecast.total <= forecast.spent:
        return []
    return [last, (float(days), forecast.total)]


def _budget(report: Report, drawn: _Line, days: int) -> _Line:
    """The limit over the whole month; empty without one, or if it is far above."""
    limit = report.forecast.limit
    highest = max(value for _, value in drawn)
    if not limit or limit >= highest * _BUDGET_REACH:
        return []
    start = (0.0, limit)
    end = (float(days), limit)
    return [start, end]


def _points(points: _Line, days: int) -> _Line:
    """The points of a line in the square of the chart, across."""
    return [(day / days * SIDE, value) for day, value in points]


def _line(scale: Scale, points: _Line, days: int, colour: str, kind: str) -> list[Figure]:
    """The line, or nothing if it has no points."""
    if not points:
        return []
    scaled = _points(points, days)
    return [line(scale, scaled, colour, kind)]


def _area(scale: Scale, past: _Line, days: int) -> Figure:
    """The area under a line."""
    points = _points(past, days)
    top = line(scale, points, "")["d"]
    left = points[0][0]
    bottom = scale.y(0)
    return {"kind": "area", "d": f"{top}V{bottom}H{left:.1f}Z", "color": BILLED}


def _daily(points: _Line) -> dict[float, float]:
    """The values of a straight line at the ends of its days."""
    if not points:
        return {}
    (first, low), (last, high) = points
    slope = (high - low) / (last - first)
    values: dict[float, float] = {}
    for day in range(floor(first) + 1, int(last) + 1):
        values[float(day)] = low + slope * (day - first)
    return values


def _title(start: int, end: float, now: float) -> str:
    """The end of a day in words."""
    if end == now:
        return "Now"
    last_day = start + (int(end) - 1) * DAY
    return f"End of {units.day(last_day)}"


def _day_labels(days: int) -> list[tuple[float, str]]:
    """The number of every seventh day, at its middle in per cent."""
    labels: list[tuple[float, str]] = []
    for day in range(0, days, _LABEL_DAYS):
        middle = (day + 0.5) / days * 100
        number = str(day + 1)
        labels.append((round(middle, 2), number))
    return labels
