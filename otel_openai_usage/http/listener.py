"""A listener with limits for an aiohttp server: how many connections there may be, and how long a
client may take to send a request and to read an answer.

aiohttp closes connections that are idle after a request. It knows no limit of connections, waits
for ever for a client that does not read, and a TLS handshake may take a minute. So this module
accepts the connections itself. When all places are taken, a newcomer gets the place of the
connection that is of the least use: this is why a probe of /healthz is answered however many
silent connections there are.
"""

import asyncio
import errno
import logging
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler

log = logging.getLogger(__name__)

IDLE = 75.0
"""Seconds after which a connection is closed on which no further request came."""
LINGER = 1.0
"""Seconds that the rest of a body is waited for once its request was answered."""

_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nServer: otel-openai-usage\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 21\r\n\r\n"
    b"too many connections\n"
)
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_ACCEPTED_AT_ONCE = 16
_LOG_INTERVAL = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a listener allows its clients. Times are seconds."""

    connections: int
    """How many connections there may be at a time."""
    request: float = 10.0
    """How long a TLS handshake, and the head of a request, may take."""
    stall: float = 10.0
    """How long a client may read nothing of its answer."""
    answer: float = 60.0
    """How long a client may take to read a whole answer."""
    tick: float = 1.0
    """How often the times are compared."""

    @classmethod
    def of_this_process(cls) -> "Limits":
        """Limits that leave descriptors for the state, for OpenAI and for another listener."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if descriptors == resource.RLIM_INFINITY:
            return cls(128)
        return cls(max(8, min(128, descriptors // 4)))


class _Connection(asyncio.Protocol):
    """One client. Hands everything on to aiohttp's protocol, and notes what the client does."""

    def __init__(self, inner: web.RequestHandler, forget: Callable[["_Connection"], None]) -> None:
        self.inner = inner
        self.transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None
        self._forget = forget
        now = time.monotonic()
        self.active_at = now
        self.head_since: float | None = now
        self.answer_since = now
        self.stalled_since: float | None = None
        self.in_request = False
        self.receives_body = False
        self.pipelines = False
        self._fresh = False
        self._unread = 0
        self._resumed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection, its TLS handshake included, is there."""
        self.transport = cast("asyncio.Transport", transport)
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """asyncio: the client sent something."""
        self.active_at = time.monotonic()
        self._fresh = True
        if not self.in_request and self.head_since is None:
            self.head_since = self.active_at
        self.inner.data_received(data)

    def eof_received(self) -> bool:
        """asyncio: the client sends no more. False closes the connection."""
        self.inner.eof_received()
        return False

    def pause_writing(self) -> None:
        """asyncio: the client reads more slowly than we write."""
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """asyncio: the client has read what we wrote."""
        self._resumed = True
        self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self._forget(self)
        self.inner.connection_lost(exc)

    def begin(self) -> None:
        """A whole head came."""
        # Nothing came since the last one, so the client sends requests ahead: no scraper does.
        self.pipelines |= not self._fresh
        self._fresh = False
        self.in_request = True
        self.head_since = None
        self.answer_since = time.monotonic()

    def end(self) -> None:
        """Its answer is made; a part of it may still have to be sent."""
        self.in_request = False
        self.active_at = time.monotonic()

    def abort(self) -> None:
        """Close it now; what was not sent is dropped."""
        if self.transport is not None:
            self.transport.abort()
        elif self.task is not None:
            self.task.cancel()

    def policy(self, now: float) -> None:
        """Note whether the client read anything since the last look."""
        unread = self.transport.get_write_buffer_size() if self.transport else 0
        if unread and unread >= self._unread > 0 and not self._resumed:
            self.stalled_since = now if self.stalled_since is None else self.stalled_since
        else:
            self.stalled_since = None
        self._unread = unread
        self._resumed = False

    def is_late(self, now: float, limits: Limits) -> bool:
        """Whether the client took longer than it may."""
        return (
            (self.head_since is not None and now - self.head_since > limits.request)
            or (self.stalled_since is not None and now - self.stalled_since > limits.stall)
            or (self._unread > 0 and now - self.answer_since > limits.answer)
        )

    def uselessness(self, now: float) -> tuple[int, float] | None:
        """How willingly this connection is given up for a new one, the greatest first; None for
        one that is being served.
        """
        quiet = now - self.active_at
        if self.pipelines:
            return 4, quiet
        if self.head_since is not None:
            return 3, now - self.head_since
        if not self.in_request and not self._unread:
            return 2, quiet
        if self.receives_body:
            return (1, quiet) if quiet > 1.0 else None
        return (0, now - self.stalled_since) if self.stalled_since is not None else None


class Listener:
    """Accepts connections on sockets for an aiohttp server, within limits.

    `track` must be the application's first middleware. `tls` gives the context of a new
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
        self._connections: dict[web.RequestHandler, _Connection] = {}
        self._watch_task: asyncio.Task[None] | None = None
        self._refused = 0
        self._logged_at = -_LOG_INTERVAL

    async def start(self, runner: web.AppRunner, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on listening sockets, which are closed by `close`."""
        await runner.setup()
        self._make_protocol = cast("web.Server", runner.server)
        self._sockets = sockets
        loop = asyncio.get_running_loop()
        for listening in sockets:
            loop.add_reader(listening.fileno(), self._accept, listening)
        self._watch_task = asyncio.create_task(self._watch())

    def close(self) -> None:
        """Accept no more connections; those that are open stay."""
        for listening in self._sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
            listening.close()
        self._sockets = ()

    def abort(self) -> None:
        """Close what is still open."""
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
        connection.begin()
        try:
            return await handler(request)
        finally:
            connection.end()

    @contextmanager
    def receiving(self, request: web.Request) -> Iterator[None]:
        """While the body is read: a client that sends nothing of it may lose its place."""
        connection = self._connections.get(request.protocol)
        if connection:
            connection.receives_body = True
        try:
            yield
        finally:
            if connection:
                connection.receives_body = False

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, _address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._cannot_accept(listening, error)
                return
            accepted.setblocking(False)
            if len(self._connections) < self.limits.connections or self._make_room():
                self._admit(accepted)
            else:
                self._refuse(accepted)

    def _cannot_accept(self, listening: socket.socket, error: OSError) -> None:
        """Give up a connection where the process is out of descriptors, and wait a little."""
        self._log("accepting a connection failed: %s", error.strerror or str(error))
        if error.errno in _OUT_OF_RESOURCES and self._make_room():
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening.fileno())
        loop.call_later(self.limits.tick, self._accept_again, listening)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening.fileno(), self._accept, listening)

    def _admit(self, accepted: socket.socket) -> None:
        connection = _Connection(self._make_protocol(), self._forget)
        self._connections[connection.inner] = connection
        connection.task = asyncio.create_task(self._open(connection, accepted))

        def close(_: asyncio.Task[None]) -> None:
            if connection.transport is None:
                accepted.close()

        # A task that is cancelled before it began closes nothing by itself.
        connection.task.add_done_callback(close)

    async def _open(self, connection: _Connection, accepted: socket.socket) -> None:
        """Have asyncio read and write the socket, over TLS where that is wanted."""
        context = self._tls()
        try:
            # A client may send no TLS, or leave in the middle of a handshake: nothing to log.
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=context,
                ssl_handshake_timeout=self.limits.request if context else None,
                ssl_shutdown_timeout=self.limits.tick if context else None,
            )
        except (OSError, asyncio.CancelledError):
            self._forget(connection)
            accepted.close()

    def _make_room(self) -> bool:
        """Close the connection that is of the least use. False if all are being served."""
        now = time.monotonic()
        useless = [
            (rank, connection)
            for connection in self._connections.values()
            if (rank := connection.uselessness(now)) is not None
        ]
        if not useless:
            return False
        _, connection = max(useless, key=lambda each: each[0])
        self._forget(connection)
        connection.abort()
        return True

    def _refuse(self, accepted: socket.socket) -> None:
        self._refused += 1
        self._log("connections are refused: %s", f"all {self.limits.connections} are in use")
        with suppress(OSError):
            if self._tls() is None:
                accepted.send(_REFUSAL)
        accepted.close()

    def _log(self, message: str, reason: str) -> None:
        """At most one line a minute, whoever knocks how often."""
        now = time.monotonic()
        if now - self._logged_at < _LOG_INTERVAL:
            return
        self._logged_at = now
        log.warning(
            message, reason, extra={"event": "connections_refused", "refused": self._refused}
        )

    def _forget(self, connection: _Connection) -> None:
        self._connections.pop(connection.inner, None)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.limits.tick)
            now = time.monotonic()
            for connection in list(self._connections.values()):
                connection.policy(now)
                if connection.is_late(now, self.limits):
                    connection.abort()
