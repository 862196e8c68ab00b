"""The exporter's own health, `otel_openai_usage.*`: a table of rows, and the object that the rooms
above report to.
"""

import concurrent.futures.thread  # noqa: F401  # before the SDK arms its fork hooks, else a forked child hangs
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Observation
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    CardinalityLimits,
    InMemoryMetricReader,
    MetricReader,
    MetricsData,
)
from opentelemetry.sdk.resources import Resource

import otel_openai_usage
from otel_openai_usage.domain.instruments import INSTRUMENTS, Instrument
from otel_openai_usage.domain.reconciliation import LAGS
from otel_openai_usage.domain.snapshot import AttributeValue, Board
from otel_openai_usage.exporters.sdk.instruments import SCOPE

HEALTH_SCOPE = f"{SCOPE}.health"

CARDINALITY: CardinalityLimits = dict.fromkeys(
    (sdk.Counter, sdk.Histogram, sdk.ObservableCounter, sdk.ObservableGauge), 100_000
)  # fmt: skip
"""Instead of the SDK's silent 2000: with many organizations, endpoints and statuses we can have
more.
"""

RESTATED = Instrument(
    "otel_openai_usage.restated_pending", "gauge", "", "otel_openai_usage_restated_pending",
    "What a counter shows above OpenAI's own total, until that overtakes it; only where above 0",
    ("organization", "instrument"),
)  # fmt: skip
"""A point of the Snapshot, so that it always fits the counters beside it: `instrument` and that
series' own attributes.
"""

SHOWN: Mapping[str, Instrument] = {**INSTRUMENTS, RESTATED.name: RESTATED}
"""Every instrument whose points a Snapshot may hold."""


