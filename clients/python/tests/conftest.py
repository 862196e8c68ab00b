"""A simulated OpenAI, and an OpenMeter-shaped endpoint that keeps what it is sent; each in a
thread, so that sync clients can be used.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from otel_openai_metering import Meter
from otel_openai_usage.simulator.lateness import PROMPT
from otel_openai_usage.simulator.server import application, running
from otel_openai_usage.simulator.world import World


@contextmanager
def in_thread(serve: Callable[[], AbstractAsyncContextManager[str]]) -> Iterator[str]:
    """Serve in a thread of its own; yields the URL."""
    loop = asyncio.new_event_loop()
    began = threading.Event()
    found = []
    ended = asyncio.Event()

    async def main() -> None:
        async with serve() as url:
            found.append(url)
            began.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    assert began.wait(10)
    yield found[0]
    loop.call_soon_threadsafe(ended.set)
    thread.join(10)
    loop.close()


@dataclass
class Endpoint:
    """Answers POST /api/v1/events with the next of `answers`, then 204; keeps the events of what it
    answered with 204.
    """

    answers: list[int] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    bad: Callable[[dict[str, Any]], bool] = lambda _: False
    down: bool = False
    url: str = ""

    async def post(self, request: web.Request) -> web.Response:
        batch = json.loads(await request.read())
        status = 503 if self.down else self.answers.pop(0) if self.answers else 204
        if status == 204 and any(self.bad(event) for event in batch):
            status = 400
        self.requests.append((status, dict(request.headers)))
        if status == 204:
            self.events += batch
        return web.Response(status=status)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/api/v1/events", self.post)
        async with running(app) as url:
            yield url

    @property
    def data(self) -> list[dict[str, Any]]:
        """What the events say."""
        return [event["data"] for event in self.events]


@pytest.fixture(scope="session")
def simulated() -> Iterator[str]:
    """The base URL of a simulated OpenAI."""
    with in_thread(lambda: running(application(World(7, lateness=PROMPT)))) as url:
        yield f"{url}/v1"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An OpenMeter-shaped endpoint."""
    made = Endpoint()
    with in_thread(made.serve) as url:
        made.url = url
        yield made


@pytest.fixture
def meter(endpoint: Endpoint, tmp_path: Path) -> Iterator[Meter]:
    """A Meter that reports to the endpoint."""
    with Meter(
        endpoint.url, source="app", token="secret", spool=tmp_path / "spool", env={}
    ) as made:
        yield made


@pytest.fixture
def client(simulated: str) -> Iterator[openai.OpenAI]:
    """The official client."""
    with openai.OpenAI(api_key="sk-simulated", base_url=simulated, max_retries=0) as made:
        yield made


@pytest.fixture
async def aclient(simulated: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client, asynchronous."""
    async with openai.AsyncOpenAI(
        api_key="sk-simulated", base_url=simulated, max_retries=0
    ) as made:
        yield made
