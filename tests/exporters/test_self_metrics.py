"""The exporter's own health."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.resources import Resource
from prometheus_client.parser import text_string_to_metric_families

from otel_openai_usage.domain.pricing import Unpriced
from otel_openai_usage.domain.snapshot import Board, Point, Series, Snapshot
from otel_openai_usage.exporters.prometheus.reader import PrometheusReader
from otel_openai_usage.exporters.resource import resource
from otel_openai_usage.exporters.self_instruments import RESTATED, SELF_INSTRUMENTS
from otel_openai_usage.exporters.self_metrics import SelfMetrics
from tests.exporters.boards import ORGANIZATION, TIME, board


class Health:
    """Our own health, read through Prometheus."""

    def __init__(self, who: Resource | None = None) -> None:
        self.board = board(ORGANIZATION)
        self.reader = PrometheusReader(self.board)
        self.self_metrics = SelfMetrics(
            self.board,
            who or Resource({"service.name": "test", "service.instance.id": "one"}),
            [self.reader],
            exporters=["otlp"],
            state_size=lambda: 4096,
            state_lost=lambda: 90,
            state_up=lambda: 1,
            state_lost_commits=lambda: 0,
            now=lambda: TIME / 1e9 + 30,
        )

    def samples(self) -> dict[tuple[str, ...], float]:
        """Every sample of the page: name and label values in the order of the label names."""
        text = b"".join(self.reader.page()).decode()
        families = text_string_to_metric_families(text)
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture
def health() -> Iterator[Health]:
    """Health that is shut down afterwards."""
    made = Health()
    yield made
    made.self_metrics.shutdown()


def test_every_method_changes_its_metric(health: Health) -> None:
    """Each method of SelfMetrics changes the sample that it is named for."""
    self_metrics = health.self_metrics
    self_metrics.request("acme", "usage/completions", 200, 0.2)
    self_metrics.request("acme", "usage/completions", 200, 0.3)
    self_metrics.request("acme", "costs", None, 30.0)
    self_metrics.poll_began("acme", "usage/completions", 0.25)
    self_metrics.polled("acme", "usage/completions", 1.5, 7)
    self_metrics.late("acme", "usage/completions", "3h", 12)
    self_metrics.gap("acme", "costs", "lost", 60.0)
    self_metrics.unpriced("acme", "completions", Unpriced("gpt-9", "tokens", "unknown_model"), 5)
    self_metrics.unpriced("acme", "images", Unpriced("dall-e-3", "images", "no_price"), 4)
    self_metrics.estimate_difference("acme", "week", -1.5)
    self_metrics.export_failed("otlp")
    self_metrics.event("accepted", 3)
    self_metrics.series("openai.api.tokens", 100, 2)
    seen = health.samples()
    prefix = "otel_openai_usage_"
    expected = {
        ("api_requests_total", "usage/completions", "acme", "200"): 2,
        ("api_requests_total", "costs", "acme", "none"): 1,
        ("api_request_duration_seconds_count", "usage/completions", "acme"): 2,
        ("poll_duration_seconds_sum", "acme", "usage/completions"): 1.5,
        ("poll_duration_seconds_bucket", "1.0", "acme", "usage/completions"): 0,
        ("poll_duration_seconds_bucket", "2.5", "acme", "usage/completions"): 1,
        ("poll_lag_seconds", "acme", "usage/completions"): 0.25,
        ("rows_read_total", "acme", "usage/completions"): 7,
        ("late_tokens_total", "3h", "acme", "usage/completions"): 12,
        ("gap_seconds_total", "acme", "lost", "costs"): 60,
        ("unpriced_tokens_total", "gpt-9", "acme", "unknown_model"): 5,
        ("unpriced_usage_total", "images", "dall-e-3", "images", "acme", "no_price"): 4,
        ("estimate_difference", "usd", "acme", "week"): -1.5,
        ("exports_failed_total", "otlp"): 1,
        ("events_total", "accepted"): 3,
        ("series", "openai.api.tokens", "live"): 100,
        ("series", "openai.api.tokens", "folded"): 2,
        ("snapshot_age_seconds",): 30,
        ("state_size_bytes",): 4096,
        ("state_lost_seconds",): 90,
        ("state_up",): 1,
        ("state_lost_commits",): 0,
    }
    for (name, *labels), value in expected.items():
        assert seen[(prefix + name, *labels)] == value


def test_error_counters_are_zero_before_the_first_error(health: Health) -> None:
    """Sources, exporters and events have their error counters from the start."""
    health.self_metrics.expect("acme", ["usage/completions", "costs"])
    health.self_metrics.expect_events()
    zeros = {
        key
        for key, value in health.samples().items()
        if value == 0 and key[0].startswith("otel_openai_usage")
    }
    assert {
        ("otel_openai_usage_late_tokens_total", lag, "acme", "usage/completions")
        for lag in ("5m", "1h", "3h", "1d", "7d")
    } <= zeros
    assert not any(
        key[0] == "otel_openai_usage_late_tokens_total" and "costs" in key for key in zeros
    )
    assert {
        ("otel_openai_usage_gap_seconds_total", "acme", outcome, "costs")
        for outcome in ("healed", "lost")
    } <= zeros
    assert ("otel_openai_usage_exports_failed_total", "otlp") in zeros
    assert {
        ("otel_openai_usage_events_total", o)
        for o in ("accepted", "duplicate", "conflicting", "refused")
    } <= zeros


def test_names_in_the_table_are_the_exporters(health: Health) -> None:
    """The stock exporter prints every row, under the name in its column `prometheus`."""
    self_metrics = health.self_metrics
    self_metrics.request("acme", "costs", 200, 0.1)
    self_metrics.poll_began("acme", "costs", 0.0)
    self_metrics.polled("acme", "costs", 0.1, 1)
    self_metrics.expect("acme", ["usage/completions"])
    self_metrics.expect_events()
    self_metrics.unpriced("acme", "completions", Unpriced("m", "tokens", "no_price"), 1)
    self_metrics.unpriced("acme", "images", Unpriced("m", "images", "no_price"), 1)
    self_metrics.estimate_difference("acme", "day", 1.0)
    self_metrics.history_days_missing("acme", 3)
    self_metrics.budget_basis("search", "billed")
    self_metrics.skipped("acme", "legacy", 1)
    self_metrics.odd_values("acme", "costs", "replaced", 1)
    self_metrics.series("openai.api.tokens", 1, 0)
    self_metrics.owner("acme", is_owner=True)
    self_metrics.price_list_dated = lambda: 0.0
    names = {
        name.removesuffix("_count")
        for name, *_ in health.samples()
        if name.startswith("otel_openai_usage_")
    }
    assert {row.prometheus for row in SELF_INSTRUMENTS.values()} <= names


def test_more_than_2000_sets_are_not_folded(health: Health) -> None:
    """2,500 organizations have a request counter each: the SDK's default limit is raised."""
    for number in range(2_500):
        health.self_metrics.request(f"org-{number}", "costs", 200, 0.1)
    seen = health.samples()
    assert sum(1 for key in seen if key[0] == "otel_openai_usage_api_requests_total") == 2_500
    assert not any("otel_metric_overflow" in key for key in seen)


