"""A real Prometheus."""

import json
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml

from tests.real.processes import Process, free_port, get, wait_for
from tests.real.servers import program

Labels: TypeAlias = frozenset[tuple[str, str]]


class Prometheus:
    """Scrapes `targets` every `interval`; answers PromQL. `blocks` is a folder of data that it
    begins with. `server` is Debian's Prometheus 2 or, as prometheus3, the one that we build;
    `flags` and `settings` are added to its command line and its configuration.
    """

    def __init__(
        self,
        folder: Path,
        targets: Sequence[str],
        *,
        rules: Sequence[Path] = (),
        interval: str = "1s",
        blocks: Path | None = None,
        server: str = "prometheus",
        flags: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = {
            "global": {
                "scrape_interval": interval,
                "evaluation_interval": interval,
                "scrape_timeout": interval,
            },
            "rule_files": [str(rule.resolve()) for rule in rules],
            "scrape_configs": [
                {"job_name": "openai", "static_configs": [{"targets": list(targets)}]}
            ],
            **(settings or {}),
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.process = Process(
            [
                program(server),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={blocks or folder / 'data'}",
                "--storage.tsdb.retention.time=10y",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
                *flags,
            ],
            folder / "prometheus.log",
        )
        self.process.ready(f"{self.url}/-/ready")

    def api(self, path: str, **parameters: str) -> Any:
        """`data` of an answer of the HTTP API; a refused query raises AssertionError with
        Prometheus's own words.
        """
        status, body = get(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        answer = json.loads(body)
        assert status == 200, f"{path} {parameters}: {answer.get('error')}"
        return answer["data"]

    def query(self, promql: str) -> dict[Labels, float]:
        """An instant query's vector: labels (without the name) to value."""
        result = self.api("query", query=promql)["result"]
        return {labels(item["metric"]): float(item["value"][1]) for item in result}

    def value(self, promql: str) -> float | None:
        """The value of a query that gives one sample; None for none."""
        answer = self.query(promql)
        assert len(answer) <= 1, f"{promql} gives {len(answer)} series"
        return next(iter(answer.values()), None)

    def query_range(
        self, promql: str, start: float, end: float, step: float
    ) -> dict[Labels, list[tuple[float, float]]]:
        """A range query's matrix: labels to (time, value) pairs."""
        result = self.api(
            "query_range", query=promql, start=str(start), end=str(end), step=str(step)
        )["result"]
        return {
            labels(item["metric"]): [(float(time), float(value)) for time, value in item["values"]]
            for item in result
        }

    def wait_for(
        self, promql: str, accept: Callable[[dict[Labels, float]], bool] = bool, seconds: float = 30
    ) -> dict[Labels, float]:
        """The first answer of a query that is accepted."""
        seen: dict[Labels, float] = {}

        def ask() -> list[dict[Labels, float]]:
            nonlocal seen
            seen = self.query(promql)
            return [seen] if accept(seen) else []

        try:
            return wait_for(ask, promql, seconds)[0]
        except AssertionError:
            raise AssertionError(f"waited {seconds:g} s for {promql}; it gives {seen}") from None


def labels(metric: Mapping[str, str]) -> Labels:
    """A sample's labels without its name."""
    return frozenset((name, value) for name, value in metric.items() if name != "__name__")


@pytest.fixture
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Prometheus]]:
    """Start a Prometheus: `prometheus(["127.0.0.1:9185"])`."""
    started: list[Prometheus] = []

    def start(targets: Sequence[str], **options: Any) -> Prometheus:
        started.append(Prometheus(tmp_path_factory.mktemp("prometheus"), targets, **options))
        return started[-1]

    yield start
    for server in started:
        server.process.stop()
