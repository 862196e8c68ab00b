"""The same over HTTP: the real client asks the simulated API, which answers late, wrongly, in
halves or not at all.
"""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from otel_openai_usage.domain.endpoints import ENDPOINTS
from otel_openai_usage.engine.ports import Source
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.key import Key
from otel_openai_usage.providers.openai.sources import UsageSource
from otel_openai_usage.simulator.faults import Fault, Faults
from otel_openai_usage.simulator.server import ADMIN_KEY, application, running
from otel_openai_usage.simulator.world import World
from tests.conservation.rig import HASTE, HOUR, MINUTE, Life, Options

FAILING = [
    Fault("rate_limit", probability=0.1, retry_after=7), Fault("rate_limit", probability=0.05), Fault("error", probability=0.1),
    Fault("html", probability=0.05), Fault("truncated", probability=0.05), Fault("cut", probability=0.05),
    Fault("disconnect", probability=0.05), Fault("bare_error", probability=0.1),
]  # fmt: skip
ODD = [
    Fault("duplicate_rows", probability=0.3), Fault("money_string", probability=0.3), Fault("unknown_fields", probability=0.3),
    Fault("integral_floats", probability=0.3), Fault("empty_more", path="costs", probability=0.3), Fault("no_iso", probability=0.3),
]  # fmt: skip
NAMELESS = [
    Fault("null_dims", path="usage", probability=0.2),
    Fault("money_long_string", path="costs", probability=0.2),
]


class WiredLife(Life):
    """A Life that reads over HTTP."""

    def __init__(self, path: Path, client: Client, world: World, faults: Faults) -> None:
        self.client = client
        self.faults = faults
        super().__init__(
            path,
            world,
            endpoints=("completions", "web_search_calls", "costs"),
            options=Options(settle=30 * MINUTE),
        )

    def source(self, endpoint: str) -> Source:
        """The real one."""
        return UsageSource(self.client, ENDPOINTS[endpoint])

    def calm(self) -> None:
        """No more trouble."""
        super().calm()
        self.faults.clear()


@pytest.fixture
async def life(tmp_path: Path) -> AsyncIterator[WiredLife]:
    """An exporter and the simulated API it asks; waiting costs the time of the world only."""
    world = World.tiny(3, lateness=HASTE)
    faults = Faults(rng=random.Random(5))
    async with AsyncExitStack() as stack:
        lives: list[WiredLife] = []

        def now() -> datetime:
            return datetime.fromtimestamp(lives[0].time.true, UTC)

        url = await stack.enter_async_context(running(application(world, faults=faults, clock=now)))

        async def sleep(seconds: float) -> None:
            lives[0].time.pass_(seconds)

        client = Client(
            name="default",
            base_url=f"{url}/v1",
            key=Key(ADMIN_KEY),
            requests_per_minute=10**6,
            retries=2,
            sleep=sleep,
            rng=random.Random(6),
        )
        await stack.enter_async_context(client)
        lives.append(WiredLife(tmp_path / "state.db", client, world, faults))
        yield lives[0]


@pytest.mark.parametrize("faults", [FAILING, ODD, NAMELESS], ids=["failing", "odd", "nameless"])
async def test_a_wire_full_of_trouble_ends_exact(life: WiredLife, faults: list[Fault]) -> None:
    """429 with and without Retry-After, 5xx, proxies' pages, halves of answers, odd spellings, rows
    without a key: all ends exact.
    """
    for fault in faults:
        life.faults.add(fault)
    await life.live(7 * HOUR, pauses=(300, 900), kills=0.03)
    await life.end()
