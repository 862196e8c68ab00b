"""Serves a WSGI application by waitress, with limits that waitress does not have by itself.

Waitress closes connections that are idle. It lets a client send its request, or read its response,
as slowly as it likes, and accepts no connection when it has its maximum. Here a request and a
response have a time limit, and a new connection replaces the one that has been idle for longest.
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
"""Connections at a time."""
REQUEST = 10.0
"""Seconds that a request, its body included, may take to arrive."""
STALL = 10.0
"""Seconds that a client may read nothing of its response."""
IDLE = 75.0
"""Seconds after which a connection without a further request is closed."""
_ROUND = 1.0
"""Seconds between two checks of the time limits."""
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 21\r\n\r\ntoo many connections\n"
)


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection that remembers when its request began to arrive."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.arriving_since: float | None = time.time()

    def received(self, data: bytes) -> bool:
        """Waitress: bytes of a request came."""
        if self.arriving_since is None:
            self.arriving_since = time.time()
        goes_on = bool(super().received(data))
        is_complete = self.requests and self.request is None
        if is_complete:
            self.arriving_since = None
        return goes_on

    def is_late(self, now: float) -> bool:
        """Whether the client took longer than it may, or sends several requests at once."""
        if self.requests:
            # No browser sends a request before it has read the response to the last one.
            return len(self.requests) > 1
        inactive = now - self.last_activity
        if self.total_outbufs_len:
            return bool(inactive > STALL)
        if self.arriving_since is not None:
            return now - self.arriving_since > REQUEST
        return bool(inactive > IDLE)


class _Acceptor(TcpWSGIServer):  # type: ignore[misc]
    """Collects new connections; `WsgiServer` decides about them between two rounds."""

    channel_class = _Channel

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.accepted: list[socket.socket] = []

    def readable(self) -> bool:
        """Waitress: whether connections are accepted."""
        return bool(self.accepting)

    def handle_accept(self) -> None:
        """Waitress: a client connects."""
        with suppress(OSError):
            pair = self.accept()
            if pair is not None:
                connection, _ = pair
                self.accepted.append(connection)


class WsgiServer:
    """Serves an application on listening sockets: one thread for connections, four for requests."""

    def __init__(self, application: Application, sockets: Sequence[socket.socket]) -> None:
        # It warns whenever a request waits for a thread, which is no problem here.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        # Waitress's own map would be shared with any other server of this process.
        self._map: dict[int, Any] = {}
        self._dispatcher = ThreadedTaskDispatcher()
        self._adjustments = Adjustments(
            ident="otel-openai-usage-dashboard",
            threads=4,
            # Higher than our limit, so that `_admit` decides and not waitress.
            connection_limit=CONNECTIONS + 16,
            max_request_header_size=32 * 1024,
            max_request_body_size=1024 * 1024,
            # A browser tab that is closed is no error.
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
                # The sockets listen already.
                bind_socket=False,
                sockinfo=(listening.family, listening.type, listening.proto, None),
            )
            for listening in sockets
        ]
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dashboard", daemon=True)

    def start(self) -> None:
        """Serve, in threads."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._closing.set()
        # Wakes the loop, which may be waiting for a client.
        self._acceptors[0].pull_trigger()
        if self._thread.is_alive():
            self._thread.join(5)
        self._dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._map)

    def _run(self) -> None:
        while not self._closing.is_set():
            # With poll, because select fails for descriptors from 1024 on.
            wasyncore.loop(timeout=_ROUND, use_poll=True, map=self._map, count=1)
            # Between two rounds no other thread uses the connections, so they may be closed.
            self._close_late()
            for acceptor in self._acceptors:
                accepted = acceptor.accepted
                acceptor.accepted = []
                for connection in accepted:
                    self._admit(acceptor, connection)

    def _channels(self) -> list[_Channel]:
        """The open connections."""
        dispatchers = list(self._map.values())
        return [each for each in dispatchers if isinstance(each, _Channel)]

    def _close_late(self) -> None:
        now = time.time()
        for channel in self._channels():
            if channel.is_late(now):
                channel.handle_close()

    def _admit(self, acceptor: _Acceptor, connection: socket.socket) -> None:
        """Serve a new connection, or refuse it if there is no place for it."""
        if not self._make_place():
            with suppress(OSError):
                connection.send(_REFUSAL)
            connection.close()
            return
        try:
            connection.setblocking(False)
            acceptor.set_socket_options(connection)
            client = connection.getpeername()
            _Channel(acceptor, connection, client, self._adjustments, self._map)
        except OSError:
            # The client is gone already.
            connection.close()

    def _make_place(self) -> bool:
        """Whether there is a place, once the connection that was idle for longest is closed."""
        channels = self._channels()
        if len(channels) < CONNECTIONS:
            return True
        idle = [each for each in channels if not each.requests and not each.total_outbufs_len]
        if not idle:
            return False
        oldest = min(idle, key=lambda each: each.last_activity)
        oldest.handle_close()
        return True
