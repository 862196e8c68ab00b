"""Boards made by hand, and what the stock exporters make of them."""

from collections.abc import Mapping, Sequence

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter, ObservableGauge
from opentelemetry.sdk.metrics.export import CardinalityLimits, InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from otel_openai_usage import instrument
from otel_openai_usage.domain.snapshot import AttributeValue, Board, Point, Series, Snapshot

LIMITS: CardinalityLimits = {ObservableCounter: 100_000, ObservableGauge: 100_000}
START = 1_763_000_000_000_000_000
TIME = 1_763_700_000_000_000_000

Rows = Mapping[str, Sequence[tuple[Mapping[str, AttributeValue], int | float]]]


def snapshot(rows: Rows, version: int = 1) -> Snapshot:
    """Return a snapshot of these rows."""
    points = {
        name: tuple(Point(Series(attributes, START), value) for attributes, value in some)
        for name, some in rows.items()
    }
    return Snapshot(version, TIME, points)


def board(rows: Rows) -> Board:
    """Return a board whose snapshot has these rows."""
    made = Board()
    made.publish(snapshot(rows))
    return made


def stock_prometheus(shown: Board) -> tuple[bytes, bytes]:
    """Return what the stock exporter prints: text, and OpenMetrics without its end."""
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(
        disable_target_info=True,
        scope_info_enabled=False,
        registry=registry,
        cardinality_limits=LIMITS,
    )
    provider = MeterProvider([reader], Resource({}), shutdown_on_exit=False)
    instrument(provider, shown)
    text = generate_latest(registry)
    openmetrics = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
    provider.shutdown()
    return text, openmetrics.removesuffix(b"# EOF\n")


def stock_data(shown: Board) -> MetricsData:
    """Return what the SDK hands to any exporter for `instrument()`."""
    reader = InMemoryMetricReader(cardinality_limits=LIMITS)
    provider = MeterProvider([reader], Resource({}), shutdown_on_exit=False)
    instrument(provider, shown)
    data = reader.get_metrics_data()
    provider.shutdown()
    return data or MetricsData([])


ORGANIZATION: Rows = {
    "openai.api.tokens": [
        ({"organization": "acme", "model": "gpt-5", "operation": "completions", "project_id": "proj_1", "project_name": 'The "Lab"\n',
          "user_id": "user-1", "api_key_id": "key_1", "api_key_name": "ci\\nightly", "batch": "false", "token_type": "input"}, 12_345_678),
        ({"organization": "acme", "model": "gpt-5", "operation": "completions", "project_id": "proj_1", "project_name": 'The "Lab"\n',
          "user_id": "user-1", "api_key_id": "key_1", "api_key_name": "ci\\nightly", "batch": "false", "token_type": "output"}, 999_999),
        ({"organization": "acme", "model": "text-embedding-3", "operation": "embeddings", "token_type": "input"}, 0),
        ({"organization": "acme", "otel.metric.overflow": True, "operation": "completions", "token_type": "input"}, 7),
    ],
    "openai.api.requests": [({"organization": "acme", "operation": "completions"}, 1_000_000)],
    "openai.api.audio": [({"organization": "acme", "operation": "audio_transcriptions"}, 61)],
    "openai.api.vector_store.usage": [({"organization": "acme", "project_id": "proj_1"}, 5_000_000_000)],
    "openai.api.daily_cost": [({"organization": "acme", "date": "2026-11-21", "line_item": "GPT-5, input", "currency": "usd"}, 12.34)],
    "openai.api.cost": [({"organization": "acme", "currency": "usd"}, 1234567.89)],
    "openai.api.up": [({"organization": "acme", "source": "usage/completions"}, 1), ({"organization": "acme", "source": "costs"}, 0)],
    "openai.api.last_success": [({"organization": "acme", "source": "usage/completions"}, 1_763_700_000.5)],
}  # fmt: skip
