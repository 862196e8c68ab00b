"""What the page of a query string contains: the bar at the top, and everything below it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import flask
from dash import dcc, html

from otel_openai_usage.dashboard import controls, pages
from otel_openai_usage.dashboard.components import Plain
from otel_openai_usage.dashboard.queries import Report
from otel_openai_usage.dashboard.store_watcher import StoreWatcher
from otel_openai_usage.dashboard.view import View

_TICK = 15_000
"""Milliseconds between two questions whether the store was read again."""


@dataclass(frozen=True)
class Content:
    """The parts of a page. Without a report there is only a body."""

    body: Any
    periods: Any = None
    choices: Any = None
    dates: Any = None
    filters: Any = None


def report(watcher: StoreWatcher, search: str | None) -> Report | None:
    """The report that a query string asks for; None if there is no data for it."""
    view = View.parse(search)
    stored = watcher.loaded().data
    first = next(iter(stored), "")
    organization = view.organization or first
    data = stored.get(organization)
    if data is None or data.empty:
        return None
    return Report(data, view)


def content(watcher: StoreWatcher, search: str | None) -> Content:
    """The page of a query string."""
    found = report(watcher, search)
    if found is None:
        return Content(_empty_page(watcher, View.parse(search).organization))
    loaded = watcher.loaded()
    return Content(
        body=pages.body(found, loaded.problem),
        periods=controls.periods(found),
        choices=controls.choices(found, list(loaded.data)),
        dates=controls.dates(found),
        filters=controls.filters(found),
    )


def _empty_page(watcher: StoreWatcher, organization: str) -> Any:
    """Why there is nothing to show, and what to do."""
    loaded = watcher.loaded()
    if loaded.problem:
        return pages.empty("Nothing to show yet", [html.P(loaded.problem)])
    if loaded.data and organization and organization not in loaded.data:
        links = _organization_links(loaded.data)
        text = html.P(["There are: ", *links])
        return pages.empty(f"No organization {organization!r}", [text])
    if not loaded.version:
        text = html.P("A large one takes some seconds the first time.")
        return pages.empty("Reading the store …", [text])
    sentence = "The store is there, but nothing has been used since counting began. "
    command = html.Code("otel-openai-usage backfill")
    text = html.P([sentence, command, " reads earlier days."])
    return pages.empty("Nothing was used yet", [text])


def _organization_links(names: Iterable[str]) -> list[Any]:
    links: list[Any] = []
    for name in names:
        url = controls.href(View(organization=name))
        links.append(html.A(name, href=url, className="item"))
    return links


def layout(watcher: StoreWatcher) -> Any:
    """The page as it is first sent, with the content for the query of its address."""
    search, is_known = _asking_query()
    version = watcher.loaded().version
    made = content(watcher, search)
    # Without a referrer nobody knows the query: the first callback sends the content again.
    seen = [version, search] if is_known else None
    location = dcc.Location(id="url", refresh="callback-nav")
    interval = dcc.Interval(id="tick", interval=_TICK)
    store = dcc.Store(id="seen", data=seen)
    page = Plain(id="page", tree=made.body)
    children = [location, interval, store, _header(), _bar(made), page]
    return html.Div(id="root", children=children)


def _asking_query() -> tuple[str, bool]:
    """The query string of the page that asks for its layout, and whether that is known."""
    referrer = flask.request.referrer if flask.has_request_context() else None
    page = urlsplit(referrer or "")
    search = f"?{page.query}" if page.query else ""
    return search, bool(page.netloc)


def _header() -> Any:
    """The title of the dashboard, and the button for light and dark."""
    title = html.H1("OpenAI usage and cost")
    help_text = "Light, dark, or as your system has it"
    theme = html.Button("Theme", id="theme", title=help_text)
    return html.Header(className="title", children=[title, theme])


def _bar(made: Content) -> Any:
    """The controls, in two rows."""
    periods = Plain(id="periods", tree=made.periods)
    dates = html.Div(id="dates", children=made.dates)
    space = html.Span(className="spring")
    choices = Plain(id="choices", className="row", tree=made.choices)
    first_row = html.Div(className="row", children=[periods, dates, space, choices])
    filters = html.Div(id="filters", className="row", children=made.filters)
    return html.Nav(className="bar", children=[first_row, filters])
