"""The bar at the top: everything in it is a link, or changes the URL."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from otel_openai_usage.dashboard.queries import Report
from otel_openai_usage.dashboard.view import COSTS, DAY, FILTERS, GROUPS, PERIODS, View
from otel_openai_usage.domain.model import utc

OFFERED = 50
"""So many names are in a list at once; typing finds the others."""
_FILTER_NAMES = {
    "project": "All projects",
    "model": "All models",
    "key": "All API keys",
    "user": "All users",
    "operation": "All operations",
    "customer": "All customers",
}
"""The text of a list in which nothing is chosen."""


def periods(report: Report) -> Any:
    """Links to the named periods."""
    view = report.view
    links = {name: (text, view.but(period=name)) for name, text in PERIODS.items()}
    return segments("Period", links, view.period)


def choices(report: Report, organizations: Sequence[str]) -> Sequence[Any]:
    """Organization, grouping and kind of cost, each if there is a choice."""
    organization = _organization(report, organizations)
    return [*organization, _grouping(report), *_basis(report)]


def _organization(report: Report, organizations: Sequence[str]) -> Sequence[Any]:
    """Links to the organizations, if there are several."""
    if len(organizations) < 2:
        return []
    # Another organization does not have the values that are filtered by.
    unfiltered = _without_filters(report.view)
    links: dict[str, tuple[str, View]] = {}
    for name in organizations:
        links[name] = (name, unfiltered.but(organization=name))
    return [segments("Organization", links, report.data.organization)]


def _grouping(report: Report) -> Any:
    """Links to the dimensions that the data knows."""
    view = report.view
    links: dict[str, tuple[str, View]] = {}
    for name, text in GROUPS.items():
        if _is_known(report, name):
            links[name] = (text, view.but(by=name))
    return segments("Group by", links, view.by)


def _is_known(report: Report, dimension: str) -> bool:
    """Whether any data has the dimension."""
    if dimension == "customer":
        return "requests" in report.data.metered.amounts
    if dimension == "model" or not report.data.only_metered:
        return True
    # Events have a customer and a model: the other dimensions can only come from the bill.
    return report.data.bills(dimension)


def _basis(report: Report) -> Sequence[Any]:
    """Links to the bill and the estimate, if there are both."""
    if not (report.billable and report.estimated):
        return []
    view = report.view
    links = {name: (text, view.but(cost=name)) for name, text in COSTS.items()}
    return [segments("Cost", links, report.basis)]


def segments(label: str, choices: Mapping[str, tuple[str, View]], chosen: str) -> Any:
    """Links side by side; one of them is chosen."""
    links: list[Any] = []
    for name, (text, view) in choices.items():
        class_name = "segment chosen" if name == chosen else "segment"
        links.append(dcc.Link(text, href=href(view), className=class_name))
    aria_label = attribute("aria-label", label)
    return html.Div(className="segments", role="group", **aria_label, children=links)


def attribute(name: str, value: str) -> dict[str, Any]:
    """An attribute of HTML whose name is no Python name, as a keyword argument."""
    return {name: value}


def number_cell(text: str, exact: object, class_name: str = "") -> Any:
    """A cell of a table whose exact number stands in an attribute, for scripts and tests."""
    data = attribute("data-value", str(exact))
    if class_name:
        data["className"] = class_name
    return html.Td(text, **data)


def only(report: Report, dimension: str, value: str) -> str:
    """The URL of the view of one value of a dimension alone."""
    chosen: dict[str, tuple[str, ...]] = {dimension: (value,)}
    return href(report.view.but(**chosen))


def href(view: View) -> str:
    """The URL of a view, relative to this page: a proxy may have put it below a prefix."""
    return "./" + view.query


def dates(report: Report) -> Any:
    """The picker of the first and the last day."""
    first = utc(report.asked.start).date()
    last = utc(report.asked.end - DAY).date()
    stored_first = first
    if report.data.first is not None:
        stored_first = utc(report.data.first).date()
    earliest = min(stored_first, first)
    today = utc(report.today).date()
    return dcc.DatePickerRange(
        id={"control": "dates"},
        start_date=f"{first}",
        end_date=f"{last}",
        min_date_allowed=f"{earliest}",
        max_date_allowed=f"{today}",
        display_format="D MMM YYYY",
        # One day is a period, too.
        minimum_nights=0,
        first_day_of_week=1,
        # Else the first of two chosen dates would already change the page.
        updatemode="bothdates",
        className="dates",
    )


def offered(
    report: Report, dimension: str, typed: str = "", chosen: Sequence[str] = ()
) -> Sequence[Any]:
    """The options of a list: the chosen values, the first whose name has the typed text, and how
    many more there are.

    A browser that is sent thousands spends more time on indexing them than on everything else.
    """
    wanted = typed.casefold()
    options = report.data.options[dimension]
    found = [value for value, label in options if wanted in label.casefold()]
    filtered = getattr(report.view, dimension)
    first = found[:OFFERED]
    shown: list[Any] = []
    for value in dict.fromkeys((*chosen, *filtered, *first)):
        label = report.data.label(dimension, value)
        shown.append({"value": value, "label": label})
    more = len(found) - OFFERED
    if more > 0:
        text = f"{more:,} more: type a part of the name"
        shown.append({"value": "", "label": text, "disabled": True})
    return shown


def filters(report: Report) -> Sequence[Any]:
    """A list for each dimension that has more than one value, or is filtered by."""
    lists: list[Any] = []
    for dimension in FILTERS:
        options = report.data.options[dimension]
        is_filtered = bool(getattr(report.view, dimension))
        if is_filtered or len(options) > 1:
            lists.append(_list(report, dimension))
    if report.view.filters:
        unfiltered = _without_filters(report.view)
        lists.append(dcc.Link("Clear filters", href=href(unfiltered), className="clear"))
    return lists


def _list(report: Report, dimension: str) -> Any:
    """The list of a dimension."""
    chosen = list(getattr(report.view, dimension))
    return dcc.Dropdown(
        id={"filter": dimension},
        options=offered(report, dimension),
        value=chosen,
        multi=True,
        placeholder=_FILTER_NAMES[dimension],
        className="filter",
    )


def _without_filters(view: View) -> View:
    """The view of everything."""
    nothing: dict[str, tuple[str, ...]] = dict.fromkeys(FILTERS, ())
    return view.but(**nothing)
