"""The public harness: the whole exporter under a test's clock, killed and started at will."""

import asyncio
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from otel_openai_usage.config import load
from otel_openai_usage.domain.endpoints import ENDPOINTS
from otel_openai_usage.domain.model import Window
from otel_openai_usage.errors import ConfigError, StateInUse
from otel_openai_usage.simulator.faults import Fault
from otel_openai_usage.simulator.lateness import PROMPT
from otel_openai_usage.simulator.server import (
    ADMIN_KEY,
    SIMULATION,
    Simulation,
    application,
    running,
)
from otel_openai_usage.simulator.world import World
from otel_openai_usage.testing import Harness

ROOT = Path(__file__).parent.parent.parent
MIDNIGHT = int(datetime(2026, 11, 2, tzinfo=UTC).timestamp())
HOUR = 3600


@dataclass
class Clock:
    """A clock that moves when the test says so."""

    time: float = MIDNIGHT + 12 * HOUR + 30

    def now(self) -> float:
        """Unix time."""
        return self.time

    def monotonic(self) -> float:
        """The same, since it never steps here."""
        return self.time


@dataclass
class Scene:
    """A simulated organization, a clock that it shares with the harness, and settings for one."""

    clock: Clock
    world: World
    simulation: Simulation
    settings: dict[str, object]

    def harness(self, **changes: object) -> Harness:
        """A harness with the settings, some sections changed."""
        return Harness({**self.settings, **changes}, self.clock)

    def true_requests(self, since: int = MIDNIGHT) -> int:
        """The requests of all endpoints in whole minutes."""
        now = int(self.clock.time) // 60 * 60
        found = 0
        for endpoint in ENDPOINTS.values():
            names = [measure.name for measure in endpoint.measures]
            if "requests" in names:
                place = names.index("requests")
                totals = self.world.totals(endpoint.name, Window(since, now), ())
                found += sum(int(amounts[place]) for amounts in totals.values())
        return found


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    """A small organization whose usage is known when a minute ends."""
    clock = Clock()
    world = World.tiny(5, lateness=PROMPT)
    app = application(world, clock=lambda: datetime.fromtimestamp(clock.time, UTC))
    async with running(app) as url:
        yield Scene(
            clock,
            world,
            app[SIMULATION],
            {
                "organizations": [{"admin_key": ADMIN_KEY, "base_url": f"{url}/v1"}],
                "api": {"requests_per_minute": 100_000, "retries": 0},
                "state": {"path": str(folder / "state.db")},
                "prometheus": {"enabled": False},
            },
        )


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Scene]:
    """A scene, and the end of what a test left running."""
    async with scene(tmp_path) as found:
        yield found


def values(page: bytes, name: str) -> dict[str, float]:
    """The series of a metric: labels to value."""
    found = re.findall(rf"^{name}\{{(.*)\}} (\S+)$", page.decode(), re.MULTILINE)
    return {labels: float(value) for labels, value in found}


def requests(page: bytes) -> int:
    """All requests that a page shows."""
    return int(sum(values(page, "openai_api_requests_total").values()))


def up(page: bytes) -> Mapping[str, float]:
    """`openai_api_up` by source."""
    series = values(page, "openai_api_up")
    return {
        re.search(r'source="([^"]*)"', labels)[1]: value  # type: ignore[index]
        for labels, value in series.items()
    }


async def settled(stage: Scene, harness: Harness) -> bytes:
    """The page after a poll, when every new series was shown as 0 for long enough.

    The hour after it is not read: only the clock of what is shown moves on.
    """
    await harness.poll()
    harness.page()
    stage.clock.time += 61
    return harness.page()


async def test_it_counts_to_the_request_through_kills(stage: Scene) -> None:
    """Hours pass, the exporter is killed and started: the page shows exactly what was used."""
    harness = stage.harness()
    for _ in range(4):
        await harness.start()
        expected = stage.true_requests()
        assert requests(await settled(stage, harness)) == expected > 0
        harness.kill()
        stage.clock.time += 2 * HOUR
    await harness.close()


async def test_kill_writes_nothing(stage: Scene, tmp_path: Path) -> None:
    """After `kill` the file and its write-ahead log are, to the byte, what they were before; and a
    second exporter may have the state at once.
    """
    path = tmp_path / "state.db"
    harness = stage.harness()
    await harness.start()
    await harness.poll()
    with pytest.raises(StateInUse):
        await stage.harness().start()
    files = [path, tmp_path / "state.db-wal"]
    before = [file.read_bytes() for file in files]
    assert before[1]
    harness.kill()
    await harness.close()
    assert [file.read_bytes() for file in files] == before
    other = stage.harness()
    await other.start()
    await other.close()


async def test_close_writes_how_far_reading_has_come(stage: Scene, tmp_path: Path) -> None:
    """`close` ends as SIGTERM does: the last minute that was read is on disk, where `kill` leaves
    what the last commit said.
    """
    horizons = []
    for end in ("kill", "close"):
        harness = stage.harness()
        await harness.start()
        await harness.poll(["usage/embeddings"])
        stage.clock.time += 120
        stage.simulation.world = World.tiny(5, lateness=PROMPT, activity=0)
        await harness.poll(["usage/embeddings"])
        if end == "kill":
            harness.kill()
        await harness.close()
        with sqlite3.connect(tmp_path / "state.db") as db:
            sql = "SELECT horizon FROM sources WHERE kind = 'embeddings'"
            horizons.append(db.execute(sql).fetchone()[0])
        db.close()
    assert horizons[0] < horizons[1]


