"""The dashboard as a web server: a Dash application whose every view is a URL. Speaks to nobody but
the browser.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import dash
import flask
from dash import ALL, MATCH, Input, Output, State, ctx, dcc, html

from otel_openai_usage import stopping
from otel_openai_usage.dashboard import controls, pages
from otel_openai_usage.dashboard.components import Plain
from otel_openai_usage.dashboard.library import Library
from otel_openai_usage.dashboard.queries import Report
from otel_openai_usage.dashboard.table import render
from otel_openai_usage.dashboard.view import FILTERS, View, problems
from otel_openai_usage.dashboard.wsgi import WsgiServer
from otel_openai_usage.errors import ListenError
from otel_openai_usage.sockets import bind, is_loopback

log = logging.getLogger(__name__)

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
    '<link rel="preload" as="script" href="./_dash-component-suites/dash/dcc/async-dropdown.js">'
    '<link rel="preload" as="script" href="./_dash-component-suites/dash/dcc/async-datepicker.js">'
)
"""What Dash asks for only when all its scripts have run."""


class _Dash(dash.Dash):
    def interpolate_index(self, *_: Any, **parts: Any) -> Any:
        """The page around the application: what is needed as early as it can be, what is not needed
        not at all.
        """
        parts |= {"scripts": _IDLE.sub("", parts["scripts"]), "metas": parts["metas"] + _SOON}
        return super().interpolate_index(**parts)  # type: ignore[no-untyped-call]


def application(library: Library, prefix: str = "/") -> dash.Dash:
    """The dashboard over a library. Browsers see it below `prefix`; a proxy may take that off, or
    leave it.
    """
    app = _Dash(
        "otel_openai_usage.dashboard",
        title="OpenAI usage and cost",
        update_title="",
        suppress_callback_exceptions=True,
        assets_folder=str(Path(__file__).parent / "assets"),
        compress=False,
        requests_pathname_prefix=prefix,
        routes_pathname_prefix="/",
    )
    app.server.wsgi_app = _below(prefix, app.server.wsgi_app)
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
        html.A(name, href=controls.href(View().but(organization=name)), className="item")
        for name in names
    ]


def _dates(view: View) -> tuple[str, str]:
    """What of a view the days to choose depend on."""
    return view.organization, view.period


def _lists(view: View) -> tuple[Any, ...]:
    """What of a view the lists depend on."""
    return view.organization, view.filters, view.query if view.filters else ""


def _routes(server: flask.Flask, library: Library, policy: str) -> None:
    @server.before_request
    def known() -> flask.Response | None:
        path = flask.request.path
        if path == "/healthz":
            return flask.Response("ok\n", mimetype="text/plain")
        if path not in ("/", "/table.csv") and not path.startswith(_DASH):
            return _refusal(
                404, f"There is no page {path!r} here.", "The dashboard is at its first page."
            )
        if path in ("/", "/table.csv") and (wrong := problems(flask.request.query_string.decode())):
            return _refusal(
                400, "This address asks for something that the dashboard does not know.", *wrong
            )
        return None

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


_DASH = ("/_dash", "/_favicon", "/_reload-hash", "/assets/")
"""Where Dash has what it needs."""
_REFUSAL = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>OpenAI usage and cost</title></head>
<body><h1>{title}</h1>{text}<p><a href="{home}">OpenAI usage and cost</a></p></body></html>
"""


def _refusal(status: int, title: str, *sentences: str) -> flask.Response:
    """A page in words."""
    text = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    home = flask.current_app.config["PREFIX"]
    page = _REFUSAL.format(title=escape(title), text=text, home=escape(home))
    return flask.Response(page, status=status, mimetype="text/html")


def _below(prefix: str, application: Any) -> Any:
    """The application below a prefix, for a proxy that leaves it in the path."""
    if prefix == "/":
        return application

    def below(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ.get("PATH_INFO", "")
        if path == prefix.rstrip("/"):
            start_response(
                "308 Permanent Redirect", [("Location", prefix), ("Content-Length", "0")]
            )
            return [b""]
        if path.startswith(prefix):
            environ = {**environ, "PATH_INFO": path[len(prefix) - 1 :]}
        return application(environ, start_response)

    return below


class Server:
    """Listens from the start on; raises ListenError. `close` stops it."""

    def __init__(
        self,
        path: Path,
        *,
        host: str,
        port: int,
        prefix: str = "/",
        library: Library | None = None,
    ) -> None:
        self.library = library or Library(path)
        app = application(self.library, prefix)
        app.server.config["PREFIX"] = prefix
        _only_for(app.server, host)
        try:
            sockets = bind(host, port)
        except ListenError as error:
            reason = str(error).partition(f"{port}: ")[2] or str(error)
            raise type(error)(f"listened on {host}:{port} for the dashboard: {reason}") from error
        if not is_loopback(host):
            log.warning(
                "the dashboard has no passwords, and everybody who reaches this address sees it:"
                " put a proxy that asks for a login in front, or listen on localhost",
                extra={"event": "dashboard_open", "host": host},
            )
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{sockets[0].getsockname()[1]}{prefix.rstrip('/')}"
        self._server = WsgiServer(app.server, sockets)
        self._watch = threading.Thread(target=self.library.watch, daemon=True)

    def start(self) -> None:
        """Serve, in threads."""
        self._watch.start()
        self._server.start()

    def close(self) -> None:
        """Stop serving."""
        self.library.close()
        self._server.close()


def _only_for(server: flask.Flask, host: str) -> None:
    """On loopback answer only to loopback's names: another site's page cannot reach us by a name
    that it points here.
    """

    def check() -> flask.Response | None:
        if is_loopback(re.sub(r":\d+$", "", flask.request.host)):
            return None
        return flask.Response(
            "This dashboard answers to localhost only.\n", status=403, mimetype="text/plain"
        )

    if is_loopback(host):
        server.before_request(check)


def serve(
    path: Path,
    *,
    host: str,
    port: int,
    prefix: str = "/",
    ready: Callable[[str], None],
    until: threading.Event | None = None,
) -> None:
    """Serve the dashboard of the store at `path` until the event is set; without one until SIGTERM,
    SIGINT or SIGHUP. Raises ListenError.
    """
    server = Server(path, host=host, port=port, prefix=prefix)
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
