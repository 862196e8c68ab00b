"""The tiles at the top of the page: the numbers of the period, each with a line below it."""

from typing import Any

from dash import html

from otel_openai_usage.dashboard import cards, units
from otel_openai_usage.dashboard.chart_parts import Format
from otel_openai_usage.dashboard.controls import attribute
from otel_openai_usage.dashboard.queries import Report
from otel_openai_usage.dashboard.view import PERIODS
from otel_openai_usage.domain.model import utc

_FLAT = 0.0005
"""A smaller change is none."""


def tiles(report: Report) -> Any:
    """All tiles: money if any is known, counts, and caching if any input was cached."""
    children = [*_money(report), *_counts(report), *_savings(report)]
    organization = attribute("data-organization", report.data.organization)
    return html.Div(className="tiles", **organization, children=children)


def _money(report: Report) -> list[Any]:
    """Cost of the period, of the month so far, and of the whole month."""
    if not report.priced:
        return []
    format_ = cards.money(report)
    forecast = report.forecast
    month = f"{utc(report.today):%B}"
    kind = "" if report.basis == "billed" else ", estimated"
    cost_title = f"Cost{kind}, {_period(report)}"
    growth = _change(report, report.cost_change, is_money=True)
    month_title = f"{month} so far{kind}"
    first = report.data.first
    if first is not None and first > report.month.start:
        # Earlier days of the month are not known: the sum must not pass for the month.
        month_title = f"Since {units.day(first)}{kind}"
    budget = _budget(report)
    forecast_title = f"Forecast for {month}"
    rate = "too few days to tell"
    if forecast.rate is not None:
        rate = f"at {format_(forecast.rate)} a day"
    return [
        _tile("cost", cost_title, report.cost, format_, growth),
        _tile("month", month_title, forecast.spent, format_, budget),
        _tile("forecast", forecast_title, forecast.total, format_, rate),
    ]


def _counts(report: Report) -> list[Any]:
    """Requests and tokens of the period."""
    period = _period(report)
    requests_title = f"Requests, {period}"
    tokens_title = f"Tokens, {period}"
    if report.shows_events:
        requests_title = f"Metered requests, {period}"
        tokens_title = f"Metered tokens, {period}"
    requests = report.counted("requests")
    tokens = report.counted("input") + report.counted("output")
    requests_growth = report.counted_change("requests")
    tokens_growth = report.counted_change("input", "output")
    requests_below = _change(report, requests_growth)
    tokens_below = _change(report, tokens_growth)
    return [
        _tile("requests", requests_title, requests, units.count, requests_below),
        _tile("tokens", tokens_title, tokens, units.count, tokens_below),
    ]


def _savings(report: Report) -> list[Any]:
    """What caching saved, or how many tokens were cached."""
    savings = report.savings
    if savings.share is None:
        return []
    below = f"{units.percent(savings.share)} of input was cached"
    if savings.money is None:
        cached = report.counted("input_cached")
        return [_tile("savings", "Cached input", cached, units.count, below)]
    format_ = cards.money(report)
    return [_tile("savings", "Saved by caching", savings.money, format_, below)]


def _period(report: Report) -> str:
    """The period within a sentence."""
    name = PERIODS.get(report.view.period)
    if name is None:
        return report.asked.brief
    return name[0].lower() + name[1:]


def _tile(name: str, title: str, value: float | None, format_: Format, below: Any) -> Any:
    """A number. What it is exactly stands in its title, and in an attribute for tests."""
    text = units.NONE
    exact = ""
    if value is not None:
        text = format_(value)
        # Sums of floats end in noise.
        rounded = round(float(value), 6)
        exact = repr(rounded)
    children = [
        html.H3(title),
        html.Div(text, className="value", title=exact),
        html.Div(below, className="below"),
    ]
    data = attribute("data-value", exact)
    return html.Div(className="tile", id=f"tile-{name}", **data, children=children)


def _change(report: Report, change: float | None, *, is_money: bool = False) -> Any:
    """By how much a number grew. Money that grew is shown as worse, money that fell as better."""
    if change is None or report.compared is None:
        return "no earlier period to compare"
    tone = ""
    if is_money and abs(change) >= _FLAT:
        tone = " worse" if change > 0 else " better"
    after, before = report.compared
    percent = units.percent(change, signed=True)
    share = html.B(percent, className=f"change{tone}")
    title = f"{after.text}, compared with {before.text}"
    return html.Span(title=title, children=[share, f" vs {before.brief}"])


def _budget(report: Report) -> Any:
    """How much of the limit is spent."""
    forecast = report.forecast
    if forecast.limit is None:
        if report.view.filters:
            return "the budget is not by this filter"
        return "no spend limit is set"
    share = forecast.spent / forecast.limit if forecast.limit else 1.0
    filled_share = min(share, 1)
    style = {"width": f"{filled_share * 100:.1f}%"}
    class_name = "over" if share >= 1 else ""
    filled = html.Span(style=style, className=class_name)
    meter = html.Span(className="meter", children=filled)
    limit = units.brief(forecast.limit, report.data.currency)
    text = f"{units.percent(share)} of {limit}"
    return [meter, html.Span(text)]
