"""Fixtures of the OpenAI provider: a served upstream and a client that asks it without waiting between
retries.
"""

import random
from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.key import Key
from tests.providers.openai.upstream import Upstream, serve

SECRET = "sk-admin-very-secret-0123456789"


class Connect(Protocol):
    async def __call__(self, **settings: Any) -> Client: ...


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A scripted upstream on a free port."""
    async with serve(Upstream()) as served:
        yield served


@pytest.fixture
def slept() -> list[float]:
    """How long the client would have waited between requests."""
    return []


@pytest.fixture
async def connect(upstream: Upstream, slept: list[float]) -> AsyncIterator[Connect]:
    """Makes entered clients of the upstream."""
    clients: list[Client] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def connect(**settings: Any) -> Client:
        given: dict[str, Any] = {
            "name": "acme",
            "base_url": upstream.url,
            "key": Key(SECRET),
            "timeout": 5.0,
            "requests_per_minute": 100_000,
            "retries": 3,
            "sleep": sleep,
            "rng": random.Random(1),
            "env": {},
            **settings,
        }
        clients.append(await Client(**given).__aenter__())
        return clients[-1]

    yield connect
    for client in clients:
        await client.__aexit__(None, None, None)


@pytest.fixture
async def client(connect: Connect) -> Client:
    """A client with the defaults of the tests."""
    return await connect()