@dataclass(frozen=True, slots=True)
class Row:
    """One instrument of our own health. Counters and histograms are told, gauges are looked up."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    prometheus: str
    description: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_WHO = ("organization", "source")
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

OWN: dict[str, Row] = {
    row.name: row
    for row in (
        Row("otel_openai_usage.api.requests", "counter", "{request}", "otel_openai_usage_api_requests_total",
            "Requests to OpenAI's API, retries included; status is none without an answer", ("organization", "endpoint", "status")),
        Row("otel_openai_usage.api.request.duration", "histogram", "s", "otel_openai_usage_api_request_duration_seconds",
            "How long OpenAI's API took to answer one request", ("organization", "endpoint"), _SECONDS),
        Row("otel_openai_usage.poll.duration", "histogram", "s", "otel_openai_usage_poll_duration_seconds",
            "How long one poll of a source took, from the first request until it was kept", _WHO, _SECONDS),
        Row("otel_openai_usage.poll.lag", "gauge", "s", "otel_openai_usage_poll_lag_seconds",
            "How late the last poll of a source began", _WHO),
        Row("otel_openai_usage.rows_read", "counter", "{row}", "otel_openai_usage_rows_read_total",
            "Rows that OpenAI answered", _WHO),
        Row("otel_openai_usage.series", "gauge", "{series}", "otel_openai_usage_series",
            "Series of an instrument: state live is shown as itself, folded is part of its overflow series", ("instrument", "state")),
        Row("otel_openai_usage.records_skipped", "counter", "{record}", "otel_openai_usage_records_skipped_total",
            "Records of the legacy usage endpoint that could not be understood", _WHO),
        Row("otel_openai_usage.odd_values", "counter", "{value}", "otel_openai_usage_odd_values_total",
            "Values in OpenAI's answers that could not be read, by what became of them: replaced or left_out",
            ("organization", "endpoint", "outcome")),
        Row("otel_openai_usage.late_tokens", "counter", "{token}", "otel_openai_usage_late_tokens_total",
            "Tokens first seen after their bucket had ended, by how long after: up to 5m, 1h, 3h, 1d, or 7d and more", (*_WHO, "lag")),
        Row("otel_openai_usage.gap", "counter", "s", "otel_openai_usage_gap_seconds_total",
            "Downtime by what became of it: healed was read afterwards, lost lay beyond what is read again", (*_WHO, "outcome")),
        Row("otel_openai_usage.unpriced_tokens", "counter", "{token}", "otel_openai_usage_unpriced_tokens_total",
            "Tokens of models whose price is not known; they are missing in openai.api.estimated_cost", ("organization", "model")),
        Row("otel_openai_usage.estimate_difference", "gauge", "{currency}", "otel_openai_usage_estimate_difference",
            "Estimated cost minus what OpenAI billed, of the last UTC day (span day) or the last seven (week) whose costs have settled",
            ("organization", "span", "currency")),
        Row("otel_openai_usage.exports_failed", "counter", "{export}", "otel_openai_usage_exports_failed_total",
            "Exports that did not arrive; the next one makes them good", ("exporter",)),
        Row("otel_openai_usage.points_rejected", "counter", "{point}", "otel_openai_usage_points_rejected_total",
            "Points that the backend refused of an export that it took; they are not sent again", ("exporter",)),
        Row("otel_openai_usage.points_left_out", "counter", "{point}", "otel_openai_usage_points_left_out_total",
            "Points that could not be encoded and were left out of an export", ("exporter",)),
        Row("otel_openai_usage.events", "counter", "{event}", "otel_openai_usage_events_total",
            "Events received: accepted, duplicate, conflicting or refused", ("outcome",)),
        Row("otel_openai_usage.snapshot.age", "gauge", "s", "otel_openai_usage_snapshot_age_seconds",
            "Time since anything that is shown changed"),
        Row("otel_openai_usage.state.size", "gauge", "By", "otel_openai_usage_state_size_bytes",
            "Size of the state on disk"),
        Row("otel_openai_usage.state.lost", "gauge", "s", "otel_openai_usage_state_lost_seconds",
            "Time that is missing in the state, or in doubt (a lost log, an old copy, a changed file), until `state accept`; else 0"),
        Row("otel_openai_usage.build_info", "gauge", "", "otel_openai_usage_build_info",
            "1; the version is in its attributes", ("version", "python_version")),
    )
}  # fmt: skip
"""By OpenTelemetry name. `RESTATED` belongs to the family, but lives on the Board."""

OUTCOMES = ("accepted", "duplicate", "conflicting", "refused")

_Labels = tuple[str, ...]


class SelfMetrics:
    """Our own health, told by whoever knows. Safe in any thread; no method waits for anything.

    `state_size` and `state_lost` are asked at each collection and may not block for long. `now` gives Unix seconds.
    """

    def __init__(
        self,
        board: Board,
        resource: Resource,
        readers: Iterable[MetricReader] = (),
        *,
        exporters: Iterable[str] = (),
        state_size: Callable[[], int] | None = None,
        state_lost: Callable[[], int] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reader = InMemoryMetricReader(cardinality_limits=CARDINALITY)
        self._provider = MeterProvider(
            [*readers, self._reader],
            resource,
            # None are exported. Without it the SDK reads OTEL_METRICS_EXEMPLAR_FILTER, and raises
            # for a value that it does not know.
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        self._board = board
        self._now = now
        self._asked: dict[str, Callable[[], float | None]] = {f"{SCOPE}.snapshot.age": self._age}
        if state_size:
            self._asked[f"{SCOPE}.state.size"] = state_size
        if state_lost:
            self._asked[f"{SCOPE}.state.lost"] = state_lost
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._gauges: dict[str, dict[_Labels, float]] = {}
        self._create()
        self._set("build_info", (otel_openai_usage.__version__, platform.python_version()), 1)
        for exporter in exporters:
            self._add("exports_failed", 0, exporter)
            self._add("points_rejected", 0, exporter)
            self._add("points_left_out", 0, exporter)

    def expect(self, organization: str, sources: Sequence[str]) -> None:
        """Show at 0 what can go wrong with these sources, so that the first time it does is an
        increase.
        """
        for source in sources:
            self._add("rows_read", 0, organization, source)
            for outcome in ("healed", "lost"):
                self._add("gap", 0, organization, source, outcome)
            for lag in LAGS.values() if source.startswith("usage/") else ():
                self._add("late_tokens", 0, organization, source, lag)

    def expect_events(self) -> None:
        """Show at 0 what can become of events."""
        for outcome in OUTCOMES:
            self._add("events", 0, outcome)

    def request(self, organization: str, endpoint: str, status: int | None, seconds: float) -> None:
        """One request was answered, or was not (`status` None)."""
        self._add(
            "api.requests", 1, organization, endpoint, "none" if status is None else str(status)
        )
        self._record("api.request.duration", seconds, organization, endpoint)

    def poll_began(self, organization: str, source: str, lag: float) -> None:
        """A poll began `lag` seconds after it was due."""
        self._set("poll.lag", (organization, source), lag)

    def polled(self, organization: str, source: str, seconds: float, rows: int) -> None:
        """A poll ended after `seconds` and had read `rows`."""
        self._record("poll.duration", seconds, organization, source)
        self._add("rows_read", rows, organization, source)

    def skipped(self, organization: str, source: str, records: int) -> None:
        """Records could not be understood."""
        self._add("records_skipped", records, organization, source)

    def odd_values(self, organization: str, endpoint: str, outcome: str, count: int) -> None:
        """Values of an answer could not be read; `outcome` is `replaced` or `left_out`."""
        self._add("odd_values", count, organization, endpoint, outcome)

    def late(self, organization: str, source: str, lag: str, tokens: int) -> None:
        """Tokens were first seen that long (a value of `LAGS`) after their bucket had ended."""
        self._add("late_tokens", tokens, organization, source, lag)

    def gap(
        self, organization: str, source: str, outcome: Literal["healed", "lost"], seconds: float
    ) -> None:
        """Downtime was made good, or could not be."""
        self._add("gap", seconds, organization, source, outcome)

    def unpriced(self, organization: str, model: str, tokens: int) -> None:
        """Tokens were booked that have no known price."""
        self._add("unpriced_tokens", tokens, organization, model)

    def estimate_difference(self, organization: str, span: str, amount: float) -> None:
        """Estimated cost of a span of settled days was `amount` US dollars above what OpenAI
        billed.
        """
        self._set("estimate_difference", (organization, span, "usd"), amount)

    def export_failed(self, exporter: str) -> None:
        """An export did not arrive."""
        self._add("exports_failed", 1, exporter)

    def points_rejected(self, exporter: str, points: int) -> None:
        """A backend refused so many points of an export that it took."""
        self._add("points_rejected", points, exporter)

    def points_left_out(self, exporter: str, points: int) -> None:
        """So many points could not be encoded."""
        self._add("points_left_out", points, exporter)

    def event(
        self, outcome: Literal["accepted", "duplicate", "conflicting", "refused"], count: int = 1
    ) -> None:
        """Events came in."""
        self._add("events", count, outcome)

    def series(self, instrument: str, live: int, folded: int) -> None:
        """An instrument has so many series."""
        self._set("series", (instrument, "live"), live)
        self._set("series", (instrument, "folded"), folded)

    def collect(self) -> MetricsData | None:
        """All of it, for OTLP. None when there is nothing (OTEL_SDK_DISABLED)."""
        return self._reader.get_metrics_data()

    def shutdown(self) -> None:
        """Let go of the readers."""
        self._provider.shutdown()

    def _create(self) -> None:
        meter = self._provider.get_meter(HEALTH_SCOPE, otel_openai_usage.__version__)
        for row in OWN.values():
            if row.kind == "counter":
                self._counters[row.name] = meter.create_counter(row.name, row.unit, row.description)
            elif row.kind == "histogram":
                self._histograms[row.name] = meter.create_histogram(
                    row.name,
                    row.unit,
                    row.description,
                    explicit_bucket_boundaries_advisory=row.buckets,
                )
            else:
                self._gauges[row.name] = {}
                meter.create_observable_gauge(
                    row.name, [self._look(row)], row.unit, row.description
                )

    def _look(self, row: Row) -> Callable[[CallbackOptions], list[Observation]]:
        ask = self._asked.get(row.name)
        told = self._gauges[row.name]

        def callback(_: CallbackOptions) -> list[Observation]:
            if ask is None:
                return [
                    Observation(value, _attributes(row, labels))
                    for labels, value in list(told.items())
                ]
            value = ask()
            return [] if value is None else [Observation(value)]

        return callback

    def _age(self) -> float | None:
        published = self._board.current().time
        return max(0.0, self._now() - published / 1e9) if published else None

    def _add(self, name: str, value: float, *labels: str) -> None:
        row = OWN[f"{SCOPE}.{name}"]
        self._counters[row.name].add(value, _attributes(row, labels))

    def _record(self, name: str, value: float, *labels: str) -> None:
        row = OWN[f"{SCOPE}.{name}"]
        self._histograms[row.name].record(value, _attributes(row, labels))

    def _set(self, name: str, labels: _Labels, value: float) -> None:
        self._gauges[f"{SCOPE}.{name}"][labels] = value


def _attributes(row: Row, labels: Sequence[str]) -> dict[str, AttributeValue]:
    return dict(zip(row.attributes, labels, strict=True))
