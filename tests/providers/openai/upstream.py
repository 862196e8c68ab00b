"""A scripted upstream: a real HTTP server that answers from a list and remembers what it was asked."""

import inspect
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

PAYLOADS = Path(__file__).parent / "payloads"

Answer = web.StreamResponse | dict[str, Any] | bytes | Callable[[web.Request], Any]
"""A response as it is, a JSON object, a raw body of a 200, or a function (async, too) of the
request that makes one of them.
"""


def payload(name: str) -> Any:
    """One of OpenAI's own examples."""
    return msgspec.json.decode((PAYLOADS / f"{name}.json").read_bytes())


def refusal(
    status: int, message: str, *, code: str | None = None, headers: dict[str, str] | None = None
) -> web.Response:
    """An error in OpenAI's envelope."""
    body = {
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    }
    return web.json_response(body, status=status, headers=headers)


@dataclass
class Asked:
    """One request that came."""

    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.query if key == name]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value


@dataclass
class Upstream:
    """Answers from `script`, then by `routes` (path without the base), else 404."""

    script: list[Answer] = field(default_factory=list)
    routes: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/v1/")
        self.asked.append(Asked(path, list(request.query.items()), dict(request.headers)))
        answer = (
            self.script.pop(0)
            if self.script
            else self.routes.get(path, refusal(404, f"Invalid URL (GET {request.path})"))
        )
        if callable(answer) and not isinstance(answer, web.StreamResponse):
            answer = answer(request)
            answer = await answer if inspect.isawaitable(answer) else answer
        if isinstance(answer, bytes):
            return web.Response(body=answer, content_type="application/json")
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)


@asynccontextmanager
async def serve(
    upstream: Upstream, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[Upstream]:
    """Serve it on a free port of 127.0.0.1, by TLS if there is a context."""
    app = web.Application()
    app.router.add_get("/{path:.*}", upstream.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
        await site.start()
        scheme = "https" if ssl_context else "http"
        upstream.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield upstream
    finally:
        await runner.cleanup()
