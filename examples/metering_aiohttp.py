"""A web application that meters by tenant: whatever a handler asks of OpenAI is on the account of
who asked it.

Run it as metering_chat.py says; then  curl -H 'X-Tenant: acme' -d 'Say hello.'
http://localhost:8090/
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from aiohttp import web
from openai import AsyncOpenAI

from otel_openai_metering import Meter

TENANT: ContextVar[str] = ContextVar("tenant", default="nobody")
CLIENT: web.AppKey[AsyncOpenAI] = web.AppKey("client", AsyncOpenAI)
METER: web.AppKey[Meter] = web.AppKey("meter", Meter)


@web.middleware
async def by_tenant(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Remember who asks. In your application the tenant comes from the session or the token, not
    from a header.
    """
    TENANT.set(request.headers.get("X-Tenant", "nobody"))
    return await handler(request)


async def complete(app: web.Application, text: str) -> Any:
    """Ask OpenAI, and report it: the one place in which the application does so."""
    completion = await app[CLIENT].chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": text}]
    )
    app[METER].record(completion, subject=TENANT.get())
    return completion


async def ask(request: web.Request) -> web.Response:
    """POST a question, get an answer."""
    completion = await complete(request.app, await request.text())
    return web.Response(text=completion.choices[0].message.content or "")


async def resources(app: web.Application) -> AsyncIterator[None]:
    """A client and a meter for all requests; what waits is sent when the application stops."""
    async with AsyncOpenAI() as app[CLIENT], Meter(source="examples") as app[METER]:
        yield


def application() -> web.Application:
    """The application."""
    app = web.Application(middlewares=[by_tenant])
    app.router.add_post("/", ask)
    app.cleanup_ctx.append(resources)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="localhost", port=int(os.environ.get("PORT", "8090")))
