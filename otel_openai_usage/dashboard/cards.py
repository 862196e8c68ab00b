"""What the parts of the page have in common: cards, charts, legends."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from otel_openai_usage.dashboard import figures, units
from otel_openai_usage.dashboard.chart_parts import Figure, Format
from otel_openai_usage.dashboard.components import Chart
from otel_openai_usage.dashboard.controls import only
from otel_openai_usage.dashboard.queries import Report, Series
from otel_openai_usage.dashboard.view import GROUPS


def money(report: Report) -> Format:
    """Money of the report as text."""
    currency = report.data.currency
    return lambda value: units.money(value, currency)


def card(title: str, children: Sequence[Any], *, size: str, name: str, note: Any = None) -> Any:
    """A part of the page. `size` is its width, `name` its id."""
    head: list[Any] = [html.H2(title)]
    if note:
        head.append(html.P(note, className="note"))
    content = [html.Header(head), *children]
    return html.Section(className=f"card {size}", id=name, children=content)


def nothing(title: str, text: str, *, size: str, name: str, note: Any = None) -> Any:
    """A card without anything to show, and why."""
    reason = html.P(text, className="nothing")
    return card(title, [reason], size=size, name=name, note=note)


def grouping(report: Report) -> str:
    """The dimension that is grouped by, within a sentence."""
    name = GROUPS[report.view.by].lower()
    return name.replace("api", "API")


def bar_width(report: Report) -> str:
    """The time that a bar covers, within a sentence."""
    return "week" if report.weekly else "day"


def graph(figure: Figure, name: str, height: int) -> Any:
    """A chart, so many pixels high."""
    return Chart(id=f"chart-{name}", height=height, **figure)


def legend(
    report: Report,
    series: Sequence[Series],
    colour: Mapping[str, str],
    format_: Format,
    *,
    links: bool,
) -> Any:
    """Every series with its sum; with `links`, a click shows only that one."""
    items: list[Any] = []
    for one in series:
        shade = colour.get(one.label, figures.REST)
        swatch = html.Span(className="swatch", style={"background": shade})
        name = html.Span(one.label, className="name")
        amount = html.Span(format_(one.total), className="amount")
        inside = [swatch, name, amount]
        if links and one.id is not None and not one.rest:
            items.append(_link(report, one.id, one.label, inside))
        else:
            items.append(html.Span(inside, className="item"))
    return html.Div(className="legend", children=items)


def _link(report: Report, id_: str, label: str, inside: Sequence[Any]) -> Any:
    """A link to the view of one series alone."""
    url = only(report, report.view.by, id_)
    return dcc.Link(inside, href=url, className="item", title=f"Only {label}")
