"""The past over OTLP: delta points with their own times, apart from every live series."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from otel_openai_usage.errors import ExporterError
from otel_openai_usage.reports.formats import SeriesProtocol

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric, MetricsData, NumberDataPoint
    from opentelemetry.sdk.resources import Resource

    from otel_openai_usage.domain.instruments import Instrument
    from otel_openai_usage.exporters.otlp.exporter import Exporter
    from otel_openai_usage.reports.past import PastSeries

MARK = "backfill"
"""The resource attribute that marks past points, unlike live ones."""
_NANO = 1_000_000_000


@dataclass(slots=True)
class Outcome:
    """How many points were sent, how many of them the backend rejected, and how many could not be
    encoded.
    """

    points: int = 0
    rejected: int = 0
    left_out: int = 0
    notice: str = ""
    """The backend's reason for rejecting points."""


def send(series: "Iterable[PastSeries]", exporter: "Exporter", resource: "Resource") -> Outcome:
    """Send all series. Raises ExporterError, with the backend's reason, if a request fails."""
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    import otel_openai_usage
    from otel_openai_usage.exporters.otlp.request import MAX_POINTS
    from otel_openai_usage.exporters.sdk.instruments import SCOPE

    outcome = Outcome()
    marked = resource.merge(Resource({MARK: True}))
    scope = InstrumentationScope(SCOPE, otel_openai_usage.__version__)
    for instrument, group in groupby(series, lambda past: past.instrument):
        points = _points(instrument, group)
        # In parts, because the encoder has the bytes of all points in memory.
        for first in range(0, len(points), MAX_POINTS):
            part = points[first : first + MAX_POINTS]
            metric = _metric(instrument, part)
            scope_metrics = ScopeMetrics(scope, [metric], "")
            data = MetricsData([ResourceMetrics(marked, [scope_metrics], "")])
            _send_metric(data, metric.name, exporter, outcome)
            outcome.points += len(part)
    return outcome


def _points(instrument: "Instrument", series: "Iterable[PastSeries]") -> "list[NumberDataPoint]":
    """A point for each part of the series that is not 0."""
    from opentelemetry.sdk.metrics.export import NumberDataPoint

    is_counter = instrument.kind == "counter"
    points: list[NumberDataPoint] = []
    for past in series:
        for start, end, amount in past.parts():
            # A delta of 0 adds nothing.
            if amount:
                start_time = start * _NANO if is_counter else 0
                value = float(amount) if instrument.floating else int(amount)
                point = NumberDataPoint(past.attributes, start_time, end * _NANO, value, ())
                points.append(point)
    return points


def _metric(instrument: "Instrument", points: "list[NumberDataPoint]") -> "Metric":
    """Points as a gauge, or as a sum of deltas."""
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Metric, Sum

    def metric(data: Gauge | Sum) -> Metric:
        return Metric(instrument.name, instrument.description, instrument.unit, data)

    if instrument.kind == "gauge":
        return metric(Gauge(points))
    return metric(Sum(points, AggregationTemporality.DELTA, is_monotonic=True))


def _send_metric(data: "MetricsData", name: str, exporter: "Exporter", outcome: Outcome) -> None:
    """Send a metric in as many requests as it needs. Raises ExporterError."""
    from otel_openai_usage.config.secrets import redact
    from otel_openai_usage.exporters.otlp.left_out import LeftOut
    from otel_openai_usage.exporters.otlp.sdk_metrics import sdk_requests

    left_out = LeftOut()
    for request in sdk_requests(data, left_out):
        answer = exporter.export(request.body)
        if not answer.ok:
            reason = redact(answer.error) or "the backend gave no reason"
            raise ExporterError(
                f"sent the past over OTLP: {name} did not arrive, {outcome.points} points did;"
                f" {reason}"
            )
        outcome.rejected += answer.rejected
        outcome.notice = outcome.notice or redact(answer.notice)
    outcome.left_out += left_out.points


FORMAT = SeriesProtocol(summary="Send it over OTLP with its own times.", send=send)
