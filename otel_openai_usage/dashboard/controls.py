"""The bar at the top: everything in it is a link, or ends in one."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from otel_openai_usage.dashboard.queries import Report
from otel_openai_usage.dashboard.view import COSTS, DAY, FILTERS, GROUPS, PERIODS, View
from otel_openai_usage.domain.model import utc

OFFERED = 50
"""So many names stand in a list at once; typing finds the others."""
_FILTER_NAMES = {  # as a list says it, nothing chosen
    "project": "All projects",
    "model": "All models",
    "key": "All API keys",
    "user": "All users",
    "operation": "All operations",
    "customer": "All customers",
}


def periods(report: Report) -> Any:
    """How long it is about."""
    return segments(
        "Period",
        {name: (text, report.view.but(period=name)) for name, text in PERIODS.items()},
        report.view.period,
    )


def choices(report: Report, organizations: Sequence[str]) -> Sequence[Any]:
    """Organization, grouping and kind of cost."""
    view = report.view
    return [
        *_organization(view, report.data.organization, organizations),
        segments(
            "Group by",
            {
                name: (text, view.but(by=name))
                for name, text in GROUPS.items()
                if _known(report, name)
            },
            view.by,
        ),
        *_basis(report),
    ]


def _known(report: Report, by: str) -> bool:
    """Customers are there where somebody meters; where nothing else tells of use, the others are
    where the bill knows them.
    """
    return (
        bool(report.data.metered.amounts)
        if by == "customer"
        else by == "model" or not report.data.only_metered or report.data.bills(by)
    )


def segments(label: str, choices: Mapping[str, tuple[str, View]], chosen: str) -> Any:
    """Links of which one is chosen."""
    return html.Div(
        className="segments",
        role="group",
        **attribute("aria-label", label),
        children=[
            dcc.Link(
                text, href=href(view), className="segment chosen" if name == chosen else "segment"
            )
            for name, (text, view) in choices.items()
        ],
    )


def attribute(name: str, value: str) -> dict[str, Any]:
    """An attribute of HTML that no Python name can have."""
    return {name: value}


def href(view: View) -> str:
    """The URL of a view, relative to this page: a proxy may have put it below a prefix."""
    return "./" + view.query


def dates(report: Report) -> Any:
    """From which day to which."""
    first = utc(report.asked.start).date()
    last = utc(report.asked.end - DAY).date()
    known = utc(report.data.first).date() if report.data.first is not None else first
    return dcc.DatePickerRange(
        id={"control": "dates"},
        start_date=first.isoformat(),
        end_date=last.isoformat(),
        min_date_allowed=min(known, first).isoformat(),
        max_date_allowed=utc(report.today).date().isoformat(),
        display_format="D MMM YYYY",
        minimum_nights=0,
        first_day_of_week=1,
        updatemode="bothdates",
        className="dates",
    )


def _basis(report: Report) -> Sequence[Any]:
    if not (report.billable and report.estimated):
        return []
    return [
        segments(
            "Cost",
            {name: (text, report.view.but(cost=name)) for name, text in COSTS.items()},
            report.basis,
        )
    ]


def _organization(view: View, shown: str, organizations: Sequence[str]) -> Sequence[Any]:
    if len(organizations) < 2:
        return []
    nothing: dict[str, tuple[str, ...]] = dict.fromkeys(FILTERS, ())
    return [
        segments(
            "Organization",
            {name: (name, view.but(**nothing).but(organization=name)) for name in organizations},
            shown,
        )
    ]


def offered(
    report: Report, name: str, typed: str = "", chosen: Sequence[str] = ()
) -> Sequence[Any]:
    """What a list offers: what is chosen, the first of what has the typed text in its name, and how
    many more there are.

    A browser that is sent thousands spends more time on indexing them than on everything else.
    """
    known = report.data.options[name]
    wanted = typed.casefold()
    found = [value for value, label in known if wanted in label.casefold()]
    shown = list(dict.fromkeys((*chosen, *getattr(report.view, name), *found[:OFFERED])))
    options = [{"value": value, "label": report.data.label(name, value)} for value in shown]
    more = len(found) - OFFERED
    return (
        options
        if more <= 0
        else [
            *options,
            {"value": "", "label": f"{more:,} more: type a part of the name", "disabled": True},
        ]
    )


def filters(report: Report) -> Sequence[Any]:
    """Lists to choose from, one for each dimension that has more than one value."""
    made = [
        _list(report, name)
        for name in FILTERS
        if len(report.data.options[name]) > 1 or getattr(report.view, name)
    ]
    if report.view.filters:
        made.append(
            dcc.Link(
                "Clear filters",
                href=href(report.view.but(**dict.fromkeys(FILTERS, ()))),
                className="clear",
            )
        )
    return made


def _list(report: Report, name: str) -> Any:
    return dcc.Dropdown(
        id={"filter": name},
        options=offered(report, name),
        value=list(getattr(report.view, name)),
        multi=True,
        placeholder=_FILTER_NAMES[name],
        className="filter",
    )
