"""Exporters of other packages, which OTEL_METRICS_EXPORTER names."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from prometheus_client.parser import text_string_to_metric_families

from otel_openai_usage.domain import gen_ai
from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.errors import ConfigError
from otel_openai_usage.exporters.self_instruments import SELF_INSTRUMENTS, SNAPSHOT_INSTRUMENTS
from otel_openai_usage.testing import Harness
from tests.exporters.collectors import Received, http_collector
from tests.exporters.sdk.packages import witness
from tests.real.installed import KEY, Simulator, Surroundings
from tests.testing.test_harness import HOUR, Scene, stage

__all__ = ["stage", "witness"]

Values: TypeAlias = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""By the instrument's name and the attributes."""


def settings(scene: Scene, **more: object) -> dict[str, object]:
    """Return settings of a scene in which the environment chooses the exporters."""
    found = {**scene.settings, "names": {"enabled": True}, **more}
    found.pop("prometheus")
    return {**found, "prometheus": {"port": 0, **dict(more.get("prometheus", {}))}}  # type: ignore[call-overload]


def exports(file: Path) -> list[str]:
    """Return what the witness wrote, one line for each export."""
    return file.read_text().splitlines() if file.exists() else []


def forget(file: Path) -> None:
    """Remove what the witness wrote."""
    file.unlink()


def labels(attributes: Mapping[str, object]) -> frozenset[tuple[str, str]]:
    """Return attributes as Prometheus has them: without dots, and an empty one is none."""
    return frozenset(
        (name.replace(".", "_"), str(value)) for name, value in attributes.items() if value
    )


def of_json(line: str) -> Values:
    """Return the number points of one export by the SDK."""
    found: Values = {}
    for scope in json.loads(line)["resource_metrics"][0]["scope_metrics"]:
        for metric in scope["metrics"]:
            for point in metric["data"]["data_points"]:
                if "value" in point:
                    found[metric["name"], labels(point["attributes"])] = point["value"]
    return found


def of_page(page: bytes) -> Values:
    """Return the samples of a page under the names of their instruments."""
    rows: list[Any] = [*SNAPSHOT_INSTRUMENTS.values(), *SELF_INSTRUMENTS.values()]
    names = {row.prometheus: row.name for row in rows if row.kind != "histogram"}
    found: Values = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            if sample.name in names:
                found[names[sample.name], labels(sample.labels)] = sample.value
    return found


def usage(values: Values) -> Values:
    """Return the values of the snapshot's instruments."""
    return {key: value for key, value in values.items() if key[0] in SNAPSHOT_INSTRUMENTS}


def schemas(received: Received) -> dict[str, str]:
    """Return the schema URL of the scope of each metric with number points."""
    return {
        metric.name: scope.schema_url
        for request in received.requests
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if not metric.HasField("histogram")
    }


def total(values: Values, name: str, wanted: dict[str, str]) -> float:
    """Return the sum of the series of an instrument that have these attributes."""
    return sum(
        value
        for (instrument, attributes), value in values.items()
        if instrument == name and wanted.items() <= dict(attributes).items()
    )


