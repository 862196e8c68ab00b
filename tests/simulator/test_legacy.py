from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest

from otel_openai_usage.domain.model import Width, Window
from otel_openai_usage.providers.openai.legacy.source import Day, parse
from otel_openai_usage.simulator import lateness
from otel_openai_usage.simulator.legacy import ORDINARY_KEY
from otel_openai_usage.simulator.server import ADMIN_KEY, application, running
from otel_openai_usage.simulator.world import World

NOW = datetime(2026, 11, 19, 10, 20, tzinfo=UTC)
DAY = int(datetime(2026, 11, 17, tzinfo=UTC).timestamp())


@pytest.fixture
async def served() -> AsyncIterator[tuple[World, str]]:
    """A world at rest, and where it is served."""
    world = World(5, projects=2, keys=3, users=3, lateness=lateness.PROMPT)
    async with running(application(world, clock=lambda: NOW)) as url:
        yield world, url


async def ask(url: str, path: str, key: str = ORDINARY_KEY) -> tuple[int, bytes]:
    """Status and body of a request with a key."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(url + path, headers={"Authorization": f"Bearer {key}"}) as answer,
    ):
        return answer.status, await answer.read()


async def test_a_day_is_the_worlds_own(served: tuple[World, str]) -> None:
    """The records of a day, and those of its users one by one, add up to what the world used."""
    world, url = served
    totals = world.totals("completions", Window(DAY, DAY + Width.DAY))
    truth = sum(int(amounts[0]) for amounts in totals.values())
    _, body = await ask(url, "/v1/usage?date=2026-11-17")
    whole = Day()
    single = Day()
    parse(body, DAY, whole)
    for person in {dims[-1] for rows in whole.hours.values() for dims in rows}:
        parse(
            (await ask(url, f"/v1/usage?date=2026-11-17&user_public_id={person}"))[1], DAY, single
        )
    assert (
        sum(int(amounts[1]) for rows in whole.hours.values() for amounts in rows.values())
        == truth
        > 0
    )
    assert single.hours == whole.hours


async def test_it_refuses_as_the_real_one(served: tuple[World, str]) -> None:
    """Another key is 401, no date 400, the sixth request of a minute 429."""
    _, url = served
    assert (await ask(url, "/v1/usage?date=2026-11-17", ADMIN_KEY))[0] == 401
    assert (await ask(url, "/v1/usage"))[0] == 400
    assert [(await ask(url, "/v1/organizations/org-x/users"))[0] for _ in range(5)] == [
        200,
        200,
        200,
        200,
        429,
    ]
