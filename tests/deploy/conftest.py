"""One simulated organization, one exporter, one Collector and two Prometheus servers for all tests
of the bundle.
"""

import itertools
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from otel_openai_metering import Meter
from tests.real.collector import Collector
from tests.real.installed import KEY, Exporter, Simulator, Surroundings
from tests.real.processes import free_port
from tests.real.prometheus import Prometheus
from tests.real.servers import ROOT

RULES = ROOT / "deploy" / "prometheus" / "rules"
PATHS = ("scraped", "collected")
CONFIG = {
    "api": {"requests_per_minute": 6000},
    "usage": {"interval": "2s", "start": "6d"},
    "costs": {"interval": "2s", "days": 31, "reconcile": "31d"},
    "attributes": {"zero_hold": "0s"},
    "otlp": {"interval": "1s"},
}
CUSTOMERS = ("acme", "globex", "initech")


class Application:
    """Reports a response for a customer every now and then, as the helper does."""

    def __init__(self, url: str, folder: Path) -> None:
        self._meter = Meter(url, spool=folder / "spool")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for number in itertools.count():
            usage = {"input_tokens": 100 + number % 7, "output_tokens": 20}
            self._meter.record(
                {"id": f"r{number}", "model": "gpt-4o-2024-08-06", "usage": usage},
                CUSTOMERS[number % 3],
            )
            if self._ended.wait(0.2):
                return

    def stop(self) -> None:
        """Report no more."""
        self._ended.set()
        self._thread.join()
        self._meter.close()


@dataclass(frozen=True, slots=True)
class Rig:
    """Everything that runs. `prometheus` by path: scraping the exporter, or the Collector that it
    sends to.
    """

    simulator: Simulator
    exporter: Exporter
    collector: Collector
    prometheus: dict[str, Prometheus]
    started: tuple[int, int]
    """Unix seconds before and after the exporter's start: it counts from a minute between, six days
    back.
    """


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever comes first waits for the rig, which waits for a minute of the world to end."""
    for item in items:
        if "rig" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(300))


def quick_rules(folder: Path) -> list[Path]:
    """The shipped rules, evaluated every other second."""
    (folder / "recording.yml").write_text(
        re.sub(r"interval: \dm", "interval: 2s", (RULES / "recording.yml").read_text())
    )
    return [folder / "recording.yml", RULES / "alerts.yml"]


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Runs until usage has grown and every rule has recorded something, by either path."""
    folder = tmp_path_factory.mktemp("rig")
    port = free_port()
    (folder / "config.yaml").write_text(
        yaml.safe_dump(CONFIG | {"events": {"enabled": True, "port": port}})
    )
    surroundings = Surroundings(folder)
    simulator = Simulator(surroundings)
    collector = Collector(folder)
    before = int(time.time())
    variables = {
        "OPENAI_ADMIN_KEY": KEY,
        "OPENAI_BASE_URL": simulator.base_url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.grpc}",
    }
    exporter = Exporter(surroundings, ["-c", folder / "config.yaml"], variables, "/readyz")
    started = (before, int(time.time()))
    application = Application(f"http://localhost:{port}", folder)
    targets = {
        "scraped": exporter.address,
        "collected": collector.metrics.removeprefix("http://").removesuffix("/metrics"),
    }
    prometheus = {}
    for path in PATHS:
        (self_metrics := folder / path).mkdir()
        prometheus[path] = Prometheus(
            self_metrics, [targets[path]], rules=quick_rules(self_metrics)
        )
    running = Rig(simulator, exporter, collector, prometheus, started)
    try:
        for server in prometheus.values():
            server.wait_for(
                "sum(openai:tokens:increase1d) > 0 and on () (count(openai:cost_per_million_tokens:7d) > 0)",
                seconds=150,
            )
            server.wait_for("sum(openai:cost_forecast:month) > 0", seconds=30)
        yield running
    finally:
        application.stop()
        for process in (
            *(server.process for server in prometheus.values()),
            exporter.process,
            collector.process,
            simulator.process,
        ):
            process.stop()
