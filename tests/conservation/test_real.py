"""A real Prometheus and a real Collector miss nothing: not of a series that is born, nor across a
restart.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from otel_openai_usage.composition import app
from otel_openai_usage.config import load
from otel_openai_usage.domain.endpoints import SHOWN_TOKEN_TYPES
from otel_openai_usage.engine.recorder import Clock, Recorder
from otel_openai_usage.simulator.lateness import PROMPT, Lateness
from otel_openai_usage.simulator.server import ADMIN_KEY, application, running
from otel_openai_usage.simulator.world import World
from tests.conservation.rig import HOUR, MONDAY, counted, truth
from tests.real.collector import Collector
from tests.real.processes import free_port
from tests.real.prometheus import Prometheus

pytestmark = pytest.mark.real

SPEED = 120
TOKENS = "openai.api.tokens"
LATE = Lateness(
    delay=(timedelta(seconds=20), timedelta(minutes=2)), growing=0.4, grows_for=timedelta(minutes=4),
    late=0.2, late_by=(timedelta(minutes=3), timedelta(minutes=12)), split=0.2,
)  # fmt: skip
Labels = frozenset[tuple[str, str]]


class Hurry:
    """Two minutes a second, from `begin` on; stands still until it is let go, and again when it is
    stopped.
    """

    def __init__(self, begin: float) -> None:
        self._at = begin
        self._since = 0.0

    def now(self) -> float:
        """What time it is in the world."""
        return self._at + ((time.monotonic() - self._since) * SPEED if self._since else 0)

    def go(self) -> None:
        """Let time pass."""
        self._since = time.monotonic()

    def stop(self) -> None:
        """Let time stand still."""
        self._at = self.now()
        self._since = 0.0

    @property
    def clock(self) -> Clock:
        """For the exporter."""
        return Clock(
            self.now,
            lambda: time.monotonic() * SPEED,
            lambda seconds: asyncio.sleep(seconds / SPEED),
        )


class Scene:
    """A simulated organization in a hurry, and the real exporter of it, in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World.tiny(3, lateness=LATE)
        self.time = Hurry(MONDAY + 9 * HOUR)
        self.port = free_port()

    @asynccontextmanager
    async def exporter(self, url: str, **env: str) -> AsyncIterator[app.Exporter]:
        """One life of it; its end is orderly."""
        env = {"OPENAI_ADMIN_KEY": ADMIN_KEY, "OPENAI_BASE_URL": f"{url}/v1", **env}
        settings = load(
            None,
            env,
            {
                "prometheus.host": "127.0.0.1",
                "prometheus.port": self.port,
                "state.path": str(self.folder / "state.db"),
                "usage.endpoints": ["completions", "embeddings"],
                "usage.settle": "30m",
                "usage.start": "2m",
                "usage.group_by": ["model", "user_id"],
                "api.requests_per_minute": 60000,
                "costs.enabled": False,
                "limits.enabled": False,
                "names.enabled": False,
                "attributes.zero_hold": "5m",
                "otlp.interval": "1s",
            },
        )
        async with AsyncExitStack() as stack:
            exporter = await app.wire(settings, stack, clock=self.time.clock, env=env)
            living = asyncio.create_task(app.forever(exporter))
            try:
                await until(lambda: all(loop.tried for loop in exporter.loops), "the first poll")
                yield exporter
            finally:
                living.cancel()
                with suppress(asyncio.CancelledError):
                    await living

    async def exact(self, exporter: app.Exporter) -> dict[Labels, float]:
        """Wait until all is told and shown; the counters then."""
        self.time.stop()
        self.world.lateness = PROMPT
        source_states = [
            source_state
            for source_state in exporter.recorder.source_states
            if source_state.endpoint.name in ("completions", "embeddings")
        ]
        await until(
            lambda: all(
                counted(source_state) == truth(self.world, source_state, self.time.now())
                for source_state in source_states
            ),
            "the totals to be exact",
        )
        wanted = sum(
            stored_series.shown[index]
            for source_state in source_states
            for stored_series in source_state.series.values()
            for index, measure in enumerate(source_state.endpoint.measures)
            if measure.token_type in SHOWN_TOKEN_TYPES
        )
        await until(lambda: sum(shown(exporter).values()) == wanted, "all of it to be shown")
        return shown(exporter)


def shown(exporter: app.Exporter) -> dict[Labels, float]:
    """What stands on the Board."""
    points = exporter.board.current().points.get(TOKENS, ())
    return {
        frozenset((key, str(value)) for key, value in point.series.attributes.items()): point.value
        for point in points
    }


