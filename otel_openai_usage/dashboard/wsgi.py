"""Serves a WSGI application by waitress, with limits that waitress does not have by itself.

Waitress closes connections that are idle. It lets a client send its request, or read its answer, as
slowly as it likes, and when all connections are taken it accepts none. Here a request and an answer
have their time, and a newcomer gets the place of the connection that has been idle for longest.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

Application: TypeAlias = Callable[..., Iterable[bytes]]

CONNECTIONS = 100
REQUEST = 10.0
"""Seconds that a request, its body included, may take to arrive."""
STALL = 10.0
"""Seconds that a client may read nothing of its answer."""
IDLE = 75.0
"""Seconds after which a connection without a further request is closed."""
_ROUND = 1.0
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 21\r\n\r\ntoo many connections\n"
)


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection that knows since when its request is arriving."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.arriving_since: float | None = time.time()

    def received(self, data: bytes) -> bool:
        """Waitress: bytes of a request came."""
        if self.arriving_since is None:
            self.arriving_since = time.time()
        apply = bool(super().received(data))
        if self.requests and self.request is None:
            self.arriving_since = None
        return apply

    def is_late(self, now: float) -> bool:
        """Whether the client took longer than it may, or sends requests without reading answers,
        which no browser does.
        """
        if self.requests:
            return len(self.requests) > 1
        if self.total_outbufs_len:
            return bool(now - self.last_activity > STALL)
        if self.arriving_since is not None:
            return now - self.arriving_since > REQUEST
        return bool(now - self.last_activity > IDLE)


class _Acceptor(TcpWSGIServer):  # type: ignore[misc]
    """Notes who connects; `WsgiServer` decides about them between two rounds."""

    channel_class = _Channel

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.newcomers: list[socket.socket] = []

    def readable(self) -> bool:
        """Waitress: whether connections are accepted."""
        return bool(self.accepting)

    def handle_accept(self) -> None:
        """Waitress: somebody connects."""
        with suppress(OSError):
            accepted = self.accept()
            if accepted is not None:
                self.newcomers.append(accepted[0])


class WsgiServer:
    """Serves an application on listening sockets, in a thread of its own and four for requests."""

    def __init__(self, application: Application, sockets: Sequence[socket.socket]) -> None:
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._map: dict[int, Any] = {}
        self._dispatcher = ThreadedTaskDispatcher()
        self._adjustments = Adjustments(
            ident="otel-openai-usage-dashboard",
            threads=4,
            connection_limit=CONNECTIONS + 16,
            max_request_header_size=32 * 1024,
            max_request_body_size=1024 * 1024,
            log_socket_errors=False,
            sockets=list(sockets),
        )
        self._dispatcher.set_thread_count(self._adjustments.threads)
        self._acceptors = [
            _Acceptor(
                application,
                self._map,
                _sock=listening,
                dispatcher=self._dispatcher,
                adj=self._adjustments,
                bind_socket=False,
                sockinfo=(listening.family, listening.type, listening.proto, None),
            )
            for listening in sockets
        ]
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dashboard", daemon=True)

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._closing.set()
        self._acceptors[0].pull_trigger()
        if self._thread.is_alive():
            self._thread.join(5)
        self._dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._map)

    def _run(self) -> None:
        while not self._closing.is_set():
            wasyncore.loop(timeout=_ROUND, use_poll=True, map=self._map, count=1)
            # Between two rounds nobody else uses the connections, so they may be closed.
            now = time.time()
            for channel in self._channels():
                if channel.is_late(now):
                    channel.handle_close()
            for acceptor in self._acceptors:
                newcomers, acceptor.newcomers = acceptor.newcomers, []
                for accepted in newcomers:
                    self._admit(acceptor, accepted)

    def _channels(self) -> list[_Channel]:
        return [each for each in list(self._map.values()) if isinstance(each, _Channel)]

    def _admit(self, acceptor: _Acceptor, accepted: socket.socket) -> None:
        channels = self._channels()
        if len(channels) >= CONNECTIONS:
            idle = [each for each in channels if not each.requests and not each.total_outbufs_len]
            if not idle:
                with suppress(OSError):
                    accepted.send(_REFUSAL)
                accepted.close()
                return
            min(idle, key=lambda each: each.last_activity).handle_close()
        try:
            accepted.setblocking(False)
            acceptor.set_socket_options(accepted)
            _Channel(acceptor, accepted, accepted.getpeername(), self._adjustments, self._map)
        except OSError:  # the client is gone already
            accepted.close()
