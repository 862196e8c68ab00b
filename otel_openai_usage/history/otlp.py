"""The past over OTLP: delta points with their own times, apart from every live series."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

import otel_openai_usage
from otel_openai_usage.errors import ExporterError
from otel_openai_usage.history.past import Past
from otel_openai_usage.metrics import batches
from otel_openai_usage.metrics.instruments import SCOPE

MARK = "backfill"
_NANO = 1_000_000_000


def send(series: Iterable[Past], exporter: MetricExporter, resource: Resource) -> int:
    """Send all of it, and say how many points. Raises ExporterError if any did not arrive."""
    sent = 0
    marked = resource.merge(Resource({MARK: True}))
    scope = InstrumentationScope(SCOPE, otel_openai_usage.__version__)
    for _, group in groupby(series, lambda past: past.instrument.name):
        for metric in _metrics(list(group)):
            data = MetricsData([ResourceMetrics(marked, [ScopeMetrics(scope, [metric], "")], "")])
            for batch in batches.batches(data):
                if exporter.export(batch) is not MetricExportResult.SUCCESS:
                    raise ExporterError(
                        f"sent the past over OTLP: {metric.name} did not arrive, {sent} points did; look at the collector"
                    )
            sent += len(metric.data.data_points)
    return sent


def _metrics(series: list[Past]) -> Iterator[Metric]:
    row = series[0].instrument
    points = [
        NumberDataPoint(
            past.attributes,
            start * _NANO if row.kind == "counter" else 0,
            stop * _NANO,
            float(amount) if row.floating else int(amount),
            (),
        )
        for past in series
        for start, stop, amount in past.parts()
        if amount
    ]
    if points:
        data = (
            Gauge(points)
            if row.kind == "gauge"
            else Sum(points, AggregationTemporality.DELTA, is_monotonic=True)
        )
        yield Metric(row.name, row.description, row.unit, data)
