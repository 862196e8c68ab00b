"""Our own health, `otel_openai_usage.*`: what the other packages report is counted here."""

# Imported before the SDK registers its fork hooks: otherwise a forked child hangs.
import concurrent.futures.thread  # noqa: F401
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader, MetricsData
from opentelemetry.sdk.resources import Resource

import otel_openai_usage
from otel_openai_usage.domain.pricing import Unpriced
from otel_openai_usage.domain.reconciliation import LAGS
from otel_openai_usage.domain.snapshot import AttributeValue, Board
from otel_openai_usage.exporters.sdk.instruments import SCOPE
from otel_openai_usage.exporters.self_instruments import (
    CARDINALITY,
    OUTCOMES,
    SELF_INSTRUMENTS,
    SelfInstrument,
)

HEALTH_SCOPE = f"{SCOPE}.health"

_Values = tuple[str, ...]
"""The values of an instrument's attributes, in the order of its row."""


class SelfMetrics:
    """Counts our own health. Safe in any thread; no method waits for anything.

    `state_size` (bytes), `state_lost` (seconds) and `state_up` (1 or 0) are called at each
    collection, and may not block for long. After an OSError their gauge is left out. `now` returns
    Unix seconds. `providers` are further MeterProviders that get the same instruments and values;
    whoever made them shuts them down.
    """

    def __init__(
        self,
        board: Board,
        resource: Resource,
        readers: Iterable[MetricReader] = (),
        *,
        exporters: Iterable[str] = (),
        providers: Sequence[MeterProvider] = (),
        state_size: Callable[[], int] | None = None,
        state_lost: Callable[[], int] | None = None,
        state_up: Callable[[], int] | None = None,
        state_lost_commits: Callable[[], int] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reader = InMemoryMetricReader(cardinality_limits=CARDINALITY)
        self._provider = MeterProvider(
            [*readers, self._reader],
            resource,
            # We export no exemplars. Without this argument the SDK reads
            # OTEL_METRICS_EXEMPLAR_FILTER, and raises for a value that it does not know.
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        self._board = board
        self._now = now
        self._measured: dict[str, Callable[[], float | None]] = {
            f"{SCOPE}.snapshot.age": self._snapshot_age,
            f"{SCOPE}.price_list.age": self._price_list_age,
        }
        self.price_list_dated: Callable[[], float] | None = None
        """Returns how new the price list is, in Unix seconds."""
        """Gauges that are measured at each collection."""
        if state_size:
            self._measured[f"{SCOPE}.state.size"] = state_size
        if state_lost:
            self._measured[f"{SCOPE}.state.lost"] = state_lost
        if state_up:
            self._measured[f"{SCOPE}.state.up"] = state_up
        if state_lost_commits:
            self._measured[f"{SCOPE}.state_lost_commits"] = state_lost_commits
        self._counters: dict[str, list[Counter]] = {}
        self._histograms: dict[str, list[Histogram]] = {}
        self._gauges: dict[str, dict[_Values, float]] = {}
        """The last value of each series of all other gauges."""
        for row in SELF_INSTRUMENTS.values():
            if row.kind == "gauge":
                self._gauges[row.name] = {}
        for provider in (self._provider, *providers):
            self._create_instruments(provider)
        self._set("build_info", (otel_openai_usage.__version__, platform.python_version()), 1)
        for exporter in exporters:
            self._add("exports_failed", 0, exporter)
            self._add("points_rejected", 0, exporter)
            self._add("points_left_out", 0, exporter)

    def expect(self, organization: str, sources: Sequence[str]) -> None:
        """Export error counters of these sources as 0, so that the first error is an increase."""
        for source in sources:
            self._add("rows_read", 0, organization, source)
            for outcome in ("healed", "lost"):
                self._add("gap", 0, organization, source, outcome)
            if source.startswith("usage/"):
                for lag in LAGS.values():
                    self._add("late_tokens", 0, organization, source, lag)

    def expect_events(self) -> None:
        """Export every outcome of events as 0."""
        for outcome in OUTCOMES:
            self._add("events", 0, outcome)

    def request(self, organization: str, endpoint: str, status: int | None, seconds: float) -> None:
        """Count a request to OpenAI; `status` is None if there was no answer."""
        status_text = "none" if status is None else str(status)
        self._add("api.requests", 1, organization, endpoint, status_text)
        self._record("api.request.duration", seconds, organization, endpoint)

    def poll_began(self, organization: str, source: str, lag: float) -> None:
        """Report a poll that began `lag` seconds after it was due."""
        self._set("poll.lag", (organization, source), lag)

    def polled(self, organization: str, source: str, seconds: float, rows: int) -> None:
        """Count a poll that took `seconds` and read `rows`."""
        self._record("poll.duration", seconds, organization, source)
        self._add("rows_read", rows, organization, source)

    def skipped(self, organization: str, source: str, records: int) -> None:
        """Count records that could not be parsed."""
        self._add("records_skipped", records, organization, source)

    def odd_values(self, organization: str, endpoint: str, outcome: str, count: int) -> None:
        """Count values that could not be read; `outcome` is `replaced` or `left_out`."""
        self._add("odd_values", count, organization, endpoint, outcome)

    def late(self, organization: str, source: str, lag: str, tokens: int) -> None:
        """Count tokens that were first seen `lag` (a value of `LAGS`) after their bucket ended."""
        self._add("late_tokens", tokens, organization, source, lag)

    def gap(
        self, organization: str, source: str, outcome: Literal["healed", "lost"], seconds: float
    ) -> None:
        """Count seconds of downtime that were read afterwards, or that cannot be read any more."""
        self._add("gap", seconds, organization, source, outcome)

    def unpriced(self, organization: str, operation: str, unpriced: Unpriced, amount: int) -> None:
        """Count recorded tokens of a model without a known price."""
        model, measure, reason = unpriced
        if measure == "tokens":
            self._add("unpriced_tokens", amount, organization, model, reason)
        else:
            self._add("unpriced_usage", amount, organization, operation, model, measure, reason)

    def history_days_missing(self, organization: str, days: int) -> None:
        """Report how many past days are still to be read."""
        self._set("history_days_missing", (organization,), days)

    def budget_basis(self, budget: str, basis: str) -> None:
        """Report which cost a budget counts."""
        self._set("budget_basis", (budget, basis), 1)

    def estimate_difference(self, organization: str, span: str, amount: float) -> None:
        """Report estimated minus billed cost of settled days, in US dollars."""
        self._set("estimate_difference", (organization, span, "usd"), amount)

    def owner(self, organization: str, *, is_owner: bool) -> None:
        """Report whether this replica owns an organization."""
        self._set("owner", (organization,), int(is_owner))

    def export_failed(self, exporter: str) -> None:
        """Count an export that did not arrive."""
        self._add("exports_failed", 1, exporter)

    def points_rejected(self, exporter: str, points: int) -> None:
        """Count points that a backend rejected of an export that it accepted."""
        self._add("points_rejected", points, exporter)

    def points_left_out(self, exporter: str, points: int) -> None:
        """Count points that could not be encoded."""
        self._add("points_left_out", points, exporter)

    def event(
        self, outcome: Literal["accepted", "duplicate", "conflicting", "refused"], count: int = 1
    ) -> None:
        """Count received events."""
        self._add("events", count, outcome)

    def series(self, instrument: str, live: int, folded: int) -> None:
        """Report how many series an instrument has."""
        self._set("series", (instrument, "live"), live)
        self._set("series", (instrument, "folded"), folded)

    def collect(self) -> MetricsData | None:
        """Return everything, for OTLP. None if the SDK is disabled (OTEL_SDK_DISABLED)."""
        return self._reader.get_metrics_data()

    def shutdown(self) -> None:
        """Shut the readers down."""
        self._provider.shutdown()

    def _create_instruments(self, provider: MeterProvider) -> None:
        meter = provider.get_meter(HEALTH_SCOPE, otel_openai_usage.__version__)
        for row in SELF_INSTRUMENTS.values():
            if row.kind == "counter":
                counter = meter.create_counter(row.name, row.unit, row.description)
                self._counters.setdefault(row.name, []).append(counter)
            elif row.kind == "histogram":
                self._histograms.setdefault(row.name, []).append(_histogram(meter, row))
            else:
                callbacks = [self._gauge_callback(row)]
                meter.create_observable_gauge(row.name, callbacks, row.unit, row.description)

    def _gauge_callback(
        self, row: SelfInstrument
    ) -> Callable[[CallbackOptions], list[Observation]]:
        measure = self._measured.get(row.name)
        if measure is not None:
            return lambda _: _measurement(measure)
        series = self._gauges[row.name]

        def observe(_: CallbackOptions) -> list[Observation]:
            # A copy, because other threads add series.
            pairs = list(series.items())
            return [Observation(value, _attributes(row, values)) for values, value in pairs]

        return observe

    def _snapshot_age(self) -> float | None:
        """Return the seconds since the current snapshot was published, None before the first."""
        published = self._board.current().time
        if not published:
            return None
        return max(0.0, self._now() - published / 1e9)

    def _price_list_age(self) -> float | None:
        """Return how old the price list is, in seconds; None without one."""
        if self.price_list_dated is None:
            return None
        return max(0.0, self._now() - self.price_list_dated())

    def _add(self, name: str, value: float, *values: str) -> None:
        row = SELF_INSTRUMENTS[f"{SCOPE}.{name}"]
        for counter in self._counters[row.name]:
            counter.add(value, _attributes(row, values))

    def _record(self, name: str, value: float, *values: str) -> None:
        row = SELF_INSTRUMENTS[f"{SCOPE}.{name}"]
        for histogram in self._histograms[row.name]:
            histogram.record(value, _attributes(row, values))

    def _set(self, name: str, values: _Values, value: float) -> None:
        self._gauges[f"{SCOPE}.{name}"][values] = value


def _histogram(meter: Meter, row: SelfInstrument) -> Histogram:
    return meter.create_histogram(
        row.name,
        row.unit,
        row.description,
        explicit_bucket_boundaries_advisory=row.buckets,
    )


def _measurement(measure: Callable[[], float | None]) -> list[Observation]:
    try:
        value = measure()
    except OSError:
        # The SDK would log a trace for each scrape. /readyz and the polls say what is wrong.
        return []
    return [] if value is None else [Observation(value)]


def _attributes(row: SelfInstrument, values: Sequence[str]) -> dict[str, AttributeValue]:
    return dict(zip(row.attributes, values, strict=True))
