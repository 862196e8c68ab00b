"""A simulated organization on a free port of 127.0.0.1, at a time that stands still."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
import pytest
from aiohttp import web

from otel_openai_usage.simulator.lateness import PROMPT
from otel_openai_usage.simulator.server import (
    ADMIN_KEY,
    PREFIX,
    SIMULATION,
    Simulation,
    application,
    running,
)
from otel_openai_usage.simulator.world import World

THURSDAY = int(datetime(2026, 11, 19, tzinfo=UTC).timestamp())
HOUR = 3600
DAY = 86400


@dataclass
class Reply:
    """An answer over real HTTP."""

    status: int
    headers: dict[str, str]
    text: str
    json: dict[str, object] = field(default_factory=dict)


@dataclass
class Api:
    """A running simulation and a client of it; `now` can be moved."""

    url: str
    simulation: Simulation
    session: aiohttp.ClientSession
    now: datetime

    async def get(self, path: str, *, key: str | None = ADMIN_KEY, **params: object) -> Reply:
        pairs = [
            (name, str(one))
            for name, value in params.items()
            for one in (value if isinstance(value, list) else [value])
        ]
        return await self.raw(PREFIX + path, pairs, key)

    async def raw(
        self, path: str, pairs: list[tuple[str, str]], key: str | None = ADMIN_KEY
    ) -> Reply:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with self.session.get(self.url + path, params=pairs, headers=headers) as response:
            text = await response.text()
            known = (
                await response.json()
                if response.content_type == "application/json" and text.endswith(("}", "]"))
                else {}
            )
            return Reply(response.status, dict(response.headers), text, known)

    async def post(self, path: str, document: object) -> Reply:
        async with self.session.post(f"{self.url}/simulator/{path}", json=document) as response:
            return Reply(response.status, dict(response.headers), await response.text())


@pytest.fixture
def world() -> World:
    """The default company, every minute of which is known when it ends."""
    return World(7, lateness=PROMPT)


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    """Its API, on a Thursday afternoon."""
    moment = datetime.fromtimestamp(THURSDAY + 15 * HOUR + 40, UTC)
    app: web.Application = application(world, clock=lambda: found.now)
    async with running(app) as url, aiohttp.ClientSession() as session:
        found = Api(url, app[SIMULATION], session, moment)
        yield found
