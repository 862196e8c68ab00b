"""A series that is new after a page was served begins at 0, whichever poll finds it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from otel_openai_usage.testing import Harness

NOW = 1_795_305_700
"""2026-11-22, 00:01:40 UTC."""
MIDNIGHT = NOW - 100


class Time:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> float:
        return NOW + self.passed

    def monotonic(self) -> float:
        return self.passed


class Api:
    """An API with one endpoint. It answers an error status, or the tokens of one minute."""

    def __init__(self, minute: int = MIDNIGHT) -> None:
        self.minute = minute
        self.status = 200
        self.tokens: dict[str, int] = {}

    async def answer(self, request: web.Request) -> web.Response:
        if self.status != 200:
            return web.json_response({"error": {"message": "no"}}, status=self.status)
        start = int(request.query["start_time"])
        results = [
            {
                "object": "organization.usage.embeddings.result",
                "input_tokens": tokens,
                "num_model_requests": 1,
                "project_id": project,
            }
            for project, tokens in self.tokens.items()
        ]
        buckets = [
            {
                "object": "bucket",
                "start_time": self.minute,
                "end_time": self.minute + 60,
                "results": results,
            }
        ]
        data = buckets if start <= self.minute else []
        return web.json_response(
            {"object": "page", "data": data, "has_more": False, "next_page": None}
        )


class Bench:
    """An exporter of one endpoint, with a clock that the test sets."""

    def __init__(self, url: str, path: Path, api: Api) -> None:
        self.api = api
        self.time = Time()
        self.given: dict[str, Any] = {
            "organizations": [{"admin_key": "sk-admin-x", "base_url": url}],
            "api": {"retries": 0, "requests_per_minute": 100_000},
            "usage": {"endpoints": ["embeddings"], "group_by": ["project_id"]},
            "costs": {"enabled": False},
            "limits": {"enabled": False},
            "names": {"enabled": False},
            "prices": {"enabled": False},
            "prometheus": {"enabled": False},
            "state": {"path": str(path)},
        }
        self.harness = Harness(self.given, self.time)

    def shown(self) -> dict[str, float]:
        """Return the input tokens by project of a new page."""
        return tokens(self.harness.page())

    async def poll(self, later: float = 0) -> None:
        self.time.passed += later
        await self.harness.poll()

    async def restart(self) -> None:
        self.harness.kill()
        self.harness = Harness(self.given, self.time)
        await self.harness.start()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A running exporter on a new state."""
    async with _bench(tmp_path) as made:
        yield made


@asynccontextmanager
async def _bench(path: Path) -> AsyncIterator[Bench]:
    api = Api()
    async with api_server(api) as url:
        made = Bench(url, path / "state.db", api)
        await made.harness.start()
        try:
            yield made
        finally:
            await made.harness.close()


@asynccontextmanager
async def api_server(api: Api) -> AsyncIterator[str]:
    """Serve the API, and yield its base URL."""
    app = web.Application()
    app.router.add_get("/v1/organization/usage/embeddings", api.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def tokens(page: bytes) -> dict[str, float]:
    """Return the tokens of a page by project."""
    found = {}
    for line in page.decode().splitlines():
        if line.startswith("openai_api_tokens_total{"):
            project = line.split('project_id="')[1].split('"')[0]
            found[project] = float(line.split()[-1])
    return found


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("status", [404, 503])
async def test_an_endpoint_that_works_late_begins_at_zero(
    bench: Bench, status: int, restarted: bool
) -> None:
    """A series of an endpoint that works only after a page was served is 0 first, also if another
    process served that page.
    """
    bench.api.status = status
    bench.api.tokens = {"a": 500}
    await bench.poll()
    assert bench.shown() == {}
    if restarted:
        await bench.restart()
    bench.api.status = 200
    await bench.poll(60)
    assert bench.shown() == {"a": 0}
    await bench.poll(59)
    assert bench.shown() == {"a": 0}
    await bench.poll(2)
    assert bench.shown() == {"a": 500}


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_series_from_before_the_first_page_has_its_value_at_once(
    bench: Bench, restarted: bool
) -> None:
    """The first page has the values, whatever polls and processes came before it: nobody can miss a
    0.
    """
    bench.api.tokens = {"a": 500}
    await bench.poll()
    bench.api.tokens = {"a": 500, "b": 7}
    if restarted:
        await bench.restart()
    await bench.poll(60)
    assert bench.shown() == {"a": 500, "b": 7}


async def test_a_series_that_is_published_after_the_first_page_begins_at_zero(
    bench: Bench,
) -> None:
    """A series that was committed before the first page, but is not on it, begins at 0."""
    bench.api.tokens = {"a": 500}
    exporter = bench.harness._exporter
    assert exporter
    for loop in exporter.loops:
        await loop.once()
    exporter.prometheus.page()
    assert bench.shown() == {"a": 0}


async def test_a_restart_during_the_zero_continues_with_zero(bench: Bench) -> None:
    """A restart while a series is 0 restarts that time. After it had its value, it keeps it."""
    assert bench.shown() == {}
    bench.api.tokens = {"a": 500}
    await bench.poll()
    assert bench.shown() == {"a": 0}
    await bench.restart()
    assert bench.shown() == {"a": 0}
    await bench.poll(61)
    assert bench.shown() == {"a": 500}
    await bench.restart()
    assert bench.shown() == {"a": 500}


async def test_an_export_by_otlp_counts_as_a_page(bench: Bench) -> None:
    """After an attempt to export by OTLP, a new series begins at 0."""
    exporter = bench.harness._exporter
    assert exporter
    exporter.recorder.before_page()
    bench.api.tokens = {"a": 500}
    await bench.poll()
    points = exporter.board.current().points["openai.api.tokens"]
    assert [point.value for point in points] == [0]
