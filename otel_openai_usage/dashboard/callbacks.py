"""The callbacks of the browser: show a view, follow the controls, offer names in a list."""

from collections.abc import Mapping, Sequence
from typing import Any

import dash
from dash import ALL, MATCH, Input, Output, State, ctx

from otel_openai_usage.dashboard import controls
from otel_openai_usage.dashboard.content import content, report
from otel_openai_usage.dashboard.store_watcher import StoreWatcher
from otel_openai_usage.dashboard.view import FILTERS, View


def register(app: dash.Dash, watcher: StoreWatcher) -> None:
    """Add the callbacks to the application."""

    @app.callback(
        Output("page", "tree"),
        Output("periods", "tree"),
        Output("choices", "tree"),
        Output("dates", "children"),
        Output("filters", "children"),
        Output("seen", "data"),
        Input("url", "search"),
        Input("tick", "n_intervals"),
        State("seen", "data"),
    )
    def show(search: str | None, _: int | None, seen: Sequence[Any] | None) -> Any:
        return _show(watcher, search or "", seen)

    @app.callback(
        Output("url", "search"),
        Input({"filter": ALL}, "value"),
        Input({"control": ALL}, "start_date"),
        Input({"control": ALL}, "end_date"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def choose(_filters: Any, _starts: Any, _ends: Any, search: str | None) -> Any:
        # Dash calls this also when a new page brings new controls: then nothing changes.
        before = View.parse(search)
        after = chosen(before, watcher, ctx.inputs_list)
        return dash.no_update if after == before else after.query

    @app.callback(
        Output({"filter": MATCH}, "options"),
        Input({"filter": MATCH}, "search_value"),
        State({"filter": MATCH}, "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def offer(typed: str | None, values: Sequence[str] | None, search: str | None) -> Any:
        found = report(watcher, search)
        name = ctx.triggered_id["filter"]
        if found is None or name not in FILTERS:
            return dash.no_update
        return controls.offered(found, name, typed or "", values or ())


def _show(watcher: StoreWatcher, search: str, seen: Sequence[Any] | None) -> Any:
    """The parts of the page that changed since `seen`: the version of the data, and the query."""
    version = watcher.loaded().version
    wanted = [version, search]
    if seen == wanted:
        # The layout brought it, or nothing is new since the last tick.
        return (dash.no_update,) * 6
    made = content(watcher, search)
    dates: Any = made.dates
    filters: Any = made.filters
    # Widgets are slow to draw: do not send them again unless they changed.
    if seen is not None and seen[0] == version:
        before = View.parse(seen[1])
        after = View.parse(search)
        if _of_dates(before) == _of_dates(after):
            dates = dash.no_update
        if _of_filters(before) == _of_filters(after):
            filters = dash.no_update
    return made.body, made.periods, made.choices, dates, filters, wanted


def _of_dates(view: View) -> tuple[str, str]:
    """The part of a view that the date picker depends on."""
    return view.organization, view.period


def _of_filters(view: View) -> tuple[Any, ...]:
    """The part of a view that the lists of filters depend on."""
    return view.organization, view.filters, view.query if view.filters else ""


def chosen(view: View, watcher: StoreWatcher, inputs: Sequence[Any]) -> View:
    """The view with the values of the controls: lists of filters, start dates and end dates."""
    filters, starts, ends = inputs
    after = view.but(**_chosen_values(filters))
    span = view.span(watcher.now())
    for start, end in zip(starts, ends, strict=False):
        period = f"{_day(start)}..{_day(end)}"
        asked = View.parse(f"?period={period}")
        is_valid = asked.period == period
        # The picker shows the days of a named period, too: that is no choice.
        if is_valid and asked.span(watcher.now()) != span:
            after = after.but(period=period)
    return after


def _chosen_values(filters: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """The values chosen in each list."""
    values: dict[str, tuple[str, ...]] = {}
    for each in filters:
        name = each["id"].get("filter")
        if name in FILTERS:
            values[name] = tuple(filter(None, each.get("value") or ()))
    return values


def _day(control: Mapping[str, Any]) -> str:
    """The day of a date picker, without the time that it may add."""
    return str(control.get("value"))[:10]
