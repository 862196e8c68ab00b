"""The cards about entries: what changed most, and the table."""

from collections.abc import Sequence
from typing import Any

from dash import dcc, html

from otel_openai_usage.dashboard import cards, units
from otel_openai_usage.dashboard.controls import attribute, href
from otel_openai_usage.dashboard.queries import Entry, Report
from otel_openai_usage.dashboard.view import GROUPS

ROWS = 15
"""So many rows of the table are shown at first."""
_LEAST_CHANGE = 0.005
"""Half a cent: a smaller change is none."""
_TITLES = {
    "name": "",
    "cost": "Cost",
    "change": "Change",
    "estimated": "Estimated",
    "requests": "Requests",
    "input": "Input tokens",
    "cached": "Cached",
    "output": "Output tokens",
}


def movers(report: Report) -> Any:
    """The entries whose cost changed most."""
    title = "Top movers"
    size = "half" if report.billed_and_estimated is not None else "full"
    if report.compared is None:
        text = "No earlier period to compare with yet."
        return cards.nothing(title, text, size=size, name="movers")
    after, before = report.compared
    note = f"{after.text}, against {before.text}."
    if not report.movers:
        return cards.nothing(title, "Nothing changed.", size=size, note=note, name="movers")
    most = max(abs(entry.change or 0.0) for entry in report.movers)
    items = [_mover(report, entry, most) for entry in report.movers]
    list_ = html.Ul(className="movers", children=items)
    return cards.card(title, [list_], size=size, note=note, name="movers")


def _mover(report: Report, entry: Entry, most: float) -> Any:
    """An entry with a bar to the left or the right, half as wide as its track for the `most`."""
    change = entry.change or 0.0
    direction = "rise" if change > 0 else "fall"
    width = f"{abs(change) / most * 50:.1f}%"
    bar = html.Span(className=direction, style={"width": width})
    return html.Li(
        [
            html.Span(entry.label, className="name", title=entry.label),
            html.Span(className="track", children=bar),
            html.Span(units.change(change, report.data.currency), className="amount"),
            html.Span(_growth(entry, change), className="share"),
        ]
    )


def _growth(entry: Entry, change: float) -> str:
    if not entry.before:
        return "new"
    if not entry.after:
        return "gone"
    return units.percent(change / entry.before, signed=True)


def table(report: Report) -> Any:
    """The table of all entries, the first of them, or all."""
    columns = [name for name in _TITLES if _has_column(report, name)]
    entries = report.entries
    if report.view.rows != "all":
        entries = entries[:ROWS]
    head = html.Tr([_head_cell(report, name) for name in columns])
    body: list[Any] = []
    for entry in entries:
        cells = [_cell(report, entry, name) for name in columns]
        body.append(html.Tr(cells))
    inside: list[Any] = [html.Table([html.Thead(head), html.Tbody(body)])]
    if not body:
        inside.append(html.P("Nothing was used in this period.", className="nothing"))
    scroll = html.Div(inside, className="scroll")
    children = [_header(report), scroll, *_more(report)]
    return html.Section(className="card full", id="table", children=children)


def _header(report: Report) -> Any:
    title = html.H2(f"By {cards.grouping(report)}")
    period = html.P(report.asked.text, className="note")
    address = "./table.csv" + report.view.query
    csv = html.A("Download CSV", href=address, className="button", id="csv")
    return html.Header([html.Div([title, period]), csv], className="split")


def _more(report: Report) -> Sequence[Any]:
    """A link to all rows, or back to the first."""
    count = len(report.entries)
    if count <= ROWS:
        return []
    text = f"Show all {count}"
    view = report.view.but(rows="all")
    if report.view.rows == "all":
        text = f"Show the first {ROWS}"
        view = report.view.but(rows="")
    return [dcc.Link(text, href=href(view), className="more")]


def _has_column(report: Report, name: str) -> bool:
    if name == "cost":
        return report.priced
    if name == "change":
        return report.priced and report.compared is not None
    if name == "estimated":
        return report.estimated and report.basis == "billed"
    return True


def _head_cell(report: Report, name: str) -> Any:
    """The title of a column: a click sorts by it, a second click the other way round."""
    is_descending = report.sort.startswith("-")
    is_sorted = report.sort.removeprefix("-") == name
    # Names are sorted from A on at first, numbers from the highest on.
    ascending_next = is_descending if is_sorted else name == "name"
    sort = name if ascending_next else f"-{name}"
    arrow = ""
    state = "none"
    if is_sorted:
        arrow = " ↓" if is_descending else " ↑"
        state = "descending" if is_descending else "ascending"
    title = _TITLES[name] or GROUPS[report.view.by]
    link = dcc.Link(title + arrow, href=href(report.view.but(sort=sort)))
    class_name = "name" if name == "name" else ""
    return html.Th(link, className=class_name, **attribute("aria-sort", state))


def _cell(report: Report, entry: Entry, name: str) -> Any:
    if name == "name":
        return _name_cell(report, entry)
    currency = report.data.currency
    value = getattr(entry, name)
    if name in {"cost", "estimated"}:
        text = units.exact(value, currency)
        return html.Td(text, **attribute("data-value", _six_digits(value)))
    if name == "change":
        return _change_cell(value, currency)
    text = f"{value:,}" if value else units.NONE
    return html.Td(text, **attribute("data-value", str(value)))


def _name_cell(report: Report, entry: Entry) -> Any:
    """The name of an entry, with a link to its view alone."""
    label: Any = entry.label
    if entry.id is not None:
        view = report.view.but(**{report.view.by: (entry.id,)})
        label = dcc.Link(label, href=href(view))
    return html.Td(label, className="name", title=entry.id or "")


def _change_cell(value: float | None, currency: str) -> Any:
    text = units.NONE
    tone = ""
    if value is not None and abs(value) >= _LEAST_CHANGE:
        text = units.change(value, currency)
        tone = "worse" if value > 0 else "better"
    return html.Td(text, className=tone, **attribute("data-value", _six_digits(value)))


def _six_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
