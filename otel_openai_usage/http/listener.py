"""A listener with limits for an aiohttp server.

It limits the number of connections, and how long a client may take to send a request and to read an
answer. aiohttp closes connections that are idle after a request, but it has no limit of
connections, waits for ever for a client that does not read, and a TLS handshake may take a minute.
So this module accepts the connections itself.

At the limit, a new connection replaces the one that is of the least use. So a probe of /healthz is
answered however many silent connections there are.
"""

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler

from otel_openai_usage.http.connection import Connection, EvictionPriority
from otel_openai_usage.http.limits import Limits

log = logging.getLogger(__name__)

IDLE_TIMEOUT = 75.0
"""Seconds after which a connection without another request is closed."""
LINGERING_TIME = 1.0
"""Seconds to wait for the rest of a body whose request was answered."""

_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nServer: otel-openai-usage\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 21\r\n\r\n"
    b"too many connections\n"
)
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_MAX_ACCEPTED_AT_ONCE = 16
"""Then the event loop does something else."""
_LOG_INTERVAL = 60.0


class Listener:
    """Accepts connections on sockets for an aiohttp server, within limits.

    `track` must be the application's first middleware. `tls` returns the context of a new
    connection, None for plain HTTP.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
    ) -> None:
        self.limits = limits or Limits.of_this_process()
        self._tls = tls
        self._sockets: Sequence[socket.socket] = ()
        self._make_protocol: Callable[[], web.RequestHandler]
        self._connections: dict[web.RequestHandler, Connection] = {}
        self._watch_task: asyncio.Task[None] | None = None
        self._refused = 0
        self._logged_at = -_LOG_INTERVAL

    async def start(self, runner: web.AppRunner, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on listening sockets. `close` closes them."""
        await runner.setup()
        self._make_protocol = cast("web.Server", runner.server)
        self._sockets = sockets
        for listening_socket in sockets:
            self._watch_socket(listening_socket)
        self._watch_task = asyncio.create_task(self._close_late_connections())

    def close(self) -> None:
        """Accept no more connections. Open ones stay."""
        for listening_socket in self._sockets:
            asyncio.get_running_loop().remove_reader(listening_socket.fileno())
            listening_socket.close()
        self._sockets = ()

    def abort(self) -> None:
        """Close every open connection."""
        if self._watch_task:
            self._watch_task.cancel()
        for connection in list(self._connections.values()):
            connection.abort()

    @web.middleware
    async def track(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note when the request of a connection begins and ends."""
        connection = self._connections.get(request.protocol)
        if connection is None:
            return await handler(request)
        connection.begin_request()
        try:
            return await handler(request)
        finally:
            connection.end_request()

    @contextmanager
    def receiving(self, request: web.Request) -> Iterator[None]:
        """While a body is read: a client that sends nothing of it may lose its connection."""
        connection = self._connections.get(request.protocol)
        if connection is None:
            yield
            return
        connection.receives_body = True
        try:
            yield
        finally:
            connection.receives_body = False

    def _watch_socket(self, listening_socket: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(listening_socket.fileno(), self._accept, listening_socket)

    def _accept(self, listening_socket: socket.socket) -> None:
        """Accept the connections that wait on a socket."""
        for _ in range(_MAX_ACCEPTED_AT_ONCE):
            try:
                client_socket, _address = listening_socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._on_accept_error(listening_socket, error)
                return
            client_socket.setblocking(False)
            is_below_limit = len(self._connections) < self.limits.connections
            if is_below_limit or self._evict_one():
                self._serve(client_socket)
            else:
                self._refuse(client_socket)

    def _on_accept_error(self, listening_socket: socket.socket, error: OSError) -> None:
        """Evict a connection if the process has no descriptors left, else wait for a tick."""
        self._log("accepting a connection failed: %s", error.strerror or str(error))
        if error.errno in _OUT_OF_RESOURCES and self._evict_one():
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening_socket.fileno())
        loop.call_later(self.limits.tick, self._accept_again, listening_socket)

    def _accept_again(self, listening_socket: socket.socket) -> None:
        if listening_socket in self._sockets:
            self._watch_socket(listening_socket)

    def _serve(self, client_socket: socket.socket) -> None:
        connection = Connection(self._make_protocol(), self._forget)
        self._connections[connection.inner] = connection
        connection.opening = asyncio.create_task(self._open(connection, client_socket))

        def close_unopened(_: asyncio.Task[None]) -> None:
            if connection.transport is None:
                client_socket.close()

        # A task that is cancelled before it runs closes nothing itself.
        connection.opening.add_done_callback(close_unopened)

    async def _open(self, connection: Connection, client_socket: socket.socket) -> None:
        """Let asyncio read and write the socket, over TLS if there is a context."""
        context = self._tls()
        try:
            # A client may speak no TLS, or leave during the handshake: there is nothing to log.
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                client_socket,
                ssl=context,
                ssl_handshake_timeout=self.limits.request if context else None,
                ssl_shutdown_timeout=self.limits.tick if context else None,
            )
        except (OSError, asyncio.CancelledError):
            self._forget(connection)
            client_socket.close()

    def _evict_one(self) -> bool:
        """Close the connection that is of the least use. Return False if all are being served."""
        now = time.monotonic()
        evicted: Connection | None = None
        highest: EvictionPriority | None = None
        for connection in self._connections.values():
            priority = connection.eviction_priority(now)
            if priority is not None and (highest is None or priority > highest):
                highest = priority
                evicted = connection
        if evicted is None:
            return False
        self._forget(evicted)
        evicted.abort()
        return True

    def _refuse(self, client_socket: socket.socket) -> None:
        self._refused += 1
        self._log("connections are refused: %s", f"all {self.limits.connections} are in use")
        with suppress(OSError):
            # Over TLS there was no handshake yet, so the client could not read an answer.
            if self._tls() is None:
                client_socket.send(_REFUSAL)
        client_socket.close()

    def _log(self, message: str, reason: str) -> None:
        """Log at most one line a minute, however many clients connect."""
        now = time.monotonic()
        if now - self._logged_at < _LOG_INTERVAL:
            return
        self._logged_at = now
        facts = {"event": "connections_refused", "refused": self._refused}
        log.warning(message, reason, extra=facts)

    def _forget(self, connection: Connection) -> None:
        self._connections.pop(connection.inner, None)

    async def _close_late_connections(self) -> None:
        """Check every tick whether clients are in time."""
        while True:
            await asyncio.sleep(self.limits.tick)
            now = time.monotonic()
            for connection in list(self._connections.values()):
                connection.check_progress(now)
                if connection.is_late(now, self.limits):
                    connection.abort()
