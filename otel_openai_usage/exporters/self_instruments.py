"""The instruments of our own health, `otel_openai_usage.*`, as a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics.export import CardinalityLimits

from otel_openai_usage.domain.gen_ai import GEN_AI_INSTRUMENTS
from otel_openai_usage.domain.instruments import INSTRUMENTS, Instrument

CARDINALITY: CardinalityLimits = dict.fromkeys(
    (sdk.Counter, sdk.Histogram, sdk.ObservableCounter, sdk.ObservableGauge), 100_000
)
"""Replaces the SDK's limit of 2,000 attribute sets, beyond which it folds series silently. Many
organizations, endpoints and statuses can be more.
"""

RESTATED = Instrument(
    "otel_openai_usage.restated_pending", "gauge", "", "otel_openai_usage_restated_pending",
    "What a counter shows above OpenAI's own total, until that overtakes it; only where above 0",
    ("organization", "instrument"),
)  # fmt: skip
"""Part of the snapshot, so that it always fits the counters beside it.

`instrument` names the counter; the other attributes are those of the counter's series.
"""

SNAPSHOT_INSTRUMENTS: Mapping[str, Instrument] = {
    **INSTRUMENTS,
    **GEN_AI_INSTRUMENTS,
    RESTATED.name: RESTATED,
}
"""Every instrument that may have points in a snapshot."""

OUTCOMES = ("accepted", "duplicate", "conflicting", "refused")
"""What can happen to an event."""


@dataclass(frozen=True, slots=True)
class SelfInstrument:
    """One instrument of our own health."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    prometheus: str
    description: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_SOURCE = ("organization", "source")
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

