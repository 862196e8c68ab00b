"""The events listener: POST /api/v1/events, OpenMeter's ingest contract."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from otel_openai_usage.domain.metered import Event
from otel_openai_usage.errors import Busy, StateError
from otel_openai_usage.http.listener import IDLE_TIMEOUT, LINGERING_TIME, Listener
from otel_openai_usage.ingest.encodings import ENCODINGS, plain
from otel_openai_usage.ingest.parser import Parser, Refused
from otel_openai_usage.ingest.tokens import Tokens
from otel_openai_usage.sockets import bind

PATH = "/api/v1/events"
BODY_TIMEOUT = 10.0
"""Seconds in which a body must have arrived."""
SLOW_AFTER = 1.0
"""Seconds after which a body that is still arriving may be aborted in favour of another one."""
MAX_IN_FLIGHT = 64 * 2**20
"""Bytes of bodies in memory at once. Only bytes that have arrived count."""

_TOO_MANY = Busy("too many bodies at once; send this again in a second")

_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    503: "Service Unavailable",
}


class Ingest:
    """Listens for events and passes them to `take`, which returns when they are stored.

    `take` raises Busy or StateError. `refused` is called for each request that is answered with
    4xx. `sockets` are listening sockets, if the address is bound already. With `port` 0 the system
    chooses a free port, which is in `url`.
    """

    def __init__(
        self,
        take: Callable[[Sequence[Event]], Awaitable[None]],
        refused: Callable[[], None],
        *,
        parser: Parser,
        tokens: Tokens,
        host: str,
        port: int,
        max_body: int,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        self._take = take
        self._refused = refused
        self._tokens = tokens
        self._host = host
        self._port = port
        self._max_body = max_body
        self._parse: dict[str, Callable[[bytes], list[Event]]] = {
            "application/cloudevents+json": parser.one,
            "application/cloudevents-batch+json": parser.many,
            "application/json": parser.either,
        }
        self._bytes_in_flight = 0
        self._arriving: dict[asyncio.Timeout, None] = {}
        self._runner: web.AppRunner | None = None
        self._listener = Listener()
        self._sockets = list(sockets)
        if self._sockets:
            self._port = self._sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """Where it listens, without a trailing slash."""
        is_ipv6 = ":" in self._host
        host = f"[{self._host}]" if is_ipv6 else self._host
        return f"http://{host}:{self._port}"

    async def bind(self) -> None:
        """Take the address. Connections are answered after `start`. Raises ListenError."""
        if not self._sockets:
            self._sockets = await asyncio.to_thread(bind, self._host, self._port)
            self._port = self._sockets[0].getsockname()[1]

    async def start(self) -> None:
        """Listen. Raises ListenError if the address cannot be taken."""
        await self.bind()
        app = web.Application(client_max_size=self._max_body, middlewares=[self._listener.track])
        app.router.add_route("*", PATH, self._answer)
        app.router.add_route("*", "/{path:.*}", _other_path)
        app.on_response_prepare.append(_set_server_header)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=2.0,
            lingering_time=LINGERING_TIME,
            keepalive_timeout=IDLE_TIMEOUT,
            auto_decompress=False,
        )
        await self._listener.start(self._runner, self._sockets)

    async def stop(self) -> None:
        """Stop listening, and give requests that are on their way two seconds."""
        self._listener.close()
        for listening in self._sockets:
            listening.close()
        if self._runner:
            await self._runner.cleanup()
        self._listener.abort()

    async def _answer(self, request: web.Request) -> web.Response:
        response = self._refusal(request)
        if response is None:
            response = await self._recorded(request)
        if response.status not in (204, 503):
            self._refused()
        return response

    def _refusal(self, request: web.Request) -> web.Response | None:
        """The refusal of a request for its headers, before the body is read; else None."""
        if not self._tokens.allow(request.headers.get("Authorization", "")):
            return problem(
                401,
                "a Bearer token is needed that this server knows",
                {"WWW-Authenticate": "Bearer"},
            )
        if request.method != "POST":
            return problem(405, f"{request.method}: events are sent with POST", {"Allow": "POST"})
        if unsupported := self._unsupported(request):
            return problem(415, unsupported)
        if (request.content_length or 0) > self._max_body:
            return self._too_large()
        return None

    def _unsupported(self, request: web.Request) -> str | None:
        """Why the Content-Type or the Content-Encoding cannot be read, else None."""
        if request.content_type.lower() not in self._parse:
            types = ", ".join(self._parse)
            given = request.headers.get("Content-Type", "")
            return f"Content-Type: expected one of {types}, got {given!r}"
        encoding = _encoding(request)
        if encoding not in ENCODINGS:
            encodings = ", ".join(ENCODINGS)
            return f"Content-Encoding: expected one of {encodings}, got {encoding!r}"
        return None

    async def _recorded(self, request: web.Request) -> web.Response:
        pieces: list[bytes] = []
        try:
            await self._receive(request, pieces)
            # The decompressed body has no name here, because no limit counts its memory: a variable
            # would hold it until the disk has the events.
            await self._take(
                self._parse[request.content_type.lower()](
                    plain(b"".join(pieces), _encoding(request), self._max_body)
                )
            )
        except TimeoutError:
            return problem(408, f"the body did not arrive within {BODY_TIMEOUT:.0f} seconds")
        except web.HTTPRequestEntityTooLarge:
            return self._too_large()
        except Refused as error:
            if error.index is None:
                return problem(400, str(error))
            return problem(400, f"event {error.index}: {error}", index=error.index)
        except (Busy, StateError) as error:
            why = str(error)
            if isinstance(error, StateError):
                # Its own text names the state file: it is for the operator, not for a client.
                why = "the events cannot be stored now; this server's log says why"
            return _later(why)
        finally:
            self._bytes_in_flight -= sum(map(len, pieces))
        return web.Response(status=204)

    async def _receive(self, request: web.Request, pieces: list[bytes]) -> None:
        """Read the body into `pieces`, and count their bytes as in flight.

        Bytes of Content-Length that have not arrived do not count. Above `MAX_IN_FLIGHT` the body
        that has been arriving for the longest time is aborted, if that is longer than `SLOW_AFTER`;
        else this body is. Raises TimeoutError, Busy, or HTTPRequestEntityTooLarge.
        """
        size = 0
        deadline = asyncio.timeout(BODY_TIMEOUT)
        try:
            async with deadline:
                self._arriving[deadline] = None
                with self._listener.receiving(request):
                    async for piece in request.content.iter_any():
                        pieces.append(piece)
                        size += len(piece)
                        self._bytes_in_flight += len(piece)
                        if size > self._max_body:
                            raise web.HTTPRequestEntityTooLarge(self._max_body, size)
                        self._limit_memory(deadline)
        except TimeoutError:
            if deadline not in self._arriving:
                # `_limit_memory` aborted this body for another one.
                raise _TOO_MANY from None
            raise
        finally:
            self._arriving.pop(deadline, None)

    def _limit_memory(self, deadline: asyncio.Timeout) -> None:
        if self._bytes_in_flight <= MAX_IN_FLIGHT:
            return
        now = asyncio.get_running_loop().time()
        # The order of insertion is the order of arrival.
        longest = next(iter(self._arriving))
        ends_at = longest.when() or now
        is_young = ends_at > now + BODY_TIMEOUT - SLOW_AFTER
        if longest is deadline or is_young:
            raise _TOO_MANY
        del self._arriving[longest]
        longest.reschedule(now)

    def _too_large(self) -> web.Response:
        return problem(
            413,
            f"the body is larger than {self._max_body} bytes (events.max_body); send smaller batches",
        )


def problem(
    status: int, detail: str, headers: dict[str, str] | None = None, **more: object
) -> web.Response:
    """An answer as RFC 9457 describes it."""
    body = {
        "type": "about:blank",
        "title": _TITLES[status],
        "status": status,
        "detail": detail,
        **more,
    }
    response = web.json_response(
        body, status=status, headers=headers, content_type="application/problem+json"
    )
    if status in (401, 408, 413, 415):
        # Otherwise the rest of the body would have to be read before the next request.
        response.force_close()
    return response


def _encoding(request: web.Request) -> str:
    return request.headers.get("Content-Encoding", "").lower() or "identity"


def _later(why: str) -> web.Response:
    return problem(503, why, {"Retry-After": "1"})


async def _other_path(request: web.Request) -> web.Response:
    return problem(404, f"{request.path}: events are sent to {PATH}")


async def _set_server_header(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "otel-openai-usage"