async def test_a_kill_in_the_middle_of_a_poll_costs_nothing(stage: Scene) -> None:
    """A poll that `kill` interrupts ends without an error; the next life counts exactly."""
    harness = stage.harness()
    for _ in range(8):
        await harness.start()
        asked = len(stage.simulation.requests)
        polling = asyncio.create_task(harness.poll())
        while len(stage.simulation.requests) < asked + 3:  # noqa: ASYNC110 - the server has no event
            await asyncio.sleep(0.001)
        harness.kill()
        await polling
        stage.clock.time += 600
    await harness.start()
    expected = stage.true_requests()
    assert requests(await settled(stage, harness)) == expected
    await harness.close()


async def test_a_failed_poll_is_on_the_page(stage: Scene) -> None:
    """A source that fails raises nothing: it is down on the page until it succeeds again."""
    harness = stage.harness()
    await harness.start()
    fault = Fault("error", "usage/embeddings", status=503)
    stage.simulation.faults.faults[:] = [fault]
    await harness.poll()
    assert [source for source, value in up(harness.page()).items() if not value] == [
        "usage/embeddings"
    ]
    stage.simulation.faults.faults.clear()
    await harness.poll(["usage/embeddings"])
    assert set(up(harness.page()).values()) == {1.0}
    await harness.close()


async def test_only_the_named_sources_are_polled(stage: Scene) -> None:
    """Sources that are not named are not asked for; a name that is none raises and says which
    there are.
    """
    harness = stage.harness()
    await harness.start()
    await harness.poll(["usage/completions", "limits"])
    asked = {str(entry["path"]) for entry in stage.simulation.requests}
    assert {path.split("/v1/organization/")[1].split("/")[0] for path in asked} == {
        "usage",
        "spend_limit",
        "projects",
    }
    with pytest.raises(ValueError, match=r"usage/completion: .* usage/completions"):
        await harness.poll(["usage/completion"])
    with pytest.raises(TypeError):
        await harness.poll("costs")
    await harness.close()


async def test_a_new_series_is_zero_until_the_clock_says(stage: Scene) -> None:
    """A series that is new after the first page is 0, and has its value when `zero_hold` is over by
    the test's clock.
    """
    harness = stage.harness()
    stage.clock.time = MIDNIGHT + 30  # nothing was used yet
    await harness.start()
    await harness.poll()
    assert requests(harness.page()) == 0
    stage.clock.time += HOUR
    expected = stage.true_requests()
    assert expected > 0
    await harness.poll()
    page = harness.page()
    assert values(page, "openai_api_requests_total")
    assert requests(page) == 0
    stage.clock.time += 59
    assert requests(harness.page()) == 0
    stage.clock.time += 2
    assert requests(harness.page()) == expected
    await harness.close()


async def test_settings_may_come_from_load(stage: Scene, tmp_path: Path) -> None:
    """`load`'s settings and a mapping mean the same; what is wrong with a mapping is said as for a
    file.
    """
    organizations = stage.settings["organizations"]
    assert isinstance(organizations, list)
    env = {"OPENAI_ADMIN_KEY": ADMIN_KEY, "OPENAI_BASE_URL": organizations[0]["base_url"]}
    overrides = {
        "state.path": str(tmp_path / "other.db"),
        "prometheus.enabled": False,
        "api.requests_per_minute": 100_000,
    }
    harness = Harness(load(None, env, overrides), stage.clock)
    await harness.start()
    expected = stage.true_requests()
    assert requests(await settled(stage, harness)) == expected
    await harness.close()
    with pytest.raises(ConfigError, match=r"usage\.intervall"):
        stage.harness(usage={"intervall": "60s"})
    with pytest.raises(ConfigError, match="has no admin key"):
        Harness({"organizations": [{"admin_key": None}], "legacy": {"enabled": False}}, stage.clock)


async def test_placeholders_in_a_mapping(
    stage: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`${env:NAME}` in a mapping is replaced as in a file."""
    monkeypatch.setenv("STATE_OF_THE_TEST", str(tmp_path / "named.db"))
    harness = stage.harness(state={"path": "${env:STATE_OF_THE_TEST}"})
    await harness.start()
    await harness.close()
    assert (tmp_path / "named.db").exists()


async def test_it_listens_as_run_does(stage: Scene) -> None:
    """The Prometheus listener serves the same page, and the next life may have its port after a
    kill.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    harness = stage.harness(prometheus={"host": "127.0.0.1", "port": port})
    for _ in range(2):
        await harness.start()
        await harness.poll()
        page = harness.page()
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/metrics") as response,
        ):
            served = await response.read()
        for name in ("openai_api_requests_total", "openai_api_up"):
            assert values(served, name) == values(page, name)
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/readyz") as response,
        ):
            assert response.status == 200, await response.text()
        harness.kill()
    await harness.close()


async def test_it_says_when_it_is_not_running(stage: Scene) -> None:
    """Polling before `start` or after the end, and starting twice, are errors of the test; ending
    twice is none.
    """
    harness = stage.harness()
    with pytest.raises(RuntimeError, match="start"):
        await harness.poll()
    await harness.start()
    with pytest.raises(RuntimeError, match="running"):
        await harness.start()
    await harness.upkeep()
    await harness.close()
    await harness.close()
    with pytest.raises(RuntimeError, match="start"):
        harness.page()


def test_the_documented_example_runs() -> None:
    """The example of docs/testing.md runs as it is printed, and counts more after the hour."""
    text = (ROOT / "docs" / "testing.md").read_text()
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert example is not None
    done = subprocess.run(
        [sys.executable, "-c", example[1]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert 0 < before < after


def test_the_public_methods_are_those_of_the_contract() -> None:
    """The harness has exactly the methods that its documentation lists: it is public and stable."""
    public = {name for name in vars(Harness) if not name.startswith("_")}
    assert public == {"start", "poll", "upkeep", "page", "kill", "close"}
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    assert all(f"{name}(" in page for name in public)
