"""The past over OTLP: delta points with their own times, apart from every live series."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

import otel_openai_usage
from otel_openai_usage.config.secrets import redact
from otel_openai_usage.errors import ExporterError
from otel_openai_usage.exporters.otlp import batches
from otel_openai_usage.exporters.otlp.transport import Exporter
from otel_openai_usage.exporters.sdk.instruments import SCOPE
from otel_openai_usage.reports.past import Past

MARK = "backfill"
_NANO = 1_000_000_000


@dataclass(slots=True)
class Sent:
    """What became of the points: how many were sent, and of these how many the backend rejected."""

    points: int = 0
    rejected: int = 0
    left_out: int = 0
    notice: str = ""
    """What the backend said about those that it rejected."""


def send(series: Iterable[Past], exporter: Exporter, resource: Resource) -> Sent:
    """Send all of it. Raises ExporterError, with the backend's reason, if a request did not arrive."""
    sent = Sent()
    marked = resource.merge(Resource({MARK: True}))
    scope = InstrumentationScope(SCOPE, otel_openai_usage.__version__)
    for _, group in groupby(series, lambda past: past.instrument.name):
        for metric in _metrics(list(group)):
            data = MetricsData([ResourceMetrics(marked, [ScopeMetrics(scope, [metric], "")], "")])
            for batch in batches.batches(data):
                outcome = exporter.export(batch)
                if not outcome.ok:
                    raise ExporterError(
                        f"sent the past over OTLP: {metric.name} did not arrive, {sent.points} points did;"
                        f" {redact(outcome.error) or 'the backend gave no reason'}"
                    )
                sent.rejected += outcome.rejected
                sent.left_out += outcome.left_out
                sent.notice = sent.notice or redact(outcome.notice)
            sent.points += len(metric.data.data_points)
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
