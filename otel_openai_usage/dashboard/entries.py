"""The cards about entries: what changed most, and the table."""

from collections.abc import Sequence
from typing import Any

from dash import dcc, html

from otel_openai_usage.dashboard import cards, units
from otel_openai_usage.dashboard.controls import attribute, href, number_cell, only
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
    # Movers are sorted by the size of their change.
    most = abs(report.movers[0].change or 0.0)
    items = [_mover(report, entry, most) for entry in report.movers]
    list_ = html.Ul(className="movers", children=items)
    return cards.card(title, [list_], size=size, note=note, name="movers")


def _mover(report: Report, entry: Entry, most: float) -> Any:
    """An entry with a bar to the left or the right, half as wide as its track for the `most`."""
    change = entry.change or 0.0
    direction = "rise" if change > 0 else "fall"
    width = f"{abs(change) / most * 50:.1f}%"
    bar = html.Span(className=direction, style={"width": width})
    amount = units.change(change, report.data.currency)
    parts = [
        html.Span(entry.label, className="name", title=entry.label),
        html.Span(className="track", children=bar),
        html.Span(amount, className="amount"),
        html.Span(_growth(entry, change), className="share"),
    ]
    return html.Li(parts)


def _growth(entry: Entry, change: float) -> str:
    """The change as a share of the cost before."""
    if not entry.before:
        return "new"
    if not entry.after:
        return "gone"
    share = change / entry.before
    return units.percent(share, signed=True)


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
    rows = html.Table([html.Thead(head), html.Tbody(body)])
    inside: list[Any] = [rows]
    if not body:
        inside.append(html.P("Nothing was used in this period.", className="nothing"))
    scroll = html.Div(inside, className="scroll")
    children = [_header(report), scroll, *_more(report)]
    return html.Section(className="card full", id="table", children=children)


def _header(report: Report) -> Any:
    """The title, the period, and a link to the table as CSV."""
    title = html.H2(f"By {cards.grouping(report)}")
    period = html.P(report.asked.text, className="note")
    address = "./table.csv" + report.view.query
    csv = html.A("Download CSV", href=address, className="button", id="csv")
    left = html.Div([title, period])
    return html.Header([left, csv], className="split")


def _more(report: Report) -> Sequence[Any]:
    """A link to all rows, or back to the first."""
    count = len(report.entries)
    if count <= ROWS:
        return []
    if report.view.rows == "all":
        text = f"Show the first {ROWS}"
        rows = ""
    else:
        text = f"Show all {count}"
        rows = "all"
    url = href(report.view.but(rows=rows))
    return [dcc.Link(text, href=url, className="more")]


def _has_column(report: Report, name: str) -> bool:
    """Whether anything is known for a column."""
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
    url = href(report.view.but(sort=sort))
    link = dcc.Link(title + arrow, href=url)
    class_name = "name" if name == "name" else ""
    return html.Th(link, className=class_name, **attribute("aria-sort", state))


def _cell(report: Report, entry: Entry, name: str) -> Any:
    """A cell of the column `name`, which is also the name of an attribute of the entry."""
    if name == "name":
        return _name_cell(report, entry)
    currency = report.data.currency
    value = getattr(entry, name)
    if name in {"cost", "estimated"}:
        return number_cell(units.exact(value, currency), _six_digits(value))
    if name == "change":
        return _change_cell(value, currency)
    return number_cell(f"{value:,}" if value else units.NONE, value)


def _name_cell(report: Report, entry: Entry) -> Any:
    """The name of an entry, with a link to its view alone."""
    label: Any = entry.label
    if entry.id is not None:
        url = only(report, report.view.by, entry.id)
        label = dcc.Link(label, href=url)
    return html.Td(label, className="name", title=entry.id or "")


def _change_cell(value: float | None, currency: str) -> Any:
    """Money that rose is shown as worse, money that fell as better."""
    text = units.NONE
    tone = ""
    if value is not None and abs(value) >= _LEAST_CHANGE:
        text = units.change(value, currency)
        tone = "worse" if value > 0 else "better"
    return number_cell(text, _six_digits(value), tone)


def _six_digits(value: float | None) -> str:
    """Money as a script reads it."""
    return "" if value is None else f"{value:.6f}"
