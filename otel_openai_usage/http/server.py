"""The Prometheus listener: /metrics, /healthz, /readyz and a page for people."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import web

from otel_openai_usage.domain.snapshot import Board
from otel_openai_usage.exporters.prometheus.reader import PrometheusReader
from otel_openai_usage.http.access import Access
from otel_openai_usage.http.landing import landing
from otel_openai_usage.http.listener import IDLE, LINGER, Limits, Listener
from otel_openai_usage.http.negotiation import gzip_accepted, negotiate
from otel_openai_usage.sockets import bind

_PIECE = 2**18
"""Bytes that are handed to the kernel at a time: so much waits in memory for a slow client."""


class Server:
    """Serves one PrometheusReader over HTTP, or HTTPS if the web config file says so.

    `not_ready` gives the reasons why /readyz should say no, none if it should say yes; it is called
    in a thread, once at a time. `port` 0 takes a free one; `url` tells which. `limits` are for
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
        self._listener = Listener(limits, tls=self._context)
        self._sockets: list[socket.socket] = []
        self._scrapes = 0
        self._readiness: asyncio.Task[Sequence[str]] | None = None

    @property
    def url(self) -> str:
        """Where it listens, without a trailing slash."""
        scheme = "https" if self._access and self._access.ssl else "http"
        host = f"[{self._host}]" if ":" in self._host else self._host or "localhost"
        return f"{scheme}://{host}:{self._port}"

    async def bind(self) -> None:
        """Take the address; who connects is answered after `start`. Raises ListenError."""
        if not self._sockets:
            self._sockets = await asyncio.to_thread(bind, self._host, self._port)
            self._port = self._sockets[0].getsockname()[1]

    async def start(self) -> None:
        """Listen. Raises ListenError if the address cannot be had."""
        await self.bind()
        guards = [self._access.check] if self._access else []
        app = web.Application(middlewares=[self._listener.track, *guards])
        app.router.add_get(self._path, self._metrics)
        app.router.add_get("/healthz", _healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/", self._landing)
        app.on_response_prepare.append(self._head)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=1.0,
            keepalive_timeout=IDLE,
            lingering_time=LINGER,
        )
        await self._listener.start(self._runner, self._sockets)

    def show(self, reader: PrometheusReader, not_ready: Callable[[], Sequence[str]]) -> None:
        """Serve another page from now on, and ask somebody else for readiness."""
        self._reader = reader
        self._not_ready = not_ready

    async def stop(self) -> None:
        """Stop listening, and give scrapes that are on their way a second. Twice does no harm."""
        self._listener.close()
        for listening in self._sockets:
            listening.close()
        runner, self._runner = self._runner, None
        if runner:
            await runner.cleanup()
        self._listener.abort()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _context(self) -> ssl.SSLContext | None:
        return self._access.ssl if self._access else None

    async def refresh(self) -> None:
        """Render what the Board shows now, in the worker thread, so that no scrape has to wait for
        it.
        """
        await asyncio.get_running_loop().run_in_executor(self._worker, self._reader.refresh)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        # Whoever reads slowly holds a place: /healthz must always find a free one.
        if self._scrapes >= max(1, self._listener.limits.connections // 2):
            return _later("too many scrapes at once\n")
        self._scrapes += 1
        try:
            return await self._page(request)
        finally:
            self._scrapes -= 1

    async def _page(self, request: web.Request) -> web.StreamResponse:
        form, content_type = negotiate(request.headers.get("Accept", ""))
        gzip = gzip_accepted(request.headers.get("Accept-Encoding", ""))
        pieces = await asyncio.get_running_loop().run_in_executor(
            self._worker, lambda reader: reader.page(form, gzip=gzip), self._reader
        )
        response = web.StreamResponse(
            headers={"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        )
        if gzip:
            response.headers["Content-Encoding"] = "gzip"
        response.content_length = sum(map(len, pieces))
        await response.prepare(request)
        if request.method != "HEAD":
            for piece in pieces:
                view = memoryview(piece)
                for start in range(0, len(view), _PIECE):
                    await response.write(view[start : start + _PIECE])
        await response.write_eof()
        return response

    async def _head(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers["Server"] = (
            "otel-openai-usage"  # aiohttp would name itself and Python with their versions
        )
        if self._access:
            response.headers.update(self._access.headers)

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._readiness is None or self._readiness.done():
            self._readiness = asyncio.create_task(asyncio.to_thread(self._not_ready))
        reasons = await asyncio.shield(self._readiness)
        text = "".join(f"{reason}\n" for reason in reasons)
        return web.Response(status=503 if reasons else 200, text=text or "ready\n")

    async def _landing(self, _: web.Request) -> web.Response:
        return web.Response(
            text=landing(self._board.current(), self._path, self._version), content_type="text/html"
        )


def _later(text: str) -> web.Response:
    return web.Response(status=503, text=text, headers={"Retry-After": "1"})


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")
