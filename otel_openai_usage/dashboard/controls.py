"""The bar at the top: everything in it is a link, or ends in one."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from otel_openai_usage.core.model import utc
from otel_openai_usage.dashboard.queries import Report
from otel_openai_usage.dashboard.view import COSTS, DAY, FILTERS, GROUPS, PERIODS, View

_FILTER_NAMES = {  # as a list says it, nothing chosen
    "project": "All projects", "model": "All models", "key": "All API keys", "user": "All users", "operation": "All operations",
}


def links(report: Report, organizations: Sequence[str]) -> Sequence[Any]:
    """Period, grouping and organization of a report's view."""
    view = report.view
    return [
        segments("Period", {name: (text, view.but(period=name)) for name, text in PERIODS.items()}, view.period),
        _dates(report),
        html.Span(className="spring"),
        *_organization(view, report.data.organization, organizations),
        segments("Group by", {name: (text, view.but(by=name)) for name, text in GROUPS.items()}, view.by),
        *_basis(report),
    ]


def segments(label: str, choices: Mapping[str, tuple[str, View]], chosen: str) -> Any:
    """Links of which one is chosen."""
    return html.Div(
        className="segments", role="group", **attribute("aria-label", label),
        children=[
            dcc.Link(text, href=href(view), className="segment chosen" if name == chosen else "segment")
            for name, (text, view) in choices.items()
        ],
    )  # fmt: skip


def attribute(name: str, value: str) -> dict[str, Any]:
    """An attribute of HTML that no Python name can have."""
    return {name: value}


def href(view: View) -> str:
    """The URL of a view, on this page."""
    return "/" + view.query


def _dates(report: Report) -> Any:
    first, last = utc(report.asked.start).date(), utc(report.asked.end - DAY).date()
    known = utc(report.data.first).date() if report.data.first is not None else first
    return dcc.DatePickerRange(
        id={"control": "dates"}, start_date=first.isoformat(), end_date=last.isoformat(), min_date_allowed=min(known, first).isoformat(),
        max_date_allowed=utc(report.today).date().isoformat(), display_format="D MMM YYYY", minimum_nights=0, first_day_of_week=1,
        updatemode="bothdates", className="dates",
    )  # fmt: skip


def _basis(report: Report) -> Sequence[Any]:
    if not (report.billable and report.data.estimated):
        return []
    return [segments("Cost", {name: (text, report.view.but(cost=name)) for name, text in COSTS.items()}, report.basis)]


def _organization(view: View, shown: str, organizations: Sequence[str]) -> Sequence[Any]:
    if len(organizations) < 2:
        return []
    nothing: dict[str, tuple[str, ...]] = dict.fromkeys(FILTERS, ())
    return [segments("Organization", {name: (name, view.but(**nothing).but(organization=name)) for name in organizations}, shown)]


def filters(report: Report) -> Sequence[Any]:
    """Lists to choose from, one for each dimension that has more than one value."""
    made: list[Any] = []
    for name in FILTERS:
        options = report.options(name)
        if len(options) > 1 or getattr(report.view, name):
            made.append(
                dcc.Dropdown(
                    id={"filter": name}, options=[{"value": value, "label": label} for value, label in options],
                    value=list(getattr(report.view, name)), multi=True, placeholder=_FILTER_NAMES[name], className="filter",
                )
            )  # fmt: skip
    if report.view.filters:
        made.append(dcc.Link("Clear filters", href=href(report.view.but(**dict.fromkeys(FILTERS, ()))), className="clear"))
    return made
