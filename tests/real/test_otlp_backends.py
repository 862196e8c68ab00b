"""What real backends make of our OTLP: a Prometheus 3 and a Collector."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_openai_usage.config import Otlp
from otel_openai_usage.exporters.otlp.exporter import Outcome, exporter
from otel_openai_usage.exporters.otlp.left_out import LeftOut
from otel_openai_usage.exporters.otlp.sdk_metrics import sdk_requests
from otel_openai_usage.exporters.otlp.sender import Sender
from otel_openai_usage.exporters.resource import resource
from otel_openai_usage.exporters.self_metrics import SelfMetrics
from tests.exporters.boards import Rows, board
from tests.real.collector import Collector
from tests.real.installed import samples
from tests.real.processes import wait_for
from tests.real.prometheus import Prometheus
from tests.real.servers import ROOT

pytestmark = pytest.mark.real

STATE = "6f2c8d3e-0000-4000-8000-000000000001"
TWO_ORGANIZATIONS: Rows = {
    "openai.api.up": [
        ({"organization": "acme", "source": "costs"}, 1),
        ({"organization": "globex", "source": "costs"}, 0),
    ],
    "openai.api.tokens": [
        ({"organization": "acme", "model": "m", "token_type": "input"}, 5),
        ({"organization": "globex", "model": "m", "token_type": "input"}, 7),
    ],
}


def send(url: str, protocol: str) -> None:
    """Send two organizations once, as a process of its own would, with the organization in the
    resource.
    """
    shown = board(TWO_ORGANIZATIONS)
    who = resource(STATE, {})
    self_metrics = SelfMetrics(shown, who, exporters=["otlp"])
    sender = Sender(
        exporter(Otlp.model_validate({"endpoint": url, "protocol": protocol})),
        shown,
        self_metrics,
        who,
        interval=3600,
        to_resource=["organization"],
    )
    assert sender.flush()
    sender.shutdown()
    self_metrics.shutdown()


@pytest.fixture
def receiver(prometheus: Callable[..., Prometheus]) -> Callable[..., tuple[Prometheus, str]]:
    """Start a Prometheus 3 that takes OTLP; the server, and the address for metrics."""

    def start(*flags: str, **settings: Any) -> tuple[Prometheus, str]:
        server = prometheus(
            [],
            server="prometheus3",
            flags=["--web.enable-otlp-receiver", *flags],
            settings=settings,
        )
        return server, f"{server.url}/api/v1/otlp/v1/metrics"

    return start


def by_instance(found: Mapping[frozenset[tuple[str, str]], float]) -> dict[str, float]:
    """Values by the label `instance`, which is the resource's service.instance.id."""
    return {dict(labels)["instance"]: value for labels, value in found.items()}


def test_prometheus_keeps_organizations_apart(
    receiver: Callable[..., tuple[Prometheus, str]],
) -> None:
    """An organization that moved to the resource is an instance of its own, before and after a
    restart: none hides another, and one that is down reads as down.
    """
    server, url = receiver()
    for _ in range(2):
        send(url, "http/protobuf")
    up = by_instance(server.wait_for("openai_api_up", lambda found: len(found) > 1))
    tokens = by_instance(server.query("openai_api_tokens_total"))
    assert sorted(up.values()) == [0, 1]
    assert {instance: 5 if value else 7 for instance, value in up.items()} == tokens
    health = by_instance(server.query("otel_openai_usage_exports_failed_total"))
    assert health.keys() == {STATE}
    names = {
        dict(labels)["instance"]: dict(labels).get("organization")
        for labels in server.query("target_info")
    }
    assert {names[instance]: value for instance, value in up.items()} == {"acme": 1, "globex": 0}


def test_prometheus_promotes_the_organization(
    receiver: Callable[..., tuple[Prometheus, str]],
) -> None:
    """With promote_resource_attributes it is a label again, as in a scrape."""
    server, url = receiver(otlp={"promote_resource_attributes": ["organization"]})
    send(url, "http/protobuf")
    found = server.wait_for("sum by (organization) (openai_api_up)")
    assert found == {
        frozenset({("organization", "acme")}): 1,
        frozenset({("organization", "globex")}): 0,
    }


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_collector_keeps_organizations_apart(
    collector: Callable[..., Collector], protocol: str
) -> None:
    """collector-config.yaml shows both organizations, with their label, whatever they share."""
    server = collector()
    send(
        f"http://{server.grpc}" if protocol == "grpc" else f"http://{server.http}/v1/metrics",
        protocol,
    )
    found = wait_for(lambda: samples(server.scrape(), "openai_api_up"), "samples")
    up = {dict(labels).get("organization"): value for (_, labels), value in found.items()}
    assert up == {"acme": 1, "globex": 0}
    tokens = samples(server.scrape(), "openai_api_tokens_total")
    assert sorted(tokens.values()) == [5, 7]


DAY = 86_400_000_000_000


def send_past(url: str) -> Outcome:
    """Send what three past days used, as `backfill --otlp` does."""
    now = time.time_ns()
    points = [
        NumberDataPoint({"model": "m"}, now - (ago + 1) * DAY, now - ago * DAY, 5, ())
        for ago in (3, 2, 1)
    ]
    data = Sum(points, AggregationTemporality.DELTA, is_monotonic=True)
    metric = Metric("openai.api.tokens", "", "", data)
    scopes = [ScopeMetrics(InstrumentationScope("x"), [metric], "")]
    sender = exporter(Otlp(endpoint=url, protocol="http/protobuf"))
    try:
        past = MetricsData([ResourceMetrics(Resource({}), scopes, "")])
        (request,) = sdk_requests(past, LeftOut())
        return sender.export(request.body)
    finally:
        sender.shutdown()


def test_a_refusal_of_prometheus_is_passed_on(
    receiver: Callable[..., tuple[Prometheus, str]],
) -> None:
    """Prometheus 3 refuses deltas unless a feature is enabled, and we say why."""
    _, url = receiver()
    outcome = send_past(url)
    assert not outcome.ok
    assert "invalid temporality" in outcome.error


def test_prometheus_takes_the_past_as_documented(
    receiver: Callable[..., tuple[Prometheus, str]],
) -> None:
    """With the flags and the setting of docs/history.md the past arrives exactly."""
    told = (ROOT / "docs" / "history.md").read_text()
    flag = "--enable-feature=otlp-native-delta-ingestion"
    assert flag in told
    (block,) = re.findall(r"```yaml\n(storage:\n.*?)```", told, re.DOTALL)
    server, url = receiver(flag, **yaml.safe_load(block))
    outcome = send_past(url)
    assert (outcome.ok, outcome.error, outcome.rejected) == (True, "", 0)
    found = server.wait_for("sum_over_time(openai_api_tokens_total[5d])")
    assert list(found.values()) == [15]
