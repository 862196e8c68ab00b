"""The page of a report: tiles, charts, movers, table. It says where something is not known, not yet
over, or old.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html

from otel_openai_usage.dashboard import (
    budgets,
    cards,
    change,
    entries,
    figures,
    metered,
    units,
)
from otel_openai_usage.dashboard.controls import attribute
from otel_openai_usage.dashboard.freshness import freshness
from otel_openai_usage.dashboard.month_figure import month
from otel_openai_usage.dashboard.queries import Report, Series
from otel_openai_usage.dashboard.tiles import tiles
from otel_openai_usage.domain.model import utc

_EQUAL = 0.0005
"""An estimate that differs by a smaller share meets the bill."""
_NAMED = 3
"""So many models without a price are named."""

_Colours = Mapping[str, str]


def body(report: Report, problem: str | None) -> Sequence[Any]:
    """Everything below the controls. `problem` says why there is no newer data."""
    parts = _charts(report)
    parts += metered.coverage_card(report)
    parts.append(entries.table(report))
    main = html.Main(className="grid", children=parts)
    head = freshness(report.data, problem)
    return [*head, tiles(report), main, _footer(report)]


def empty(title: str, text: Sequence[Any]) -> Any:
    """A page with nothing to show yet, and what to do."""
    heading = html.H2(title)
    return html.Main(className="empty", children=[heading, *text])


def _charts(report: Report) -> list[Any]:
    """The cards with charts, and the movers."""
    main_series = report.cost_series if report.priced else report.consumed_series
    colour = figures.colours(main_series, report.request_series)
    if report.shows_events and not report.priced:
        return [
            metered.consumed_card(report, colour),
            _tokens(report, "narrow", 300),
            _requests(report, colour, "full"),
        ]
    usage_cards = [_tokens(report, "half", 230), _requests(report, colour, "half")]
    if report.shows_events:
        usage_cards = [
            metered.consumed_card(report, colour),
            _tokens(report, "narrow", 300),
            _requests(report, colour, "full"),
        ]
    shown = [_cost(report, colour), _month(report), *_budgets(report)]
    shown += [*usage_cards, *_comparison(report)]
    if report.priced:
        shown.append(entries.movers(report))
        shown += change.card(report)
    return shown


# --- cost


def _cost(report: Report, colour: _Colours) -> Any:
    """Cost by the dimension of the view, or why there is none."""
    by = cards.grouping(report)
    if not report.priced:
        text = (
            f"OpenAI's bill is not known by {by} here, and nothing is priced yet."
            " docs/dashboard.md explains how to get either."
        )
        return cards.nothing("Cost", text, size="wide", name="cost")
    note = _cost_note(report, by)
    series = report.cost_series
    if not series:
        text = "Nothing cost anything in this period."
        return cards.nothing("Cost", text, size="wide", note=note, name="cost")
    title = f"Cost by {by}"
    axis = figures.axis_format(report.data.currency)
    figure = figures.stacked(report, series, colour, axis, title)
    graph = cards.graph(figure, "cost", 300)
    legend = cards.legend(report, series, colour, cards.money(report), links=True)
    content = [graph, legend]
    return cards.card(title, content, size="wide", note=note, name="cost")


def _cost_note(report: Report, by: str) -> str:
    """Where the cost comes from, and what is missing in it."""
    width = f"per {cards.bar_width(report)}"
    if report.basis == "billed":
        note = f"As billed, {width}."
        until = report.data.billed_until
        is_today_billed = until is not None and until > report.today
        if report.span.live and is_today_billed:
            note += " Today is not over, and OpenAI bills some hours later."
        return note
    note = f"Estimated from list prices, {width}."
    if not report.billable:
        note += f" OpenAI's bill is not read by {by}."
    tokens, models = report.unpriced
    if tokens:
        count = units.count(tokens)
        note += f" {count} tokens have no known price and are missing: {_some(models)}."
    return note


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    text = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    return f"{text} and {more} more" if more > 0 else text


# --- usage


def _tokens(report: Report, size: str, height: int) -> Any:
    """Tokens by type. `height` is in pixels."""
    series = [one for one in report.token_series if one.total]
    if not series:
        text = "No tokens were used in this period."
        return cards.nothing("Tokens", text, size=size, name="tokens")
    figure = figures.stacked(report, series, figures.TOKENS, units.count, "Tokens")
    graph = cards.graph(figure, "tokens", height)
    legend = cards.legend(report, series, figures.TOKENS, units.count, links=False)
    note = f"Per {cards.bar_width(report)}."
    content = [graph, legend]
    return cards.card("Tokens", content, size=size, note=note, name="tokens")


def _requests(report: Report, colour: _Colours, size: str) -> Any:
    """Requests by the dimension of the view."""
    series = report.request_series
    if not series:
        text = "No requests were made in this period."
        return cards.nothing("Requests", text, size=size, name="requests")
    title = f"Requests by {cards.grouping(report)}"
    figure = figures.stacked(report, series, colour, units.count, title)
    graph = cards.graph(figure, "requests", 230)
    legend = cards.legend(report, series, colour, units.count, links=True)
    note = f"Per {cards.bar_width(report)}."
    content = [graph, legend]
    return cards.card(title, content, size=size, note=note, name="requests")


# --- the bill and the estimate


def _comparison(report: Report) -> Sequence[Any]:
    """Billed and estimated cost in one chart, where both are known."""
    if report.billed_and_estimated is None:
        return []
    title = "Billed and estimated"
    billed, estimated = report.billed_and_estimated
    if not (billed.any() or estimated.any()):
        text = "Nothing was billed or estimated in this period."
        return [cards.nothing(title, text, size="half", name="comparison")]
    axis = figures.axis_format(report.data.currency)
    figure = figures.billed_and_estimated(report, billed, estimated, axis, title)
    graph = cards.graph(figure, "comparison", 230)
    series = [Series("b", "Billed", billed), Series("e", "Estimated", estimated)]
    shades = {"Billed": figures.BILLED, "Estimated": figures.ESTIMATED}
    legend = cards.legend(report, series, shades, cards.money(report), links=False)
    content = [graph, legend]
    note = _difference(report)
    return [cards.card(title, content, size="half", note=note, name="comparison")]


def _difference(report: Report) -> str:
    """By how much the estimate missed the bill."""
    if report.difference is None:
        return "No day of this period is billed and priced yet."
    billed, estimated = report.difference
    share = estimated / billed - 1
    size = abs(share)
    settled = "Over the days that are settled the estimate"
    if size < _EQUAL:
        return f"{settled} meets the bill."
    direction = "above" if share > 0 else "below"
    return f"{settled} is {units.percent(size)} {direction} the bill."


# --- the month


def _month(report: Report) -> Any:
    """This month's cost day by day, and what it will come to."""
    title = f"{utc(report.today):%B}"
    if not report.priced:
        return cards.nothing(title, "No cost is known.", size="narrow", name="month-chart")
    axis = figures.axis_format(report.data.currency)
    figure = month(report, axis, f"Cost in {title}")
    graph = cards.graph(figure, "month", 216)
    terms: list[Any] = []
    for name, value in _month_facts(report):
        terms.append(html.Dt(name))
        terms.append(html.Dd(value))
    facts = html.Dl(className="facts", children=terms)
    ending = "with its forecast"
    if report.forecast.total is None:
        ending = "too few days cost anything for a forecast"
    note = f"Added up day by day, {ending}."
    content = [graph, facts]
    return cards.card(title, content, size="narrow", note=note, name="month-chart")


