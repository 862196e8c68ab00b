"""What the parts of the page have in common: cards, charts, legends."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from otel_openai_usage.dashboard import figures, units
from otel_openai_usage.dashboard.components import Chart
from otel_openai_usage.dashboard.controls import href
from otel_openai_usage.dashboard.figures import Figure, Say
from otel_openai_usage.dashboard.queries import Report, Series
from otel_openai_usage.dashboard.view import GROUPS


def money(report: Report) -> Say:
    """How an amount of the report is said."""
    return lambda value: units.money(value, report.data.currency)


def card(title: str, children: Sequence[Any], *, size: str, name: str, note: Any = None) -> Any:
    """A part of the page. `size` is its width, `name` its id."""
    head = [html.H2(title), html.P(note, className="note")] if note else [html.H2(title)]
    return html.Section(className=f"card {size}", id=name, children=[html.Header(head), *children])


def nothing(title: str, text: str, *, size: str, name: str, note: Any = None) -> Any:
    """A card without anything to show, and why."""
    return card(title, [html.P(text, className="nothing")], size=size, name=name, note=note)


def by(report: Report) -> str:
    """What is grouped by, within a sentence."""
    return GROUPS[report.view.by].lower().replace("api", "API")


def every(report: Report) -> str:
    """How wide a bar is."""
    return f"Per {'week' if report.weekly else 'day'}."


def graph(figure: Figure, name: str, height: int) -> Any:
    """A chart, so many pixels high."""
    return Chart(id=f"chart-{name}", height=height, **figure)


def legend(
    report: Report, series: Sequence[Series], colour: Mapping[str, str], say: Say, *, links: bool
) -> Any:
    """Every series with its sum; with `links`, a click shows only that one."""

    def item(one: Series) -> Any:
        inside = [
            html.Span(
                className="swatch", style={"background": colour.get(one.label, figures.REST)}
            ),
            html.Span(one.label, className="name"),
            html.Span(say(one.total), className="amount"),
        ]
        if links and one.id is not None and not one.rest:
            return dcc.Link(
                inside,
                href=href(report.view.but(**{report.view.by: (one.id,)})),
                className="item",
                title=f"Only {one.label}",
            )
        return html.Span(inside, className="item")

    return html.Div(className="legend", children=[item(one) for one in series])