async def test_all_exporters_give_the_same(
    stage: Scene, witness: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scrape, OTLP and any exporter of the SDK have the same names, attributes and values of usage,
    and the same names and attributes of our own health.
    """
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus,otlp,witness")
    with http_collector() as received:
        otlp = {"endpoint": received.url, "protocol": "http/protobuf"}
        attributes = {"profile": "both"}
        harness = Harness(settings(stage, otlp=otlp, attributes=attributes), stage.clock)
        await harness.start()
        await harness.poll()
        stage.clock.time += HOUR
        await harness.poll()
        scraped = of_page(harness.page())
        await harness.close()
        sent: Values = {}
        for name, found, point in received.points():
            number = point.as_int if point.HasField("as_int") else point.as_double
            sent[name, labels(found)] = number
    exported = of_json(exports(witness)[-1])
    assert usage(exported) == usage(sent) == usage(scraped)
    assert len({name for name, _ in usage(exported)}) > 8
    assert exported.keys() - usage(exported).keys() == sent.keys() - usage(sent).keys()
    assert exported.keys() == scraped.keys()
    assert schemas(received) == {
        name: gen_ai.SCHEMA_URL if name in gen_ai.GEN_AI_INSTRUMENTS else "" for name, _ in sent
    }
    by_modality = total(sent, gen_ai.INPUT, {})
    assert by_modality == total(sent, "openai.api.tokens", {"token_type": "input"}) > 0


async def test_an_exporter_that_wants_delta_gets_cumulative(
    stage: Scene, witness: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exporters run with cumulative temporality, whatever they prefer; what they do not name is off."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "witness")
    harness = Harness(settings(stage), stage.clock)
    await harness.start()
    await harness.poll()
    await harness.close()
    last = json.loads(exports(witness)[-1])
    counters = {
        metric["name"]: metric["data"]["aggregation_temporality"]
        for scope in last["resource_metrics"][0]["scope_metrics"]
        for metric in scope["metrics"]
        if "aggregation_temporality" in metric["data"]
    }
    assert set(counters.values()) == {2}
    assert counters.keys() & INSTRUMENTS.keys()
    assert last["resource_metrics"][0]["resource"]["attributes"]["service.instance.id"]


async def test_a_delta_reader_gets_what_is_booked_from_now_on(
    stage: Scene, witness: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader with delta temporality is told nothing of what was counted in an earlier life."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "delta_reader")
    harness = Harness(settings(stage), stage.clock)
    await harness.start()
    await harness.poll()
    await harness.close()
    before = stage.true_requests()
    forget(witness)
    await harness.start()
    stage.clock.time += HOUR
    await harness.poll()
    booked = stage.true_requests() - before
    stage.clock.time += 120
    harness.page()
    await harness.close()
    requests = 0.0
    for line in exports(witness):
        values = of_json(line)
        requests += sum(
            value for (name, _), value in values.items() if name == "openai.api.requests"
        )
    assert requests == booked > 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "RuntimeError: the license has expired"),
        ("missing", "ModuleNotFoundError"),
        ("other", "made a str, which is neither"),
    ],
)
async def test_an_entry_point_that_cannot_be_used(
    stage: Scene, witness: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    """An entry point that raises, or makes something else, is a configuration error with the reason."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", name)
    harness = Harness(settings(stage), stage.clock)
    with pytest.raises(ConfigError, match=f"OTEL_METRICS_EXPORTER: .*{re.escape(said)}"):
        await harness.start()
    assert not exports(witness)


@pytest.mark.real
def test_the_console_prints_one_export(surroundings: Surroundings, simulator: Simulator) -> None:
    """`run --once` with the console alone prints the SDK's JSON and no page."""
    done = surroundings.call(
        "run",
        "--once",
        OTEL_METRICS_EXPORTER="console",
        OPENAI_ADMIN_KEY=KEY,
        OPENAI_BASE_URL=simulator.base_url,
    )
    assert done.returncode == 0, done.stderr
    # The reader exports once when it is flushed, and once when it is shut down.
    (first, _) = json.JSONDecoder().raw_decode(done.stdout)
    assert "openai.api.tokens" in {name for name, _ in of_json(json.dumps(first))}


async def test_an_exporter_that_raises_stops_nobody(
    stage: Scene,
    witness: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its failure is logged once, without a traceback or a secret; the others go on."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus,failing,witness")
    harness = Harness(settings(stage), stage.clock)
    await harness.start()
    await harness.poll()
    assert b"openai_api_requests_total" in harness.page()
    await harness.close()
    assert usage(of_json(exports(witness)[-1]))
    failed = [one for one in caplog.records if getattr(one, "event", "") == "sdk_export_failed"]
    assert [getattr(one, "exporter", "") for one in failed] == ["failing"]
    assert "abcdefghijklmnop" not in getattr(failed[0], "error", "")
    assert failed[0].exc_info is None
