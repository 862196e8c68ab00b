"""`otel_openai_usage.Poller`: the exporter within an application, on its own MeterProvider."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import View
from prometheus_client import CollectorRegistry, generate_latest

import otel_openai_usage
from otel_openai_usage.errors import ConfigError, StateInUse
from otel_openai_usage.simulator.lateness import PROMPT
from otel_openai_usage.simulator.server import ADMIN_KEY, application, running
from otel_openai_usage.simulator.world import World
from tests.testing.test_harness import ROOT, requests

LIMITS: Any = {ObservableCounter: 100_000}
DELTA: Any = {ObservableCounter: AggregationTemporality.DELTA}


@pytest.fixture
async def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Settings for a small simulated organization, in real time."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus,otlp,zipkin")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    app = application(World.tiny(5, lateness=PROMPT), clock=lambda: datetime.now(UTC))
    async with running(app) as url:
        yield {
            "organizations": [{"admin_key": ADMIN_KEY, "base_url": f"{url}/v1"}],
            "api": {"requests_per_minute": 100_000, "retries": 0},
            "usage": {"interval": "1s"},
            "attributes": {"zero_hold": "0s"},
            "state": {"path": str(tmp_path / "state.db")},
        }


def numbers(data: MetricsData | None, name: str) -> list[Any]:
    """The points of an instrument."""
    return [
        point
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


async def test_stock_readers_and_views(settings: Any) -> None:
    """The stock Prometheus reader, an in-memory reader and a View show what OpenAI counted, and
    neither the environment's exporters nor a listener of ours play a part.
    """
    registry = CollectorRegistry()
    stock = PrometheusMetricReader(registry=registry, cardinality_limits=LIMITS)
    memory = InMemoryMetricReader(cardinality_limits=LIMITS)
    view = View(instrument_name="openai.api.requests", attribute_keys={"organization"})
    provider = MeterProvider([stock, memory], views=[view], shutdown_on_exit=False)
    async with otel_openai_usage.Poller(settings) as poller:
        poller.instrument(provider)
        await poller.polled()
        page = await asyncio.to_thread(generate_latest, registry)
        (requested,) = numbers(memory.get_metrics_data(), "openai.api.requests")
        tokens = numbers(memory.get_metrics_data(), "openai.api.tokens")
    assert requests(page) == requested.value > 0
    assert dict(requested.attributes) == {"organization": "default"}
    assert {"model", "token_type", "project_name"} <= tokens[0].attributes.keys()
    assert b"openai_api_up{" in page
    provider.shutdown()


async def test_delta_since_start(settings: Any) -> None:
    """With since_start a delta reader of a second life gets nothing of the first one's usage."""
    async with otel_openai_usage.Poller(settings) as poller:
        await poller.polled()
        poller.instrument(MeterProvider(shutdown_on_exit=False))
    absolute = InMemoryMetricReader(DELTA, cardinality_limits=LIMITS)
    since = InMemoryMetricReader(DELTA, cardinality_limits=LIMITS)
    async with otel_openai_usage.Poller(settings) as poller:
        poller.instrument(MeterProvider([absolute], shutdown_on_exit=False))
        poller.instrument(MeterProvider([since], shutdown_on_exit=False), since_start=True)
        everything = numbers(absolute.get_metrics_data(), "openai.api.tokens")
        nothing = numbers(since.get_metrics_data(), "openai.api.tokens")
    assert sum(point.value for point in everything) > 0
    assert {point.value for point in nothing} == {0}


class Keep(MetricExporter):
    """An exporter that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.exports: list[MetricsData] = []

    def export(self, metrics_data: MetricsData, timeout_millis: float = 0, **kwargs: Any) -> Any:
        self.exports.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **kwargs: Any) -> None:
        pass


async def test_the_last_values_stay_after_the_end(settings: Any) -> None:
    """A provider that is shut down after the poller exports what was polled last."""
    keep = Keep()
    provider = MeterProvider(
        [PeriodicExportingMetricReader(keep, 3_600_000)], shutdown_on_exit=False
    )
    async with otel_openai_usage.Poller(settings) as poller:
        poller.instrument(provider)
        await poller.polled()
    await asyncio.to_thread(provider.shutdown)
    assert numbers(keep.exports[-1], "openai.api.requests")


async def test_what_cannot_be_used_is_said(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings without a key, a state in use and a poller that does not run are refused."""
    monkeypatch.delenv("OPENAI_ADMIN_KEY", raising=False)
    with pytest.raises(ConfigError, match="admin_key"):
        otel_openai_usage.Poller({"state": settings["state"]})
    poller = otel_openai_usage.Poller(settings)
    with pytest.raises(RuntimeError, match="not running"):
        poller.instrument(MeterProvider(shutdown_on_exit=False))
    async with poller:
        with pytest.raises(StateInUse):
            await otel_openai_usage.Poller(settings).__aenter__()


async def test_the_example_runs(settings: Any, tmp_path: Path) -> None:
    """examples/meter_provider.py prints metrics of an application's own provider."""
    organization = settings["organizations"][0]
    example = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples" / "meter_provider.py"),
        env={
            "PYTHONPATH": str(ROOT),
            "OPENAI_ADMIN_KEY": organization["admin_key"],
            "OPENAI_BASE_URL": organization["base_url"],
            "HOME": str(tmp_path),
            "ONCE": "true",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    printed, said = await asyncio.wait_for(example.communicate(), 60)
    assert example.returncode == 0, said.decode()
    assert b'"name": "openai.api.tokens"' in printed
    assert b'"service.name": "my-application"' in printed
