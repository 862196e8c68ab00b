"""The dashboard as a web server: a Dash application in which every view is a URL. It connects to
nothing; only browsers connect to it.
"""

import logging
import re
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import dash
import flask

from otel_openai_usage import stopping
from otel_openai_usage.dashboard import callbacks, routes
from otel_openai_usage.dashboard.budget_states import NO_BUDGETS, BudgetPlan
from otel_openai_usage.dashboard.content import layout
from otel_openai_usage.dashboard.dash_adapter import Application
from otel_openai_usage.dashboard.store_watcher import StoreWatcher
from otel_openai_usage.dashboard.wsgi import WsgiServer
from otel_openai_usage.errors import ListenError
from otel_openai_usage.sockets import bind, is_loopback
from otel_openai_usage.storage.ports import OpenQueries

log = logging.getLogger(__name__)

PORT = 8050
"""The port to listen on by default."""


def application(watcher: StoreWatcher, prefix: str = "/") -> dash.Dash:
    """The dashboard over a watched store.

    Browsers see it below `prefix`; a proxy may take that off the path, or leave it.
    """
    app = Application(
        "otel_openai_usage.dashboard",
        title="OpenAI usage and cost",
        # Else the title would change at every tick.
        update_title="",
        # Callbacks name controls that not every page has.
        suppress_callback_exceptions=True,
        assets_folder=str(Path(__file__).parent / "assets"),
        compress=False,
        requests_pathname_prefix=prefix,
        # `_below` takes the prefix off before Dash sees the path.
        routes_pathname_prefix="/",
    )
    app.server.wsgi_app = _below(prefix, app.server.wsgi_app)
    # A function, so that every visit gets the newest data.
    app.layout = lambda: layout(watcher)
    callbacks.register(app, watcher)
    routes.register(app.server, watcher, home=prefix, script_hashes=app.csp_hashes())
    return app


def _below(prefix: str, application: Any) -> Any:
    """The WSGI application below a prefix, for a proxy that leaves it in the path."""
    if prefix == "/":
        return application

    def below(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ.get("PATH_INFO", "")
        if path == prefix.rstrip("/"):
            headers = [("Location", prefix), ("Content-Length", "0")]
            start_response("308 Permanent Redirect", headers)
            return [b""]
        if path.startswith(prefix):
            path_below = path[len(prefix) - 1 :]
            environ = {**environ, "PATH_INFO": path_below}
        return application(environ, start_response)

    return below


class Server:
    """Listens from the start on; raises ListenError. `close` stops it."""

    def __init__(
        self,
        watcher: StoreWatcher,
        *,
        host: str,
        port: int,
        prefix: str = "/",
    ) -> None:
        self.watcher = watcher
        app = application(self.watcher, prefix)
        if is_loopback(host):
            app.server.before_request(_refuse_other_hosts)
        sockets = _listen(host, port)
        if not is_loopback(host):
            log.warning(
                "the dashboard has no passwords, and everybody who reaches this address sees it:"
                " put a proxy that asks for a login in front, or listen on localhost",
                extra={"event": "dashboard_open", "host": host},
            )
        url_host = f"[{host}]" if ":" in host else host
        bound_port = sockets[0].getsockname()[1]
        self.url = f"http://{url_host}:{bound_port}{prefix.rstrip('/')}"
        self._server = WsgiServer(app.server, sockets)
        self._watching = threading.Thread(target=self.watcher.watch, daemon=True)

    def start(self) -> None:
        """Serve, in threads."""
        self._watching.start()
        self._server.start()

    def close(self) -> None:
        """Stop serving."""
        self.watcher.close()
        self._server.close()


def _listen(host: str, port: int) -> list[Any]:
    """Listening sockets. Raises ListenError."""
    try:
        return list(bind(host, port))
    except ListenError as error:
        reason = str(error).partition(f"{port}: ")[2] or str(error)
        raise type(error)(f"listened on {host}:{port} for the dashboard: {reason}") from error


def _refuse_other_hosts() -> flask.Response | None:
    """On loopback answer only to loopback's names.

    Otherwise the page of another site could read the dashboard by a name that points here.
    """
    host = re.sub(r":\d+$", "", flask.request.host)
    if is_loopback(host):
        return None
    text = "This dashboard answers to localhost only.\n"
    return flask.Response(text, status=403, mimetype="text/plain")


def serve(
    open_queries: OpenQueries,
    *,
    host: str,
    port: int,
    prefix: str = "/",
    ready: Callable[[str], None],
    until: threading.Event | None = None,
    hashed: Collection[str] = (),
    plan: BudgetPlan = NO_BUDGETS,
) -> None:
    """Serve the dashboard of the store until the event is set; without one until SIGTERM,
    SIGINT or SIGHUP. Raises ListenError.
    """
    watcher = StoreWatcher(open_queries, hashed=hashed, plan=plan)
    server = Server(watcher, host=host, port=port, prefix=prefix)
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
