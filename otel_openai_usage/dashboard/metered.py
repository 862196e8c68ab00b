"""The cards of metered usage, which applications reported: tokens by customer, and how much of
OpenAI's count events explain.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from otel_openai_usage.dashboard import cards, figures, units
from otel_openai_usage.dashboard.components import Chart
from otel_openai_usage.dashboard.controls import number_cell, only
from otel_openai_usage.dashboard.coverage import Coverage, ModelCoverage, coverage
from otel_openai_usage.dashboard.queries import Report

_TITLE = "Who used the rest?"


def consumed_card(report: Report, colour: Mapping[str, str]) -> Any:
    """Tokens by customer, or by model, as events report them."""
    title = f"Tokens by {cards.grouping(report)}"
    series = report.consumed_series
    if not series:
        text = "No event reported tokens in this period."
        unknown = report.view.filters.keys() - {"model", "customer"}
        if unknown:
            text = "Events have a customer and a model, nothing else."
        return cards.nothing(title, text, size="wide", name="consumed")
    figure = figures.stacked(report, series, colour, units.count, title)
    graph = cards.graph(figure, "consumed", 300)
    legend = cards.legend(report, series, colour, units.count, links=True)
    note = f"As applications reported, per {cards.bar_width(report)}: input and output."
    return cards.card(title, [graph, legend], size="wide", note=note, name="consumed")


def coverage_card(report: Report) -> Sequence[Any]:
    """How much of OpenAI's count events explain, by model and day; no card if there is nothing to
    compare.
    """
    found = coverage(report)
    if found is None:
        return []
    if not found.models:
        text = "OpenAI counted no tokens in this period."
        return [cards.nothing(_TITLE, text, size="full", name="coverage")]
    head = html.Thead(_head(report))
    models = [found.whole, *found.models]
    body = html.Tbody([_row(report, model) for model in models])
    table = html.Table([head, body], className="coverage")
    note = _note(report, found)
    return [cards.card(_TITLE, [table], size="full", name="coverage", note=note)]


def _head(report: Report) -> Any:
    """The titles of the columns."""
    share = f"Share explained, by {cards.bar_width(report)}"
    cells = [
        html.Th("Model", className="name"),
        html.Th(share, className="strip"),
        html.Th("Explained", className=""),
        html.Th("Unexplained tokens", className=""),
        html.Th("Used", className="used"),
    ]
    return html.Tr(cells)


def _note(report: Report, found: Coverage) -> str:
    """The sum of all models in words."""
    share = units.percent(found.whole.share)
    unexplained = found.whole.unexplained
    rest = "none are left"
    if unexplained > 0:
        rest = f"{units.count(unexplained)} are nobody's yet"
    note = f"Events explain {share} of the tokens that OpenAI counted; {rest}."
    if found.since > report.span.start:
        note += f" The first event is of {units.day(found.since)}."
    return note


def _row(report: Report, model: ModelCoverage) -> Any:
    """A model, or several: a strip by day, and sums."""
    share = "" if model.share is None else f"{model.share:.6f}"
    unexplained = model.unexplained
    used = int(model.used.sum())
    cells = [
        _name_cell(report, model),
        html.Td(_strip(report, model), className="strip"),
        number_cell(units.percent(model.share), share),
        number_cell(units.signed(unexplained), unexplained),
        number_cell(f"{used:,}", used, "used"),
    ]
    return html.Tr(cells)


def _name_cell(report: Report, model: ModelCoverage) -> Any:
    """The name of a model, with a link to it alone."""
    if model.id is None:
        return html.Td(model.label, className="name", title=model.label)
    link = dcc.Link(model.label, href=only(report, "model", model.id))
    return html.Td(link, className="name", title=model.id)


def _strip(report: Report, model: ModelCoverage) -> Chart:
    """The share that is explained, by day."""
    figure = figures.strip(report, model.used, model.explained, model.label)
    return Chart(height=18, className="strip", **figure)
