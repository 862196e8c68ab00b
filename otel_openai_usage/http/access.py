"""TLS and basic authentication as a web config file says, in the format of Prometheus.

Format and behaviour: docs/web-configuration.md and web/handler.go of
github.com/prometheus/exporter-toolkit. As there, the file and the certificates are read again when
they change. Two things differ. The probes need no password, so that an orchestrator needs none. And
a protection that is in force ends with a restart only, never because a file was emptied.
"""

import asyncio
import logging
import ssl
from collections.abc import Iterator, Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from aiohttp import web
from aiohttp.typedefs import Handler

from otel_openai_usage.errors import ConfigError
from otel_openai_usage.http.passwords import PasswordCheck
from otel_openai_usage.http.web_config import WebConfig, read
from otel_openai_usage.watched_file import WatchedFiles

log = logging.getLogger(__name__)

_PROBES = ("/healthz", "/readyz")
"""Paths that need no password."""
_LONGEST_WAIT = 0.5
"""Seconds that a client waits for a changed file to be read; until then the last one is in force."""


class Access:
    """The web config file in force. Raises ConfigError if it cannot be used at the start.

    If it changes later and cannot be used, that is logged and the last good one stays in force.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._config = read(path)
        # It is read once more: only what is read after a call of `changed` is certainly newest.
        self._watched = WatchedFiles([path, *self._config.files])
        self._passwords = PasswordCheck()
        # A thread of its own: a file that takes long to read delays nothing else.
        self._reader = ThreadPoolExecutor(1, "web-config")
        self._reading: Future[None] | None = None
        self._lock = Lock()
        self.ssl = self._context(self._config)
        if not (self._config.users or self._config.tls):
            log.warning(
                "the web config file names neither users nor TLS: everybody may read the metrics",
                extra={"event": "web_config_open", "file": str(path)},
            )

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of every answer."""
        return self._config.headers

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Handle the request if it is a probe, needs no password or has a right one."""
        if request.path in _PROBES:
            return await handler(request)
        # In a thread, because reading files blocks the event loop.
        reading = asyncio.wrap_future(self._start_reading())
        await asyncio.wait({reading}, timeout=_LONGEST_WAIT)
        if self._config.users:
            authorization = request.headers.get("Authorization", "")
            is_right = await self._passwords.is_right(authorization, self._config.users)
            if is_right is None:
                return _too_busy()
            if not is_right:
                return _unauthorized()
        return await handler(request)

    def _start_reading(self) -> Future[None]:
        """Return the reading on its way, or start one."""
        with self._lock:
            if self._reading is None or self._reading.done():
                self._reading = self._reader.submit(self._read_if_changed)
            return self._reading

    def _read_if_changed(self) -> None:
        """Read the file again if it, or a certificate, changed."""
        if not self._watched.changed():
            return
        try:
            self._replace(read(self._path))
        except ConfigError as error:
            log.warning(
                "the web config file changed and cannot be used; the last good one stays",
                extra={"event": "web_config_refused", "error": str(error)},
            )

    def _replace(self, config: WebConfig) -> None:
        """Put another configuration in force. Raises ConfigError if it cannot be."""
        problems = [f"{self._path}: {each}; restart" for each in _weaker(self._config, config)]
        if problems:
            raise ConfigError(problems)
        self.ssl = self._context(config)
        self._config = config
        files = (self._path, *config.files)
        if files != self._watched.files:
            self._watched = WatchedFiles(files)

    def _context(self, config: WebConfig) -> ssl.SSLContext | None:
        if config.tls is None:
            return None
        context = config.tls.context()
        # Called for every client, whether it names a server or not.
        context.sni_callback = self._on_handshake
        return context

    def _on_handshake(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, context: ssl.SSLContext
    ) -> None:
        """Use the newest certificate for this connection."""
        futures.wait([self._start_reading()], timeout=_LONGEST_WAIT)
        if self.ssl is not None and self.ssl is not context:
            connection.context = self.ssl


def _too_busy() -> web.Response:
    text = "too many passwords to compare; try again in a second\n"
    return web.Response(status=503, text=text, headers={"Retry-After": "1"})


def _unauthorized() -> web.Response:
    headers = {"WWW-Authenticate": "Basic"}
    return web.Response(status=401, text="Unauthorized\n", headers=headers)


def _weaker(before: WebConfig, after: WebConfig) -> Iterator[str]:
    """Yield the protections that a changed file would switch off or weaken."""
    if bool(before.tls) != bool(after.tls):
        yield "tls_server_config: TLS cannot be switched on or off while running"
    if before.tls and after.tls:
        is_weaker = after.tls.client_verification < before.tls.client_verification
        if is_weaker:
            yield "tls_server_config.client_auth_type: cannot be weakened while running"
    if before.users and not after.users:
        yield "basic_auth_users: passwords cannot be switched off while running"
