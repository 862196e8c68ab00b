"""The Prometheus listener: /metrics, /healthz, /readyz and a page for people."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from aiohttp import web

from otel_openai_usage.domain.snapshot import Board
from otel_openai_usage.exporters.prometheus.reader import PrometheusReader
from otel_openai_usage.http.access import Access
from otel_openai_usage.http.landing import landing
from otel_openai_usage.http.limits import Limits
from otel_openai_usage.http.listener import IDLE_TIMEOUT, LINGERING_TIME, Listener
from otel_openai_usage.http.negotiation import gzip_accepted, negotiate
from otel_openai_usage.sockets import bind

_WRITE_SIZE = 2**18
"""Bytes that are handed to the kernel at a time. So much waits in memory for a slow client."""
_SERVER_NAME = "otel-openai-usage"
_BUSY = "too many scrapes at once\n"


class Server:
    """Serves one PrometheusReader over HTTP, or HTTPS if the web config file says so.

    `not_ready` returns the reasons why /readyz answers 503, none if it answers 200. It is called in
    a thread, once at a time. With `port` 0 a free one is used, which `url` has. `limits` are for
    tests.
    """

    def __init__(
        self,
        reader: PrometheusReader,
        board: Board,
        not_ready: Callable[[], Sequence[str]],
        *,
        host: str,
        port: int,
        path: str = "/metrics",
        web_config_file: Path | None = None,
        version: str = "",
        limits: Limits | None = None,
    ) -> None:
        self._reader = reader
        self._board = board
        self._not_ready = not_ready
        self._host = host
        self._port = port
        self._path = path
        self._version = version
        self._access = Access(web_config_file) if web_config_file else None
        self._worker = ThreadPoolExecutor(1, "scrape")
        self._runner: web.AppRunner | None = None
        self._listener = Listener(limits, tls=self._tls_context)
        self._sockets: list[socket.socket] = []
        self._scrapes = 0
        self._readiness: asyncio.Task[Sequence[str]] | None = None

    @property
    def url(self) -> str:
        """The address that it listens on, without a trailing slash."""
        scheme = "http" if self._tls_context() is None else "https"
        host = self._host or "localhost"
        if ":" in host:
            host = f"[{host}]"
        return f"{scheme}://{host}:{self._port}"

    async def bind(self) -> None:
        """Bind the address. Clients that connect are answered after `start`. Raises ListenError."""
        if not self._sockets:
            self._sockets = await asyncio.to_thread(bind, self._host, self._port)
            self._port = self._sockets[0].getsockname()[1]

    async def start(self) -> None:
        """Start to answer. Raises ListenError if the address cannot be bound."""
        await self.bind()
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            shutdown_timeout=1.0,
            keepalive_timeout=IDLE_TIMEOUT,
            lingering_time=LINGERING_TIME,
        )
        await self._listener.start(self._runner, self._sockets)

    def show(self, reader: PrometheusReader, not_ready: Callable[[], Sequence[str]]) -> None:
        """Serve this reader from now on, with its own check of readiness."""
        self._reader = reader
        self._not_ready = not_ready

    async def stop(self) -> None:
        """Stop listening, and give scrapes in progress a second. May be called twice."""
        self._listener.close()
        for listening_socket in self._sockets:
            listening_socket.close()
        runner = self._runner
        if runner is not None:
            self._runner = None
            await runner.cleanup()
        self._listener.abort()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _application(self) -> web.Application:
        middlewares = [self._listener.track]
        if self._access:
            middlewares.append(self._access.check)
        app = web.Application(middlewares=middlewares)
        app.router.add_get(self._path, self._metrics)
        app.router.add_get("/healthz", _healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/", self._landing)
        app.on_response_prepare.append(self._set_headers)
        return app

    def _tls_context(self) -> ssl.SSLContext | None:
        return self._access.ssl if self._access else None

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        # A slow reader occupies a connection, and /healthz must always find a free one.
        max_scrapes = max(1, self._listener.limits.connections // 2)
        if self._scrapes >= max_scrapes:
            return web.Response(status=503, text=_BUSY, headers={"Retry-After": "1"})
        self._scrapes += 1
        try:
            return await self._scrape(request)
        finally:
            self._scrapes -= 1

    async def _scrape(self, request: web.Request) -> web.StreamResponse:
        form, content_type = negotiate(request.headers.get("Accept", ""))
        gzip = gzip_accepted(request.headers.get("Accept-Encoding", ""))
        make_page = partial(self._reader.page, form, gzip=gzip)
        pieces = await asyncio.get_running_loop().run_in_executor(self._worker, make_page)
        if not self._reader.may_show():
            # It may have been decided long ago: this process may have been frozen meanwhile.
            make_page = partial(self._reader.health, form, gzip=gzip)
            pieces = await asyncio.get_running_loop().run_in_executor(self._worker, make_page)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if gzip:
            headers["Content-Encoding"] = "gzip"
        response = web.StreamResponse(headers=headers)
        response.content_length = sum(map(len, pieces))
        await response.prepare(request)
        if request.method != "HEAD":
            await _write(response, pieces)
        await response.write_eof()
        return response

    async def _set_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        # aiohttp would name itself and Python with their versions.
        response.headers["Server"] = _SERVER_NAME
        if self._access:
            response.headers.update(self._access.headers)

    async def _readyz(self, _: web.Request) -> web.Response:
        # Requests that come while it is checked share one check.
        if self._readiness is None or self._readiness.done():
            self._readiness = asyncio.create_task(asyncio.to_thread(self._not_ready))
        reasons = await asyncio.shield(self._readiness)
        if not reasons:
            return web.Response(text="ready\n")
        text = "".join(f"{reason}\n" for reason in reasons)
        return web.Response(status=503, text=text)

    async def _landing(self, _: web.Request) -> web.Response:
        page = landing(self._board.current(), self._path, self._version)
        return web.Response(text=page, content_type="text/html")


async def _write(response: web.StreamResponse, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), _WRITE_SIZE):
            await response.write(view[start : start + _WRITE_SIZE])


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")
