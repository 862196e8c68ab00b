"""The Collector's other pattern: it scrapes the exporter."""

import os
from pathlib import Path

import pytest

from tests.deploy.conftest import Rig
from tests.real.collector import validate
from tests.real.installed import Samples, samples
from tests.real.processes import Process, free_port, get
from tests.real.servers import ROOT, program

pytestmark = pytest.mark.real

CONFIG = ROOT / "deploy" / "collector" / "scrape.yaml"


def test_the_configuration_is_valid() -> None:
    """`otelcol validate` has nothing against scrape.yaml."""
    done = validate(CONFIG)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def counters(scrape: Samples) -> Samples:
    """What only grows, and grows slowly enough to be caught."""
    return {key: value for key, value in scrape.items() if key[0].endswith("_total")}


def test_a_collector_that_scrapes_shows_what_we_show(rig: Rig, tmp_path: Path) -> None:
    """Series by series, what it exposes is what the exporter does."""
    port = free_port()
    quick = f"yaml:exporters::prometheus::endpoint: 127.0.0.1:{port}"
    text = (
        CONFIG.read_text()
        .replace("scrape_interval: 30s", "scrape_interval: 1s")
        .replace("timeout: 5s", "timeout: 200ms")
    )
    (tmp_path / "scrape.yaml").write_text(text)
    silent = "yaml:service::telemetry::metrics::level: none"
    command: list[str | Path] = [
        program("otelcol"),
        "--config",
        tmp_path / "scrape.yaml",
        "--config",
        quick,
        "--config",
        silent,
    ]
    process = Process(
        command, tmp_path / "otelcol.log", os.environ | {"OPENAI_EXPORTER": rig.exporter.address}
    )

    def same() -> bool:
        ours = counters(rig.exporter.scrape())
        return bool(ours) and ours == counters(samples(get(f"http://127.0.0.1:{port}/metrics")[1]))

    try:
        process.until(same, "the same series on both sides", 60)
    finally:
        process.stop()
