"""The events listener: POST /api/v1/events, OpenMeter's ingest contract."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from otel_openai_usage.core.metered import Event
from otel_openai_usage.errors import Busy, StateError
from otel_openai_usage.events import Parser, Refused
from otel_openai_usage.web.encodings import ENCODINGS, plain
from otel_openai_usage.web.patience import IDLE, Patience
from otel_openai_usage.web.server import bind
from otel_openai_usage.web.tokens import Tokens

PATH = "/api/v1/events"
SLOWEST = 10.0
"""Seconds in which a body must have arrived, and the first head on a connection."""
IN_FLIGHT = 64 * 2**20
"""Bytes of bodies that may be held at once."""

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
    """Listens for events and hands them to `take`, which returns when they are safe and raises Busy
    or StateError.

    `refused` is told of each request that was not taken for what it was. `port` 0 takes a free one;
    `url` tells which.
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
        self._held = 0
        self._runner: web.AppRunner | None = None
        self._patience = Patience(SLOWEST)

    @property
    def url(self) -> str:
        """Where it listens, without a trailing slash."""
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    async def start(self) -> None:
        """Listen. Raises ListenError if the address cannot be had."""
        app = web.Application(client_max_size=self._max_body, middlewares=[self._patience.met])
        app.router.add_route("*", PATH, self._events)
        app.router.add_route("*", "/{path:.*}", _elsewhere)
        app.on_response_prepare.append(_head)
        sockets = await asyncio.get_running_loop().run_in_executor(
            None, bind, self._host, self._port
        )
        self._port = sockets[0].getsockname()[1]
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=2.0,
            lingering_time=1.0,
            keepalive_timeout=IDLE,
            auto_decompress=False,
        )
        await self._runner.setup()
        self._patience.begin(self._runner.server)
        for listening in sockets:
            await web.SockSite(self._runner, listening).start()

    async def stop(self) -> None:
        """Stop listening, and give requests that are on their way two seconds."""
        self._patience.end()
        if self._runner:
            await self._runner.cleanup()

    async def _events(self, request: web.Request) -> web.Response:
        size = request.content_length if request.content_length is not None else self._max_body
        response = self._refusal(request, size)
        if response is None:
            self._held += size
            try:
                response = await self._taken(request)
            finally:
                self._held -= size
        if response.status not in (204, 503):
            self._refused()
        return response

    def _refusal(self, request: web.Request, size: int) -> web.Response | None:
        """What can be said before the body is read."""
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
        if size > self._max_body:
            return self._too_large()
        if self._held and self._held + size > IN_FLIGHT:
            return _later("too many bodies at once; send this again in a second")
        return None

    def _unsupported(self, request: web.Request) -> str | None:
        if request.content_type.lower() not in self._parse:
            return f"Content-Type: expected one of {', '.join(self._parse)}, got {request.headers.get('Content-Type', '')!r}"
        if (encoding := _encoding(request)) not in ENCODINGS:
            return f"Content-Encoding: expected one of {', '.join(ENCODINGS)}, got {encoding!r}"
        return None

    async def _taken(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(SLOWEST):
                body = await request.read()
            # no name for the plain body, which is counted nowhere: it must not live as long as the
            # disk takes
            await self._take(
                self._parse[request.content_type.lower()](
                    plain(body, _encoding(request), self._max_body)
                )
            )
        except TimeoutError:
            return problem(408, f"the body did not arrive within {SLOWEST:.0f} seconds")
        except web.HTTPRequestEntityTooLarge:
            return self._too_large()
        except Refused as error:
            if error.index is None:
                return problem(400, str(error))
            return problem(400, f"event {error.index}: {error}", index=error.index)
        except (Busy, StateError) as error:
            return _later(
                str(error)
                if isinstance(error, Busy)
                else "the events cannot be kept now; this server's log says why"
            )
        return web.Response(status=204)

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
        response.force_close()  # else the rest of the body would have to be read
    return response


def _encoding(request: web.Request) -> str:
    return request.headers.get("Content-Encoding", "").lower() or "identity"


def _later(why: str) -> web.Response:
    return problem(503, why, {"Retry-After": "1"})


async def _elsewhere(request: web.Request) -> web.Response:
    return problem(404, f"{request.path}: events are sent to {PATH}")


async def _head(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "otel-openai-usage"
