"""Measures the installed exporter against a simulated organization: the first poll, the next ones, scrapes, memory."""

import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.real.installed import KEY, Exporter, Simulator, Surroundings  # noqa: E402 - needs the path above
from tests.real.processes import get  # noqa: E402

WATCHED = 30.0
"""Seconds for which polling is watched."""


def say(what: str, value: object) -> None:
    """One line of the result."""
    print(f"{what:<44} {value}")


def scrape(exporter: Exporter, **headers: str) -> int:
    """Bytes of one scrape, as they came over the wire."""
    with urllib.request.urlopen(urllib.request.Request(f"{exporter.url}/metrics", headers=headers), timeout=30) as answer:
        return len(answer.read())


def median(work: Callable[[], object], times: int = 20) -> str:
    """Median milliseconds of doing something."""
    taken = []
    for _ in range(times):
        before = time.perf_counter()
        work()
        taken.append(time.perf_counter() - before)
    return f"{statistics.median(taken) * 1000:.1f} ms"


def asked(simulator: Simulator) -> int:
    """How many requests the simulated organization has had."""
    return get(f"{simulator.url}/simulator/requests")[1].count('"path"')


def measure(simulator: Simulator, exporter: Exporter, began: float) -> None:
    """Print everything about one exporter that is ready."""
    say("ready after", f"{time.perf_counter() - began:.1f} s")
    say("requests to OpenAI until then", asked(simulator))
    process = psutil.Process(exporter.process.pid)
    requests, before = asked(simulator), process.cpu_times()
    time.sleep(WATCHED)
    cpu = process.cpu_times()
    say("requests a minute afterwards", f"{(asked(simulator) - requests) * 60 / WATCHED:.0f}")
    say("CPU seconds a minute afterwards", f"{(cpu.user + cpu.system - before.user - before.system) * 60 / WATCHED:.2f}")
    say("series of openai.*", len(exporter.scrape()))
    say("scrape, bytes", scrape(exporter))
    say("scrape, median", median(lambda: scrape(exporter)))
    say("scrape with gzip, bytes", scrape(exporter, **{"Accept-Encoding": "gzip"}))
    say("scrape with gzip, median", median(lambda: scrape(exporter, **{"Accept-Encoding": "gzip"})))
    say("resident memory", f"{process.memory_info().rss / 2**20:.0f} MiB")


def main() -> None:
    """Start both, measure, stop both."""
    with tempfile.TemporaryDirectory() as folder:
        surroundings = Surroundings(Path(folder))
        (surroundings.home / "config.yaml").write_text(yaml.safe_dump({"usage": {"interval": "10s"}}))
        simulator = Simulator(surroundings)
        try:
            began = time.perf_counter()
            environment = {"OPENAI_ADMIN_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url}
            exporter = Exporter(surroundings, ["-c", surroundings.home / "config.yaml"], environment, "/readyz")
            try:
                measure(simulator, exporter, began)
            finally:
                exporter.process.stop()
        finally:
            simulator.process.stop()


if __name__ == "__main__":
    main()