async def until(ask: Callable[[], object], what: str, seconds: float = 40) -> None:
    """Wait for it, while the exporter runs on."""
    end = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        await asyncio.sleep(0.05)


def grown(first: Mapping[Labels, float], last: Mapping[Labels, float]) -> dict[Labels, float]:
    """By how much each counter grew."""
    return {labels: value - first.get(labels, 0) for labels, value in last.items()}


async def test_promql_misses_nothing(tmp_path: Path, prometheus: Callable[..., Prometheus]) -> None:
    """From after the first scrape until all has settled, max - min of every series is what was
    used, series that were born included.
    """
    scene = Scene(tmp_path)
    simulation = application(
        scene.world, clock=lambda: datetime.fromtimestamp(scene.time.now(), UTC)
    )
    async with running(simulation) as url, scene.exporter(url) as exporter:
        server = await asyncio.to_thread(prometheus, [f"127.0.0.1:{scene.port}"])
        await asyncio.to_thread(server.wait_for, "up == 1")
        first = shown(exporter)
        since = time.time()
        await asyncio.sleep(1.5)
        scene.time.go()
        await asyncio.sleep(15)
        expected = grown(first, await scene.exact(exporter))
        await asyncio.sleep(2.5)  # two scrapes
        window = f"{int(time.time() - since) + 1}s"
        name = "openai_api_tokens_total"
        answer = await asyncio.to_thread(
            server.query, f"max_over_time({name}[{window}]) - min_over_time({name}[{window}])"
        )
        found = {
            frozenset(pair for pair in labels if pair[0] not in {"job", "instance"}): value
            for labels, value in answer.items()
        }
        assert found == expected
        born = expected.keys() - first.keys()
        assert len(born) > 3
        assert sum(expected[labels] for labels in born) > 0
        assert await asyncio.to_thread(server.query, f"resets({name}[{window}]) > 0") == {}


async def test_deltas_survive_a_restart(
    tmp_path: Path, collector: Callable[..., Collector]
) -> None:
    """Across two restarts of ours, the deltas that a real Collector makes add up to what was used
    since the first export.
    """
    scene = Scene(tmp_path)
    written = tmp_path / "deltas.json"
    override = {
        "exporters": {"file": {"path": str(written), "flush_interval": "100ms"}},
        "service": {
            "pipelines": {
                "metrics": {
                    "receivers": ["otlp"],
                    "processors": ["cumulative_to_delta"],
                    "exporters": ["file"],
                }
            }
        },
    }
    receiver = await asyncio.to_thread(lambda: collector(override=override))
    simulation = application(
        scene.world, clock=lambda: datetime.fromtimestamp(scene.time.now(), UTC)
    )
    first: dict[Labels, float] = {}
    async with running(simulation) as url:
        for life in range(3):
            async with scene.exporter(
                url, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{receiver.grpc}"
            ) as exporter:
                version = exporter.board.current().version

                def exported(
                    version: int = version, recorder: Recorder = exporter.recorder
                ) -> bool:
                    return (recorder.attempted or 0) >= version

                await until(exported, "an export")
                if not life:
                    first = shown(exporter)
                    scene.time.go()
                await asyncio.sleep(5)
                if life == 2:
                    expected = grown(first, await scene.exact(exporter))
            await asyncio.sleep(1)  # time passes while nobody polls
    await until(lambda: deltas(written) == used(expected), "all deltas", 10)
    assert expected.keys() - first.keys()


def used(counters: Mapping[Labels, float]) -> dict[Labels, float]:
    """Without those that did not grow."""
    return {labels: value for labels, value in counters.items() if value}


def deltas(written: Path) -> dict[Labels, float]:
    """The sum of all deltas, by series."""
    found: dict[Labels, float] = {}
    for line in written.read_text().splitlines():
        for resource in json.loads(line)["resourceMetrics"]:
            for metric in (
                each
                for scope in resource["scopeMetrics"]
                for each in scope["metrics"]
                if each["name"] == TOKENS
            ):
                assert metric["sum"]["aggregationTemporality"] == 1
                for point in metric["sum"]["dataPoints"]:
                    labels = frozenset(
                        (pair["key"], str(next(iter(pair["value"].values()))))
                        for pair in point["attributes"]
                    )
                    found[labels] = found.get(labels, 0) + int(point["asInt"])
    return used(found)
