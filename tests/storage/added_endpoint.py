"""A program that knows four more endpoints than its state. Run by test_added_endpoint: `python -m
tests.storage.added_endpoint STATE`.

The rows are added before anything else is imported, as if they were in the table.
"""

import asyncio
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from otel_openai_usage.domain import endpoints
from otel_openai_usage.domain.endpoints import Endpoint, Measure

SEARCHES = Measure("searches", "num_requests", "openai.api.searches")
FRAMES = Measure("frames", "num_frames", "openai.api.searches")


def _row(name: str, measure: Measure, group_by: tuple[str, ...]) -> Endpoint:
    result = f"organization.usage.{name}.result"
    return Endpoint(name, f"usage/{name}", result, (measure,), group_by)


ADDED = [
    _row("known_columns", SEARCHES, ("project_id", "model")),
    _row("new_measure", FRAMES, ("project_id", "model")),
    _row("new_dimension", SEARCHES, ("project_id", "region")),
    _row("new_both", FRAMES, ("project_id", "region")),
]
for _endpoint in ADDED:
    for _table in (endpoints.USAGE_ENDPOINTS, endpoints.ENDPOINTS, endpoints.STORED):
        _table[_endpoint.name] = _endpoint

MIDNIGHT = int(datetime(2026, 11, 2, tzinfo=UTC).timestamp())
HOUR = 3600


@dataclass
class Clock:
    """A clock that a test moves."""

    time: float = MIDNIGHT + 10 * HOUR + 30

    def now(self) -> float:
        """Unix time."""
        return self.time

    def monotonic(self) -> float:
        """The same."""
        return self.time


async def main(path: Path) -> None:
    """Count through a kill, compare each endpoint with the simulated usage, and read the history."""
    from otel_openai_usage.domain.model import Window
    from otel_openai_usage.simulator.lateness import PROMPT
    from otel_openai_usage.simulator.server import ADMIN_KEY, application, running
    from otel_openai_usage.simulator.world import World
    from otel_openai_usage.storage.sqlite.queries import open_queries
    from otel_openai_usage.testing import Harness

    clock = Clock()
    world = World.tiny(4, lateness=PROMPT)
    app = application(world, clock=lambda: datetime.fromtimestamp(clock.time, UTC))
    async with running(app) as url:
        settings = {
            "organizations": [{"admin_key": ADMIN_KEY, "base_url": f"{url}/v1"}],
            "api": {"requests_per_minute": 100_000, "retries": 0},
            "usage": {"group_by": ["project_id", "model", "region"]},
            "state": {"path": str(path)},
            "prometheus": {"enabled": False},
        }
        harness = Harness(settings, clock)
        await harness.start()
        await harness.poll()
        harness.kill()
        clock.time += 2 * HOUR
        await harness.start()
        end = int(clock.time) // 60 * 60
        await harness.poll()
        harness.page()
        clock.time += 90
        page = harness.page().decode()
        await harness.close()
    for endpoint in ADDED:
        truth = world.totals(endpoint.name, Window(MIDNIGHT, end), endpoint.group_by)
        expected = sorted(int(amounts[0]) for amounts in truth.values())
        series = rf"^openai_api_searches_total\{{.*operation=\"{endpoint.name}\".*\}} (\S+)$"
        shown = sorted(int(float(text)) for text in re.findall(series, page, re.MULTILINE))
        assert shown == expected != [], (endpoint.name, shown, expected)
        if "region" in endpoint.group_by:
            assert re.search(rf'operation="{endpoint.name}".*region="region-', page), page
    with open_queries(path) as past:
        operations = {used.group[0] for used in past.usage(MIDNIGHT, end, by=["operation"])}
    assert operations >= {endpoint.name for endpoint in ADDED}
    sys.stdout.write("exact\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
