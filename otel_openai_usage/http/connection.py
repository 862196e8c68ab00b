"""One connection of a client, and what the client does with it."""

import asyncio
import time
from collections.abc import Callable
from enum import IntEnum
from typing import TypeAlias, cast

from aiohttp import web

from otel_openai_usage.http.limits import Limits

_BODY_PAUSE = 1.0
"""Seconds after which a client that sends a body counts as silent."""


class EvictionClass(IntEnum):
    """Why a connection may be closed for a new one. The greatest goes first."""

    READS_NOTHING = 0
    SENDS_NO_BODY = 1
    IDLE = 2
    SENDS_NO_HEAD = 3
    PIPELINES = 4


EvictionPriority: TypeAlias = tuple[EvictionClass, float]
"""The class, and for how many seconds that has been so."""


class Connection(asyncio.Protocol):
    """Passes everything on to aiohttp's protocol, and notes what the client does."""

    def __init__(self, inner: web.RequestHandler, forget: Callable[["Connection"], None]) -> None:
        self.inner = inner
        self.transport: asyncio.Transport | None = None
        self.opening: asyncio.Task[None] | None = None
        """The task that opens the connection, with the TLS handshake."""
        self._forget = forget
        now = time.monotonic()
        self.in_request = False
        self.receives_body = False
        self._active_at = now
        self._head_since: float | None = now
        self._answer_since = now
        self._stalled_since: float | None = None
        self._pipelines = False
        self._received_since_head = False
        self._unread = 0
        self._resumed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is open, after a TLS handshake if there is one."""
        self.transport = cast("asyncio.Transport", transport)
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """asyncio: the client sent something."""
        self._active_at = time.monotonic()
        self._received_since_head = True
        # The time for a head counts from its first byte, not from the end of the last answer.
        if not self.in_request and self._head_since is None:
            self._head_since = self._active_at
        self.inner.data_received(data)

    def eof_received(self) -> bool:
        """asyncio: the client will send nothing more. False closes the connection."""
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
        """asyncio: the connection is closed."""
        self._forget(self)
        self.inner.connection_lost(exc)

    def begin_request(self) -> None:
        """Note that a whole head has arrived."""
        # If nothing arrived since the last head, this one came with it: the client sends requests
        # without waiting for answers, which no scraper does.
        if not self._received_since_head:
            self._pipelines = True
        self._received_since_head = False
        self.in_request = True
        self._head_since = None
        self._answer_since = time.monotonic()

    def end_request(self) -> None:
        """Note that the answer is complete, though a part may not be sent yet."""
        self.in_request = False
        self._active_at = time.monotonic()

    def abort(self) -> None:
        """Close the connection now, and drop what was not sent."""
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    def check_progress(self, now: float) -> None:
        """Note whether the client read anything since the last check."""
        unread = self.transport.get_write_buffer_size() if self.transport else 0
        had_unread = self._unread > 0
        is_stalled = had_unread and unread >= self._unread and not self._resumed
        if not is_stalled:
            self._stalled_since = None
        elif self._stalled_since is None:
            self._stalled_since = now
        self._unread = unread
        self._resumed = False

    def is_late(self, now: float, limits: Limits) -> bool:
        """Return whether the client took longer than it may."""
        if self._head_since is not None and now - self._head_since > limits.request:
            return True
        if self._stalled_since is not None and now - self._stalled_since > limits.stall:
            return True
        return self._unread > 0 and now - self._answer_since > limits.answer

    def eviction_priority(self, now: float) -> EvictionPriority | None:
        """Return how readily this connection is closed for a new one.

        None while it is being served.
        """
        quiet = now - self._active_at
        if self._pipelines:
            return EvictionClass.PIPELINES, quiet
        if self._head_since is not None:
            return EvictionClass.SENDS_NO_HEAD, now - self._head_since
        if not self.in_request and not self._unread:
            return EvictionClass.IDLE, quiet
        if self.receives_body:
            return (EvictionClass.SENDS_NO_BODY, quiet) if quiet > _BODY_PAUSE else None
        if self._stalled_since is not None:
            return EvictionClass.READS_NOTHING, now - self._stalled_since
        return None
