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
    scale = Scale.of(value for _, value in [*past, *ahead, *budget])
    marks = [
        _area(scale, past, days),
        *_line(scale, past, days, BILLED, "line thick"),
        *_line(scale, ahead, days, BILLED, "line dotted"),
        *_line(scale, budget, days, LIMIT, "line dashed"),
    ]
    so_far = dict(past[1:])
    forecast = _daily(ahead)
    limits = _daily(budget)
    if budget:
        limits[now] = budget[0][1]
    ends = sorted({*so_far, *forecast, *limits})

    def texts(values: dict[float, float]) -> list[str | None]:
        return [format_(values[end]) if end in values else None for end in ends]

    places = [end / days * 100 for end in ends]
    return {
        **scale.figure(label, format_, marks, places),
        "rows": [
            row("So far", BILLED, texts(so_far)),
            row("Forecast", BILLED, texts(forecast)),
            row("Budget", LIMIT, texts(limits)),
        ],
        "titles": [_title(start, end, now) for end in ends],
        "across": _day_labels(days),
    }


def _past(report: Report, now: float) -> _Line:
    """The cost so far at the end of each day, and now."""
    known_from = 0
    if report.data.first is not None:
        # Before the first row nothing is known.
        known_from = max(0, (report.data.first - report.month.start) // DAY)
    total = 0.0
    points: _Line = [(0.0, 0.0)] if known_from == 0 else []
    for day, cost in enumerate(report.month_days[: int(now)].tolist(), 1):
        total += cost
        if day >= known_from:
            points.append((float(day), total))
    points.append((now, report.forecast.spent))
    return points


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
    return [(0.0, float(limit)), (float(days), float(limit))]


def _points(points: _Line, days: int) -> _Line:
    """The points of a line in the square of the chart, across."""
    return [(day / days * SIDE, value) for day, value in points]


def _line(scale: Scale, points: _Line, days: int, colour: str, kind: str) -> list[Figure]:
    """The line, or nothing if it has no points."""
    return [line(scale, _points(points, days), colour, kind)] if points else []


def _area(scale: Scale, past: _Line, days: int) -> Figure:
    """The area under a line."""
    points = _points(past, days)
    top = line(scale, points, "")["d"]
    left = points[0][0]
    return {"kind": "area", "d": f"{top}V{scale.y(0)}H{left:.1f}Z", "color": BILLED}


def _daily(points: _Line) -> dict[float, float]:
    """The values of a straight line at the ends of its days."""
    if not points:
        return {}
    (first, low), (last, high) = points
    slope = (high - low) / (last - first)
    days = range(floor(first) + 1, int(last) + 1)
    return {float(day): low + slope * (day - first) for day in days}


def _title(start: int, end: float, now: float) -> str:
    if end == now:
        return "Now"
    last_day = start + (int(end) - 1) * DAY
    return f"End of {units.day(last_day)}"


def _day_labels(days: int) -> list[tuple[float, str]]:
    """The number of every seventh day, at its middle in per cent."""
    labelled = range(0, days, _LABEL_DAYS)
    return [(round((day + 0.5) / days * 100, 2), str(day + 1)) for day in labelled]
