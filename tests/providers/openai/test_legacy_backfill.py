"""`backfill` with an ordinary key only: past days by the legacy endpoint."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from otel_openai_usage.commands import backfill
from otel_openai_usage.commands.backfill import Asked
from otel_openai_usage.config import Settings, load
from otel_openai_usage.domain.model import Window
from otel_openai_usage.engine.recorder import Clock
from otel_openai_usage.errors import SourceError
from otel_openai_usage.simulator import lateness
from otel_openai_usage.simulator.legacy import ORDINARY_KEY
from otel_openai_usage.simulator.server import application, running
from otel_openai_usage.simulator.world import World
from otel_openai_usage.storage.sqlite.queries import open_queries
from tests.domain.shelf import DAY, HOUR, MIDNIGHT

NOW = MIDNIGHT + 10 * HOUR
FIRST = date(2026, 10, 20)


class Time:
    """A clock that sleeping moves on. The simulator looks at it, too."""

    def __init__(self) -> None:
        self.seconds = float(NOW)

    async def sleep(self, seconds: float) -> None:
        """Move on."""
        self.seconds += seconds

    @property
    def clock(self) -> Clock:
        """As the exporter wants it."""
        return Clock(lambda: self.seconds, lambda: self.seconds, self.sleep)


class Scene:
    """A simulated organization, and settings with only an ordinary key."""

    def __init__(self, url: str, folder: Path, world: World, time: Time) -> None:
        self.env = {"OPENAI_API_KEY": ORDINARY_KEY, "OPENAI_BASE_URL": f"{url}/v1"}
        self.path = folder / "state.db"
        self.settings: Settings = load(None, self.env, {"state.path": str(self.path)})
        self.world = world
        self.time = time
        self.progress: list[tuple[str, int, int]] = []
        self.stop_after: int | None = None

    async def read(self) -> int:
        """Backfill from the first day on."""
        asked = Asked(FIRST)
        return await backfill.read(
            self.settings, self.env, asked, NOW, self.report, self.time.clock
        )

    def report(self, name: str, made: int, total: int) -> None:
        """Note the progress; end the process where that was asked for."""
        self.progress.append((name, made, total))
        if made == self.stop_after:
            raise Stopped


class Stopped(Exception):
    """Stands for the end of the process."""


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """A scene whose server runs."""
    time = Time()
    world = World(3, projects=2, keys=3, users=3, lateness=lateness.PROMPT)

    def now() -> datetime:
        return datetime.fromtimestamp(time.seconds, UTC)

    async with running(application(world, clock=now)) as url:
        yield Scene(url, tmp_path, world, time)


async def test_past_days_are_read_with_an_ordinary_key(scene: Scene) -> None:
    """Every past day equals the organization's own usage, five requests a minute, with progress; a
    second run asks for nothing.
    """
    assert await scene.read() > 0
    start = int(datetime(2026, 10, 20, tzinfo=UTC).timestamp())
    days = (MIDNIGHT - start) // DAY
    (truth,) = scene.world.totals("completions", Window(start, MIDNIGHT)).values()
    with open_queries(scene.path) as past:
        read = past.usage(start, MIDNIGHT, record="legacy_usage")
    assert sum(row.input for row in read) == truth[0]
    assert scene.progress[-1] == ("default legacy", days, days)
    assert scene.time.seconds - NOW >= (days // 5 - 1) * 60
    apply = scene.time.seconds
    assert await scene.read() == 0
    assert scene.time.seconds == apply


async def test_a_stopped_backfill_continues_where_it_was(scene: Scene) -> None:
    """When the process ends after three days, they are kept, and the next run reads only the rest."""
    scene.stop_after = 3
    with pytest.raises(Stopped):
        await scene.read()
    scene.stop_after = None
    total = scene.progress[0][2]
    assert await scene.read() > 0
    assert scene.progress[-1] == ("default legacy", total - 3, total - 3)


async def test_a_wrong_key_is_reported_and_keeps_nothing(scene: Scene) -> None:
    """A refused ordinary key ends the backfill with a sentence about legacy.api_key."""
    settings = load(
        None,
        scene.env | {"OPENAI_API_KEY": "sk-wrong"},
        {"state.path": str(scene.path)},
    )
    asked = Asked(FIRST)
    with pytest.raises(SourceError, match=r"legacy\.api_key"):
        await backfill.read(settings, scene.env, asked, NOW, scene.report, scene.time.clock)
