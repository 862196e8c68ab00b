"""The dashboard as a web server: a Dash application whose every view is a URL. Speaks to nobody but
the browser.
"""

import io
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import dash
import flask
from dash import ALL, MATCH, Input, Output, State, ctx, dcc, html
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from otel_openai_usage import stopping
from otel_openai_usage.dashboard import controls, pages
from otel_openai_usage.dashboard.components import Plain
from otel_openai_usage.dashboard.library import Library
from otel_openai_usage.dashboard.queries import Report
from otel_openai_usage.dashboard.table import render
from otel_openai_usage.dashboard.view import FILTERS, View
from otel_openai_usage.errors import ListenError

PORT = 8050
"""Where it listens unless told otherwise."""

_POLICY = (
    "default-src 'self'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self';"
    " frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
"""Scripts are files of ours, and the few lines by which Dash starts; nothing may come from, or go
to, anywhere else.
"""
_IDLE = re.compile(r"<script src=\"[^\"]*/(?:polyfill@|dash_table/)[^\"]*\"></script>")
"""What Dash sends for browsers of 2016, and for tables that we do not have: a tenth of a second at
the first visit.
"""
_SOON = (
    '<link rel="preload" as="script" href="/_dash-component-suites/dash/dcc/async-dropdown.js">'
    '<link rel="preload" as="script" href="/_dash-component-suites/dash/dcc/async-datepicker.js">'
)
"""What Dash asks for only when all its scripts have run."""


class _Dash(dash.Dash):
    def interpolate_index(self, *_: Any, **parts: Any) -> Any:
        """The page around the application: what is needed as early as it can be, what is not needed
        not at all.
        """
        parts |= {"scripts": _IDLE.sub("", parts["scripts"]), "metas": parts["metas"] + _SOON}
        return super().interpolate_index(**parts)  # type: ignore[no-untyped-call]


def application(library: Library) -> dash.Dash:
    """The dashboard over a library."""
    app = _Dash(
        "otel_openai_usage.dashboard",
        title="OpenAI usage and cost",
        update_title="",
        suppress_callback_exceptions=True,
        assets_folder=str(Path(__file__).parent / "assets"),
        compress=False,
    )
    app.layout = lambda: _layout(library)
    _callbacks(app, library)
    _routes(app.server, library, _POLICY.format(scripts=" ".join(app.csp_hashes())))
    return app


def _layout(library: Library) -> Any:
    """The page as it is first sent: with its content, for the query of the page that asks for it."""
    asked = urlsplit(flask.request.referrer or "") if flask.has_request_context() else None
    search = f"?{asked.query}" if asked and asked.query else ""
    number = library.shelf().number
    made = content(library, search)
    return html.Div(
        id="root",
        children=[
            dcc.Location(id="url", refresh="callback-nav"),
            dcc.Interval(id="tick", interval=15_000),
            dcc.Store(id="seen", data=[number, search] if asked and asked.netloc else None),
            html.Header(
                className="title",
                children=[
                    html.H1("OpenAI usage and cost"),
                    html.Button("Theme", id="theme", title="Light, dark, or as your system has it"),
                ],
            ),
            html.Nav(
                className="bar",
                children=[
                    html.Div(
                        className="row",
                        children=[
                            Plain(id="periods", tree=made.periods),
                            html.Div(id="dates", children=made.dates),
                            html.Span(className="spring"),
                            Plain(id="choices", className="row", tree=made.choices),
                        ],
                    ),
                    html.Div(id="filters", className="row", children=made.filters),
                ],
            ),
            Plain(id="page", tree=made.body),
        ],
    )


def _callbacks(app: dash.Dash, library: Library) -> None:
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
        wanted = [library.shelf().number, search or ""]
        if seen == wanted:  # what the layout brought, or nothing new since the last tick
            return (dash.no_update,) * 6
        made = content(library, search)
        before = View.parse(seen[1]) if seen is not None and seen[0] == wanted[0] else None
        dates, filters = (
            dash.no_update
            if before is not None and part(before) == part(View.parse(search))
            else sent
            for part, sent in (
                (_dates, made.dates),
                (_lists, made.filters),
            )  # widgets are slow: not again when they say the same
        )
        return made.body, made.periods, made.choices, dates, filters, wanted

    @app.callback(
        Output("url", "search"),
        Input({"filter": ALL}, "value"),
        Input({"control": ALL}, "start_date"),
        Input({"control": ALL}, "end_date"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def choose(
        _filters: Sequence[Any], _starts: Sequence[Any], _ends: Sequence[Any], search: str | None
    ) -> Any:
        before = View.parse(search)
        after = chosen(before, library, ctx.inputs_list)
        return dash.no_update if after == before else after.query

    @app.callback(
        Output({"filter": MATCH}, "options"),
        Input({"filter": MATCH}, "search_value"),
        State({"filter": MATCH}, "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def offer(typed: str | None, values: Sequence[str] | None, search: str | None) -> Any:
        made = report(library, search)
        name = ctx.triggered_id["filter"]
        return (
            dash.no_update
            if made is None or name not in FILTERS
            else controls.offered(made, name, typed or "", values or ())
        )


def chosen(view: View, library: Library, inputs: Sequence[Any]) -> View:
    """The view once what stands in the controls is taken over."""
    filters, starts, ends = inputs
    wanted = {
        each["id"]["filter"]: tuple(filter(None, each.get("value") or ()))
        for each in filters
        if each["id"].get("filter") in FILTERS
    }
    after = view.but(**wanted)
    span = view.span(library.now())
    for start, end in zip(starts, ends, strict=False):
        period = f"{str(start.get('value'))[:10]}..{str(end.get('value'))[:10]}"
        asked = View.parse(f"?period={period}")
        if asked.period == period and asked.span(library.now()) != span:
            after = after.but(period=period)
    return after


def report(library: Library, search: str | None) -> Report | None:
    """What a query string asks for; None while there is nothing."""
    view = View.parse(search)
    shelf = library.shelf()
    data = (
        shelf.data.get(view.organization)
        if view.organization
        else next(iter(shelf.data.values()), None)
    )
    return None if data is None or data.empty else Report(data, view)


@dataclass(frozen=True)
class Content:
    """A page: what stands in its bar, and all below."""

    body: Any
    periods: Any = None
    choices: Any = None
    dates: Any = None
    filters: Any = None


def content(library: Library, search: str | None) -> Content:
    """The page of a query string."""
    shelf = library.shelf()
    made = report(library, search)
    if made is not None:
        bar = (
            controls.periods(made),
            controls.choices(made, list(shelf.data)),
            controls.dates(made),
            controls.filters(made),
        )
        return Content(pages.body(made, shelf.trouble), *bar)
    if shelf.trouble:
        return Content(pages.empty("Nothing to show yet", [html.P(shelf.trouble)]))
    wanted = View.parse(search).organization
    if shelf.data and wanted and wanted not in shelf.data:
        return Content(
            pages.empty(
                f"No organization {wanted!r}",
                [html.P(["There are: ", *_organizations(shelf.data)])],
            )
        )
    if not shelf.number:
        return Content(
            pages.empty(
                "Reading the store …", [html.P("A large one takes some seconds the first time.")]
            )
        )
    text = "The store is there, but nothing has been used since counting began. "
    return Content(
        pages.empty(
            "Nothing was used yet",
            [html.P([text, html.Code("otel-openai-usage backfill"), " reads earlier days."])],
        )
    )


def _organizations(names: Iterable[str]) -> list[Any]:
    return [
        html.A(name, href="/" + View.parse("").but(organization=name).query, className="item")
        for name in names
    ]


def _dates(view: View) -> tuple[str, str]:
    """What of a view the days to choose depend on."""
    return view.organization, view.period


def _lists(view: View) -> tuple[Any, ...]:
    """What of a view the lists depend on."""
    return view.organization, view.filters, view.query if view.filters else ""


def _routes(server: flask.Flask, library: Library, policy: str) -> None:
    @server.get("/table.csv")
    def table() -> flask.Response:
        made = report(library, flask.request.query_string.decode())
        if made is None:
            return flask.Response(
                "There is nothing of that to show.\n", status=404, mimetype="text/plain"
            )
        span = re.sub(r"[^0-9A-Za-z]+", "-", made.asked.text.replace("–", "to"))
        headers = {
            "Content-Disposition": f'attachment; filename="openai-by-{made.view.by}-{span}.csv"'
        }
        return flask.Response(render(made), mimetype="text/csv", headers=headers)

    @server.after_request
    def guard(response: flask.Response) -> flask.Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        return response


class _Quiet(WSGIRequestHandler):
    """Keeps single requests out of the log; errors are told there."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""


class Server:
    """Listens from the start on; raises ListenError. `close` stops it."""

    def __init__(self, path: Path, *, host: str, port: int, library: Library | None = None) -> None:
        self.library = library or Library(path)
        app = application(self.library)
        _only_for(app.server, host)
        try:
            with redirect_stderr(
                io.StringIO()
            ):  # werkzeug says in words of its own what is raised below
                self._server: BaseWSGIServer = make_server(
                    host, port, app.server, threaded=True, request_handler=_Quiet
                )
        except (OSError, SystemExit) as error:  # werkzeug exits where others raise
            reason = getattr(error, "strerror", None) or "it is in use, or not of this machine"
            raise ListenError(
                f"listened on {host}:{port} for the dashboard: {reason}; choose another with --port"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_port}"
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self.library.watch, self._server.serve_forever)
        ]

    def start(self) -> None:
        """Serve, in threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop serving."""
        self.library.close()
        self._server.shutdown()
        self._server.server_close()


def _only_for(server: flask.Flask, host: str) -> None:
    """On loopback answer only to loopback's names: another site's page cannot reach us by a name
    that it points here.
    """
    known = {"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host}

    def check() -> flask.Response | None:
        asked = re.sub(r":\d+$", "", flask.request.host)
        if asked in known:
            return None
        return flask.Response(
            "This dashboard answers to localhost only.\n", status=403, mimetype="text/plain"
        )

    if known <= {"localhost", "127.0.0.1", "[::1]"}:
        server.before_request(check)


def serve(
    path: Path,
    *,
    host: str,
    port: int,
    ready: Callable[[str], None],
    until: threading.Event | None = None,
) -> None:
    """Serve the dashboard of the store at `path` until the event is set; without one until SIGTERM,
    SIGINT or SIGHUP. Raises ListenError.
    """
    server = Server(path, host=host, port=port)
    server.start()
    try:
        if until is not None:
            ready(server.url)
            until.wait()
            return
        # A queue, because an Event must not be set in a signal handler.
        stop: SimpleQueue[None] = SimpleQueue()
        with stopping.calling(lambda: stop.put(None)):
            ready(server.url)
            stop.get()
    finally:
        server.close()
