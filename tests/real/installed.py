"""The installed command as processes: a simulated OpenAI organization, and exporters that read it."""

import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest
from prometheus_client.parser import text_string_to_metric_families

from otel_openai_usage.domain.model import Window
from tests.real.processes import Process, free_port, get

COMMAND = Path(sys.executable).with_name("otel-openai-usage")
KEY = "sk-admin-simulated"
SEED = 11

Samples: TypeAlias = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str, prefix: str = "openai_") -> Samples:
    """Name and labels to value. What a Collector adds (job, instance, otel_scope_*) and empty
    labels are left out.
    """
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(prefix):
                key = (
                    sample.name,
                    frozenset(
                        item for item in sample.labels.items() if item[1] and not _added(item[0])
                    ),
                )
                assert key not in found, f"{key} stands twice"
                found[key] = sample.value
    return found


def _added(label: str) -> bool:
    return label in {"job", "instance"} or label.startswith("otel_scope_")


class Surroundings:
    """An environment with nothing of ours in it: a home of its own, and only what is given."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def env(self, **variables: str) -> dict[str, str]:
        """The environment of a process."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "COLUMNS": "160",
            **variables,
        }

    def call(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return subprocess.run(
            [COMMAND, *map(str, arguments)],
            env=self.env(**variables),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


class Simulator:
    """A simulated OpenAI organization on a port of its own. What it used shows when the minute
    ends.
    """

    def __init__(self, surroundings: Surroundings, options: Sequence[str] = ()) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.url}/v1"
        self.process = Process(
            [
                COMMAND,
                "simulate",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                "--seed",
                str(SEED),
                *options,
            ],
            surroundings.home / "simulate.log",
            surroundings.env(),
        )
        self.process.ready(f"{self.base_url}/organization/costs?start_time=1", status=401)
        self.post("lateness", {"preset": "prompt"})

    def post(self, control: str, document: Mapping[str, object]) -> None:
        """Tell the simulation how to behave: `faults`, `lateness` or `keys`."""
        request = urllib.request.Request(
            f"{self.url}/simulator/{control}", json.dumps(document).encode(), method="POST"
        )
        urllib.request.urlopen(request, timeout=10).close()

    def totals(
        self, endpoint: str, window: Window, *group_by: str
    ) -> dict[tuple[str | None, ...], dict[str, int]]:
        """What was truly used in a window: values of `group_by` to amounts by measure."""
        asked = [
            ("kind", endpoint),
            ("start", window.start),
            ("end", window.end),
            *(("group_by", name) for name in group_by),
        ]
        status, body = get(f"{self.url}/simulator/totals?{urllib.parse.urlencode(asked)}")
        assert status == 200, body
        return {
            tuple(row["dims"][name] for name in group_by): {
                measure: int(amount) for measure, amount in row["amounts"].items()
            }
            for row in json.loads(body)["rows"]
        }

    def costs(self, day: int, *group_by: str) -> dict[tuple[str | None, ...], float]:
        """What the UTC day that begins at `day` really cost, in dollars, by `group_by`."""
        asked = [
            ("kind", "costs"),
            ("start", day),
            ("end", day + 86400),
            *(("group_by", name) for name in group_by),
        ]
        status, body = get(f"{self.url}/simulator/totals?{urllib.parse.urlencode(asked)}")
        assert status == 200, body
        return {
            tuple(row["dims"][name] for name in group_by): float(row["amounts"]["cost"])
            for row in json.loads(body)["rows"]
        }


class Exporter:
    """`otel-openai-usage run`, ready to be scraped."""

    def __init__(
        self,
        surroundings: Surroundings,
        options: Sequence[str | Path],
        variables: Mapping[str, str],
        ready: str,
    ) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.url = f"http://{self.address}"
        command = [COMMAND, "run", "--listen", self.address, *options]
        self.process = Process(
            command, surroundings.home / f"run-{port}.log", surroundings.env(**variables)
        )
        self.process.ready(self.url + ready)

    def scrape(self) -> Samples:
        """What it shows of OpenAI."""
        status, body = get(f"{self.url}/metrics")
        assert status == 200, body
        return samples(body)

    def sum(self, name: str, **labels: str) -> float:
        """The sum of a metric over all series with these labels."""
        return sum(
            value
            for (found, having), value in self.scrape().items()
            if found == name and having >= set(labels.items())
        )


@pytest.fixture
def surroundings(tmp_path: Path) -> Surroundings:
    """An empty home."""
    return Surroundings(tmp_path)


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """One simulated organization for all tests; nobody may upset it."""
    server = Simulator(Surroundings(tmp_path_factory.mktemp("simulator")))
    yield server
    server.process.stop()


@pytest.fixture
def run(surroundings: Surroundings, simulator: Simulator) -> Iterator[Callable[..., Exporter]]:
    """Start an exporter of the simulated organization: `run("--interval", "1s",
    OTEL_SERVICE_NAME="x")`.
    """
    started: list[Exporter] = []

    def start(*options: str | Path, ready: str = "/readyz", **variables: str) -> Exporter:
        environment = {"OPENAI_ADMIN_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url} | variables
        started.append(Exporter(surroundings, options, environment, ready))
        return started[-1]

    yield start
    for exporter in started:
        exporter.process.stop()
