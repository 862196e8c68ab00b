"""Connections that stay silent are ended, so that nobody can have them all."""

import asyncio
from typing import TypeAlias

from aiohttp import web
from aiohttp.typedefs import Handler

IDLE = 75.0
"""Seconds after which a connection is ended on which nothing more came."""

_Connection: TypeAlias = web.RequestHandler


class Patience:
    """Ends connections on which no request came within some `seconds` of their beginning, at the
    latest after twice as many.

    aiohttp ends connections that were quiet after a request; of those that never sent a whole head
    it knows nothing.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._met: set[_Connection] = set()
        self._task: asyncio.Task[None] | None = None

    def begin(self, server: web.Server | None) -> None:
        """Watch the connections of a server that is set up."""
        if server:
            self._task = asyncio.create_task(self._watch(server))

    def end(self) -> None:
        """Watch no more."""
        if self._task:
            self._task.cancel()

    @web.middleware
    async def met(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A request came on this connection, however long its answer takes."""
        self._met.add(request.protocol)
        return await handler(request)

    async def _watch(self, server: web.Server) -> None:
        silent: set[_Connection] = set()
        while True:
            await asyncio.sleep(self._seconds)
            connections = set(server.connections)
            self._met &= connections
            for connection in silent & (connections - self._met):
                connection.force_close()
            silent = connections - self._met
