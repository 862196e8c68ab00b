"""Folding to the SDK's cardinality limit, before the SDK does it."""

import logging
from collections import Counter
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter, ObservableGauge
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource

from otel_openai_usage import instrument
from otel_openai_usage.domain.snapshot import Board
from otel_openai_usage.exporters.sdk.cardinality import LimitReader
from tests.exporters.boards import Rows, board, snapshot

NUMBERS = range(50)
TOKENS: Rows = {
    "openai.api.tokens": [
        ({"organization": f"o{number % 2}", "user_id": f"u{number}", "token_type": "input"}, number)
        for number in NUMBERS
    ],
    "openai.api.last_success": [({"organization": f"o{number}"}, 1.0) for number in NUMBERS],
    "openai.api.daily_cost": [
        ({"organization": "o", "date": f"{number}"}, 2.0) for number in NUMBERS
    ],
}


def collected(reader: InMemoryMetricReader, name: str) -> list[Any]:
    """Return the points of an instrument."""
    data = reader.get_metrics_data()
    assert data is not None
    return [
        point
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def provider(shown: Board, limit: int, **more: Any) -> InMemoryMetricReader:
    """Return the reader of a provider with our instruments and a low limit."""
    reader = InMemoryMetricReader(
        cardinality_limits={ObservableCounter: limit, ObservableGauge: limit}
    )
    made = MeterProvider([reader], Resource({}), shutdown_on_exit=False, **more)
    instrument(made, shown)
    return reader


def test_series_are_folded_with_their_organization(caplog: pytest.LogCaptureFixture) -> None:
    """Beyond the limit the overflow series keep what sums need, and the sums stay."""
    reader = provider(board(TOKENS), 10)
    points = collected(reader, "openai.api.tokens")
    assert len(points) == 10
    sums = Counter[str]()
    for point in points:
        sums[point.attributes["organization"]] += point.value
    assert sums == {"o0": sum(NUMBERS[::2]), "o1": sum(NUMBERS[1::2])}
    events = [record for record in caplog.records if "cardinality" in record.message]
    assert Counter(getattr(record, "instrument", "") for record in events) == {
        "openai.api.tokens": 1,
        "openai.api.last_success": 1,
        "openai.api.daily_cost": 1,
    }


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The warning is not repeated at later collections."""
    reader = provider(board({"openai.api.tokens": TOKENS["openai.api.tokens"]}), 10)
    for _ in range(3):
        collected(reader, "openai.api.tokens")
    assert sum("cardinality" in record.message for record in caplog.records) == 1


def test_gauges_that_cannot_be_added_are_left_out() -> None:
    """A time is never folded; the money of days is."""
    reader = provider(board(TOKENS), 10)
    assert {point.value for point in collected(reader, "openai.api.last_success")} == {1.0}
    reader = provider(board(TOKENS), 10)
    assert sum(point.value for point in collected(reader, "openai.api.daily_cost")) == 100.0


def test_the_first_series_stay_and_folded_ones_stay_folded() -> None:
    """A later snapshot in which series are gone gives their room to nobody: the SDK forgets none."""
    shown = board(TOKENS)
    reader = provider(shown, 10)
    first = {point.attributes.get("user_id") for point in collected(reader, "openai.api.tokens")}
    shown.publish(snapshot({"openai.api.tokens": TOKENS["openai.api.tokens"][30:]}, version=2))
    later = collected(reader, "openai.api.tokens")
    assert {point.attributes.get("user_id") for point in later} <= first
    assert sum(point.value for point in later) == sum(NUMBERS[30:])


def test_a_view_may_lower_the_limit() -> None:
    """A View's limit counts as a reader's does."""
    view = View(instrument_name="openai.api.tokens", aggregation_cardinality_limit=6)
    reader = provider(board(TOKENS), 1000, views=[view])
    points = collected(reader, "openai.api.tokens")
    assert len(points) == 6
    assert all("organization" in point.attributes for point in points)


def test_a_high_limit_folds_nothing() -> None:
    """Readers with high limits show every series."""
    reader = provider(board(TOKENS), 100_000)
    assert len(collected(reader, "openai.api.tokens")) == 50


def test_an_unknown_sdk_falls_back(caplog: pytest.LogCaptureFixture) -> None:
    """Where the SDK's private members are others, its documented default counts, said once."""
    made = MeterProvider(shutdown_on_exit=False)
    vars(made).pop("_measurement_consumer")
    limits = LimitReader(made, None)
    with caplog.at_level(logging.WARNING):
        assert [limits.limit("counter"), limits.limit("gauge")] == [2000, 2000]
    assert [getattr(record, "event", "") for record in caplog.records] == ["sdk_limits_unknown"]
    assert LimitReader(made, 7).limit("counter") == 7
