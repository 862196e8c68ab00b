"""The cards of what applications told of their responses: tokens by customer, and what nobody told."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from otel_openai_usage.dashboard import cards, figures, units
from otel_openai_usage.dashboard.components import Chart
from otel_openai_usage.dashboard.controls import attribute, href
from otel_openai_usage.dashboard.coverage import Cover, Coverage, coverage
from otel_openai_usage.dashboard.queries import Report


def consumed(report: Report, colour: Mapping[str, str]) -> Any:
    """Tokens by customer, or by model, as events tell them."""
    title = f"Tokens by {cards.by(report)}"
    series = report.consumed_series
    if not series:
        other = report.view.filters.keys() - {"model", "customer"}
        text = (
            "Events tell a customer and a model, nothing else."
            if other
            else "No event told of tokens in this period."
        )
        return cards.nothing(title, text, size="wide", name="consumed")
    graph = cards.graph(
        figures.stacked(report, series, colour, units.count, title), "consumed", 300
    )
    note = f"As applications told, per {'week' if report.weekly else 'day'}: input and output. What it cost is not known by customer."
    legend = cards.legend(report, series, colour, units.count, links=True)
    return cards.card(title, [graph, legend], size="wide", note=note, name="consumed")


def rest(report: Report) -> Sequence[Any]:
    """What of OpenAI's count events explain, by model and day; nothing where there is nothing to
    compare.
    """
    found = coverage(report)
    if found is None:
        return []
    if not found.models:
        return [
            cards.nothing(
                "Who used the rest?",
                "OpenAI counted no tokens in this period.",
                size="full",
                name="coverage",
            )
        ]
    names = (
        "Model",
        "Share explained, by " + ("week" if report.weekly else "day"),
        "Explained",
        "Unexplained tokens",
        "Used",
    )
    head = html.Tr(
        [
            html.Th(name, className=kind)
            for name, kind in zip(names, ("name", "strip", "", "", "used"), strict=True)
        ]
    )
    body = [_row(report, cover) for cover in (found.whole, *found.models)]
    table = html.Table([html.Thead(head), html.Tbody(body)], className="coverage")
    return [
        cards.card(
            "Who used the rest?", [table], size="full", name="coverage", note=_note(report, found)
        )
    ]


def _note(report: Report, found: Coverage) -> str:
    whole = found.whole
    since = (
        f" The first event is of {units.day(found.since)}."
        if found.since > report.span.start
        else ""
    )
    rest = f"{units.count(whole.rest)} are nobody's yet" if whole.rest > 0 else "none are left"
    return f"Events explain {units.percent(whole.share)} of the tokens that OpenAI counted; {rest}.{since}"


def _row(report: Report, cover: Cover) -> Any:
    label = (
        cover.label
        if cover.id is None
        else dcc.Link(cover.label, href=href(report.view.but(model=(cover.id,))))
    )
    share = "" if cover.share is None else f"{cover.share:.6f}"
    used = int(cover.used.sum())
    return html.Tr(
        [
            html.Td(label, className="name", title=cover.id or cover.label),
            html.Td(
                Chart(
                    height=18,
                    className="strip",
                    **figures.strip(report, cover.used, cover.explained, cover.label),
                ),
                className="strip",
            ),
            html.Td(units.percent(cover.share), **attribute("data-value", share)),
            html.Td(units.signed(cover.rest), **attribute("data-value", str(cover.rest))),
            html.Td(f"{used:,}", className="used", **attribute("data-value", str(used))),
        ]
    )
