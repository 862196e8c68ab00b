"""A real OpenTelemetry Collector."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.real.processes import Process, free_port, get
from tests.real.servers import ROOT, program

CONFIG = ROOT / "collector-config.yaml"


class Collector:
    """Runs a configuration with ports of its own in place of the usual ones."""

    def __init__(
        self, folder: Path, config: Path = CONFIG, override: Mapping[str, Any] | None = None
    ) -> None:
        self.grpc = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self.metrics = f"http://127.0.0.1:{(port := free_port())}/metrics"
        ports = {
            "receivers": {
                "otlp": {
                    "protocols": {"grpc": {"endpoint": self.grpc}, "http": {"endpoint": self.http}}
                }
            },
            "exporters": {"prometheus": {"endpoint": f"127.0.0.1:{port}"}},
            "processors": {"batch": {"timeout": "200ms"}},
            "service": {"telemetry": {"metrics": {"level": "none"}}},
        }
        command: list[str | Path] = [
            program("otelcol"),
            "--config",
            config,
            "--config",
            f"yaml:{json.dumps(ports)}",
        ]
        if override:
            command += ["--config", f"yaml:{json.dumps(override)}"]
        self.process = Process(command, folder / "otelcol.log")
        self.process.started(lambda: "Everything is ready" in self.process.output, "the Collector")

    def scrape(self) -> str:
        """What its Prometheus exporter shows."""
        status, body = get(self.metrics)
        assert status == 200, body
        return body


def validate(config: Path) -> subprocess.CompletedProcess[str]:
    """`otelcol validate`."""
    return subprocess.run(
        [program("otelcol"), "validate", "--config", config],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Collector]]:
    """Start a Collector: `collector()` runs collector-config.yaml."""
    started: list[Collector] = []

    def start(**options: Any) -> Collector:
        started.append(Collector(tmp_path_factory.mktemp("collector"), **options))
        return started[-1]

    yield start
    for server in started:
        server.process.stop()
