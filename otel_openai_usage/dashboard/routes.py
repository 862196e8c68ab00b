"""The routes beside Dash's own: the table as CSV, a health check, and refusals in words."""

import re
from collections.abc import Iterable
from html import escape

import flask

from otel_openai_usage.dashboard.content import report
from otel_openai_usage.dashboard.dash_adapter import PATHS
from otel_openai_usage.dashboard.store_watcher import StoreWatcher
from otel_openai_usage.dashboard.table import render
from otel_openai_usage.dashboard.view import problems

_POLICY = (
    "default-src 'self'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'self';"
    " form-action 'self'"
)
"""Scripts are our files, and the few lines that start Dash. Nothing may come from, or go to, another
host.
"""
_VIEWS = ("/", "/table.csv")
"""Paths whose query is a view."""
_REFUSAL = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>OpenAI usage and cost</title></head>
<body><h1>{title}</h1>{text}<p><a href="{home}">OpenAI usage and cost</a></p></body></html>
"""


def register(
    server: flask.Flask, watcher: StoreWatcher, *, home: str, script_hashes: Iterable[str]
) -> None:
    """Add the routes. `home` is the path of the dashboard for a browser."""
    policy = _POLICY.format(scripts=" ".join(script_hashes))

    @server.before_request
    def check() -> flask.Response | None:
        path = flask.request.path
        if path == "/healthz":
            return flask.Response("ok\n", mimetype="text/plain")
        if path in _VIEWS:
            return _check_query(home)
        if path.startswith(PATHS):
            return None
        title = f"There is no page {path!r} here."
        return _refusal(404, home, title, ["The dashboard is at its first page."])

    @server.get("/table.csv")
    def table() -> flask.Response:
        return _table(watcher)

    @server.after_request
    def guard(response: flask.Response) -> flask.Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        # The layout needs the address of its page; other hosts must not get it.
        response.headers["Referrer-Policy"] = "same-origin"
        return response


def _check_query(home: str) -> flask.Response | None:
    """A refusal of a query that is no view."""
    wrong = problems(flask.request.query_string.decode())
    if not wrong:
        return None
    title = "This address asks for something that the dashboard does not know."
    return _refusal(400, home, title, wrong)


def _table(watcher: StoreWatcher) -> flask.Response:
    found = report(watcher, flask.request.query_string.decode())
    if found is None:
        text = "There is nothing of that to show.\n"
        return flask.Response(text, status=404, mimetype="text/plain")
    days = found.asked.text.replace("–", "to")
    days = re.sub(r"[^0-9A-Za-z]+", "-", days)
    name = f"openai-by-{found.view.by}-{days}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return flask.Response(render(found), mimetype="text/csv", headers=headers)


def _refusal(status: int, home: str, title: str, sentences: Iterable[str]) -> flask.Response:
    """A page that says what is wrong."""
    text = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    page = _REFUSAL.format(title=escape(title), text=text, home=escape(home))
    return flask.Response(page, status=status, mimetype="text/html")