SELF_INSTRUMENTS: dict[str, SelfInstrument] = {
    row.name: row
    for row in (
        SelfInstrument(
            "otel_openai_usage.api.requests", "counter", "{request}",
            "otel_openai_usage_api_requests_total",
            "Requests to OpenAI's API, retries included; status is none without an answer",
            ("organization", "endpoint", "status"),
        ),
        SelfInstrument(
            "otel_openai_usage.api.request.duration", "histogram", "s",
            "otel_openai_usage_api_request_duration_seconds",
            "How long OpenAI's API took to answer one request",
            ("organization", "endpoint"), _SECONDS,
        ),
        SelfInstrument(
            "otel_openai_usage.poll.duration", "histogram", "s",
            "otel_openai_usage_poll_duration_seconds",
            "How long one poll of a source took, from the first request until it was stored",
            _SOURCE, _SECONDS,
        ),
        SelfInstrument(
            "otel_openai_usage.poll.lag", "gauge", "s",
            "otel_openai_usage_poll_lag_seconds",
            "How late the last poll of a source began",
            _SOURCE,
        ),
        SelfInstrument(
            "otel_openai_usage.rows_read", "counter", "{row}",
            "otel_openai_usage_rows_read_total",
            "Rows that OpenAI answered",
            _SOURCE,
        ),
        SelfInstrument(
            "otel_openai_usage.series", "gauge", "{series}",
            "otel_openai_usage_series",
            "Series of an instrument: state live has a series of its own, folded is part of its "
            "overflow series",
            ("instrument", "state"),
        ),
        SelfInstrument(
            "otel_openai_usage.records_skipped", "counter", "{record}",
            "otel_openai_usage_records_skipped_total",
            "Records of the legacy usage endpoint that could not be parsed",
            _SOURCE,
        ),
        SelfInstrument(
            "otel_openai_usage.odd_values", "counter", "{value}",
            "otel_openai_usage_odd_values_total",
            "Values in OpenAI's answers that could not be read, by what was done: replaced or "
            "left_out",
            ("organization", "endpoint", "outcome"),
        ),
        SelfInstrument(
            "otel_openai_usage.late_tokens", "counter", "{token}",
            "otel_openai_usage_late_tokens_total",
            "Tokens first seen after their bucket had ended, by how long after: up to 5m, 1h, "
            "3h, 1d, or 7d and more",
            (*_SOURCE, "lag"),
        ),
        SelfInstrument(
            "otel_openai_usage.gap", "counter", "s",
            "otel_openai_usage_gap_seconds_total",
            "Downtime by outcome: healed was read afterwards, lost was too long ago to be read "
            "again",
            (*_SOURCE, "outcome"),
        ),
        SelfInstrument(
            "otel_openai_usage.unpriced_tokens", "counter", "{token}",
            "otel_openai_usage_unpriced_tokens_total",
            "Tokens whose price is not known; they are missing in openai.api.estimated_cost. "
            "reason: unknown_model, no_price (the model is known), no_model",
            ("organization", "model", "reason"),
        ),
        SelfInstrument(
            "otel_openai_usage.unpriced_usage", "counter", "",
            "otel_openai_usage_unpriced_usage_total",
            "Images, characters, seconds of audio, sessions and searches whose price is not "
            "known; they are missing in openai.api.estimated_cost",
            ("organization", "operation", "model", "measure", "reason"),
        ),
        SelfInstrument(
            "otel_openai_usage.estimate_difference", "gauge", "{currency}",
            "otel_openai_usage_estimate_difference",
            "Estimated cost minus what OpenAI billed, of the last UTC day (span day) or the "
            "last seven (week) whose costs have settled",
            ("organization", "span", "currency"),
        ),
        SelfInstrument(
            "otel_openai_usage.exports_failed", "counter", "{export}",
            "otel_openai_usage_exports_failed_total",
            "Exports that did not arrive; the next one has their totals, or newer ones",
            ("exporter",),
        ),
        SelfInstrument(
            "otel_openai_usage.points_rejected", "counter", "{point}",
            "otel_openai_usage_points_rejected_total",
            "Points that the backend rejected of an export that it accepted; they are not sent "
            "again",
            ("exporter",),
        ),
        SelfInstrument(
            "otel_openai_usage.points_left_out", "counter", "{point}",
            "otel_openai_usage_points_left_out_total",
            "Points that could not be encoded and were left out of an export",
            ("exporter",),
        ),
        SelfInstrument(
            "otel_openai_usage.events", "counter", "{event}",
            "otel_openai_usage_events_total",
            "Events received: accepted, duplicate, conflicting or refused",
            ("outcome",),
        ),
        SelfInstrument(
            "otel_openai_usage.snapshot.age", "gauge", "s",
            "otel_openai_usage_snapshot_age_seconds",
            "Time since the published values last changed",
        ),
        SelfInstrument(
            "otel_openai_usage.price_list.age", "gauge", "s",
            "otel_openai_usage_price_list_age_seconds",
            "Age of the price list: of prices.file, or of the newest dated price of the installed "
            "package",
        ),
        SelfInstrument(
            "otel_openai_usage.budget_basis", "gauge", "",
            "otel_openai_usage_budget_basis",
            "1 for the cost that a budget counts: estimated where the bill cannot answer its match",
            ("budget", "basis"),
        ),
        SelfInstrument(
            "otel_openai_usage.history_days_missing", "gauge", "{day}",
            "otel_openai_usage_history_days_missing",
            "Past UTC days that history.first asks for and that are still to be read",
            ("organization",),
        ),
        SelfInstrument(
            "otel_openai_usage.state.size", "gauge", "By",
            "otel_openai_usage_state_size_bytes",
            "Size of the state on disk",
        ),
        SelfInstrument(
            "otel_openai_usage.state.lost", "gauge", "s",
            "otel_openai_usage_state_lost_seconds",
            "Time that is missing in the state, or in doubt (a lost log, an old copy, a changed "
            "file), until `state accept`; else 0",
        ),
        SelfInstrument(
            "otel_openai_usage.state.up", "gauge", "",
            "otel_openai_usage_state_up",
            "1 while the state can be reached, 0 while its database is away",
        ),
        SelfInstrument(
            "otel_openai_usage.state_lost_commits", "gauge", "{commit}",
            "otel_openai_usage_state_lost_commits",
            "Commits of this replica that the database lost in a fail-over, since its start; only "
            "where several may share a state",
        ),
        SelfInstrument(
            "otel_openai_usage.owner", "gauge", "",
            "otel_openai_usage_owner",
            "1 if this replica owns the organization, else 0; only where several may share a state",
            ("organization",),
        ),
        SelfInstrument(
            "otel_openai_usage.build_info", "gauge", "",
            "otel_openai_usage_build_info",
            "1; the version is in its attributes",
            ("version", "python_version"),
        ),
    )
}  # fmt: skip
"""By OpenTelemetry name."""