def _month_facts(report: Report) -> list[tuple[str, str]]:
    """Names and values."""
    forecast = report.forecast
    currency = report.data.currency
    spent = units.money(forecast.spent, currency)
    total = units.money(forecast.total, currency)
    facts = [("So far", spent), ("Forecast", total)]
    if forecast.low is not None and forecast.high is not None:
        low = units.money(forecast.low, currency)
        high = units.money(forecast.high, currency)
        facts.append(("Likely between", f"{low} and {high}"))
    if forecast.limit is not None:
        limit = units.brief(forecast.limit, currency).removesuffix(".00")
        facts.append(("Budget", limit))
        facts.append(("Budget reached", _reached(report)))
    return facts


def _reached(report: Report) -> str:
    """When the budget is, or was, used up."""
    reached = report.forecast.reached
    if reached is None:
        return "not this month" if report.forecast.rate is not None else units.NONE
    word = "on" if reached >= report.today else "since"
    return f"{word} {units.day(reached)}"


def _budgets(report: Report) -> list[Any]:
    """The budgets, if there are any."""
    states = report.data.budgets
    return [budgets.card(states, report.now)] if states else []


# --- the footer


def _footer(report: Report) -> Any:
    """What a reader should know about the numbers."""
    data = report.data
    sentences = ["Days are UTC."]
    if report.priced and report.view.by == "model" and report.basis == "billed":
        sentences.append(
            "Cost by model is read from the words of OpenAI's line items;"
            " charges without a model stand under their own name."
        )
    others = data.currencies[1:]
    if others:
        currencies = ", ".join(others).upper()
        sentences.append(f"Bills in {currencies} are not shown.")
    if data.only_metered:
        sentences.append(
            "Requests and tokens are what applications reported; OpenAI's own count is not read."
        )
    if data.legacy:
        sentences.append("Usage is from OpenAI's undocumented legacy endpoint.")
    if data.first is not None and data.first > report.asked.start:
        first_day = units.long(utc(data.first).date())
        sentences.append(f"The store begins on {first_day}.")
    days = attribute("data-days", str(report.asked.days))
    return html.Footer(" ".join(sentences), **days)
