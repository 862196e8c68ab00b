"""A soak: fifty times the usual churn for weeks of simulated time, and where the memory goes.

The usual churn replaces 12 % of the attribute sets in a day. Here every set is replaced every four
hours.
"""

import gc
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from otel_openai_usage.domain.source_state import StoredSeries
from otel_openai_usage.testing import Harness

START = 1_793_577_600
HOUR = 3600
SETS = 500
"""Attribute sets that are in use at a time."""


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> float:
        """Unix time."""
        return START + 12 * HOUR + self.passed

    def monotonic(self) -> float:
        """Seconds that have passed."""
        return self.passed


@asynccontextmanager
async def upstream(clock: Clock, users: Callable[[int], range]) -> AsyncIterator[str]:
    """An OpenAI whose every hour is used by the users that `users` names, 100 tokens each."""

    async def usage(request: web.Request) -> web.Response:
        width = {"1m": 60, "1h": HOUR, "1d": 24 * HOUR}[request.query["bucket_width"]]
        start = int(request.query["start_time"])
        end = min(int(request.query["end_time"]), int(clock.now()))
        buckets = []
        for at in range(start, end, width):
            # All usage of an hour is in its first minute.
            hours = range(-(-at // HOUR) * HOUR, at + width, HOUR)
            counts: dict[int, int] = {}
            for hour in hours:
                for user in users(hour):
                    counts[user] = counts.get(user, 0) + 100
            results = [
                {
                    "object": "organization.usage.completions.result",
                    "input_tokens": tokens,
                    "output_tokens": 0,
                    "num_model_requests": 1,
                    "user_id": f"user-{user}",
                    "project_id": "proj_a",
                    "model": "gpt-5",
                }
                for user, tokens in counts.items()
            ]
            bucket = {"object": "bucket", "start_time": at, "end_time": at + width}
            buckets.append(bucket | {"results": results})
        page = {"object": "page", "data": buckets, "has_more": False, "next_page": None}
        return web.json_response(page)

    app = web.Application()
    app.router.add_get("/v1/organization/usage/completions", usage)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await runner.cleanup()


async def soak(path: Path, users: Callable[[int], range], hours: int) -> list[tuple[int, int]]:
    """Resident bytes and stored series after each tenth of so many simulated hours."""
    clock = Clock()
    measured = []
    async with upstream(clock, users) as url:
        settings = {
            "organizations": [{"admin_key": "sk-admin-soak", "base_url": url}],
            "api": {"requests_per_minute": 1_000_000, "retries": 0},
            "usage": {"endpoints": ["completions"], "reconcile": "1d"},
            "costs": {"enabled": False},
            "names": {"enabled": False},
            "limits": {"enabled": False},
            "state": {"path": str(path)},
            "prometheus": {"enabled": False},
        }
        harness = Harness(settings, clock)
        await harness.start()
        for hour in range(hours):
            clock.passed += HOUR
            await harness.poll()
            harness.page()
            if hour % 24 == 0:
                await harness.upkeep()
            if (hour + 1) % (hours // 10) == 0:
                measured.append((resident(), stored_series()))
        await harness.close()
    return measured


def report(measured: list[tuple[int, int]]) -> None:
    """Write the course of memory to the log of the run."""
    for share, (size, series) in enumerate(measured, start=1):
        sys.stderr.write(f"{share * 10} %: {size / 2**20:.0f} MiB, {series} attribute sets\n")


def resident() -> int:
    """Resident memory of this process in bytes, after garbage was collected."""
    gc.collect()
    return int(psutil.Process(os.getpid()).memory_info().rss)


def stored_series() -> int:
    """Attribute sets that are kept in memory."""
    return sum(isinstance(thing, StoredSeries) for thing in gc.get_objects())


@pytest.mark.long
async def test_memory_is_flat_while_the_same_sets_are_used(tmp_path: Path) -> None:
    """Weeks of polls that move every series leave memory where it was: there is no leak."""
    measured = await soak(tmp_path / "state.db", lambda hour: range(SETS), 24 * 20)
    report(measured)
    early = measured[2][0]
    late = measured[-1][0]
    assert late - early < 0.05 * early


@pytest.mark.long
async def test_memory_grows_by_the_attribute_sets_that_are_new(tmp_path: Path) -> None:
    """With fifty times the usual churn, what grows is the number of attribute sets ever used, by
    less than 3 KB each: their totals are kept, because they may return.
    """

    def users(hour: int) -> range:
        generation = (hour - START) // (4 * HOUR)
        return range(generation * SETS, (generation + 1) * SETS)

    measured = await soak(tmp_path / "state.db", users, 24 * 20)
    report(measured)
    more_series = measured[-1][1] - measured[2][1]
    more_bytes = measured[-1][0] - measured[2][0]
    assert more_series > 20 * SETS
    assert more_bytes / more_series < 3000