def test_pending_restatements_come_with_the_counters(health: Health) -> None:
    """`restated_pending` is part of the snapshot and has the labels of its counter's series."""
    series = Series({"organization": "acme", "instrument": "openai.api.tokens", "model": "gpt-5"})
    health.board.publish(Snapshot(2, TIME, {RESTATED.name: (Point(series, 42),)}))
    line = b'otel_openai_usage_restated_pending{instrument="openai.api.tokens",model="gpt-5",organization="acme"} 42.0\n'
    assert line in b"".join(health.reader.page())


def test_target_info_and_process(health: Health) -> None:
    """The page has our resource, and what the process uses."""
    seen = health.samples()
    assert seen["target_info", "one", "test"] == 1
    assert seen["process_start_time_seconds",] > 0
    assert seen["process_open_fds",] > 0


def test_without_a_snapshot_there_is_no_age() -> None:
    """`snapshot_age` is exported from the first snapshot on."""
    shown = Board()
    reader = PrometheusReader(shown)
    self_metrics = SelfMetrics(shown, Resource({}), [reader])
    assert b"snapshot_age" not in b"".join(reader.page())
    self_metrics.shutdown()


def test_a_state_that_cannot_be_measured_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A scrape of a state in a folder that cannot be read has no size, and logs no trace."""

    def unreadable() -> int:
        raise PermissionError(13, "Permission denied")

    reader = PrometheusReader(Board())
    SelfMetrics(Board(), Resource({}), [reader], state_size=unreadable)
    text = b"".join(reader.page()).decode()
    assert "otel_openai_usage_build_info" in text
    assert "otel_openai_usage_state_size" not in text
    assert caplog.records == []


def test_a_forked_child_can_start_threads() -> None:
    """A child forked after our MeterProvider was made can start threads and end."""
    program = """
import os
from opentelemetry.sdk.resources import Resource
from otel_openai_usage.domain.snapshot import Board
from otel_openai_usage.exporters.self_metrics import SelfMetrics
metrics = SelfMetrics(Board(), Resource({}))
child = os.fork()
if not child:
    from concurrent.futures import ThreadPoolExecutor
    os._exit(ThreadPoolExecutor(1).submit(lambda: 7).result(5))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stdout == "7\n"


def test_the_resource() -> None:
    """Configured attributes override the defaults and keep their type; `target_info` has them."""
    made = resource("id-1", {"service.name": "a", "zone": 2, "paid": True})
    assert {
        key: made.attributes[key] for key in ("service.name", "zone", "paid", "service.instance.id")
    } == {
        "service.name": "a",
        "zone": 2,
        "paid": True,
        "service.instance.id": "id-1",
    }
    assert resource("id-1", {}).attributes["service.name"] == "otel-openai-usage"
    health = Health(made)
    (info,) = (values for name, *values in health.samples() if name == "target_info")
    health.self_metrics.shutdown()
    assert {"a", "2", "true", "id-1"} <= set(info)


@pytest.mark.parametrize("value", ["nonsense", "ALWAYS_ON"])
def test_a_variable_of_the_sdk_is_not_read(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exemplar filter that the SDK does not know raises nothing: we export no exemplars."""
    monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", value)
    self_metrics = SelfMetrics(Board(), Resource({}))
    assert self_metrics.collect()
    self_metrics.shutdown()
