"""The exporter as `run` wires it, over a simulated organization, under a clock that can be wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from otel_openai_usage.composition import app
from otel_openai_usage.composition.app import Exporter
from otel_openai_usage.config import Settings, load
from otel_openai_usage.domain.model import Width, Window
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine.recorder import Clock
from otel_openai_usage.simulator import lateness
from otel_openai_usage.simulator.server import ADMIN_KEY, application, running
from otel_openai_usage.simulator.world import World
from tests.conservation.rig import added, counted

MINUTE = 60
HOUR = 3600
DAY = 86400
NOW = int(datetime(2026, 11, 19, 10, 20, 30, tzinfo=UTC).timestamp())


class Time:
    """The true time, and a machine's clock that is off by `wrong` seconds.

    `mono` starts anew with every process, as the system's does after a boot.
    """

    def __init__(self, now: float = NOW) -> None:
        self.true = now
        self.wrong = 0.0
        self._boot = now

    def boot(self) -> None:
        self._boot = self.true

    def clock(self) -> Clock:
        return Clock(
            lambda: self.true + self.wrong,
            lambda: self.true - self._boot,
            lambda _: asyncio.sleep(0),
        )


class Scene:
    """One state, one world, and the exporter's process, which may be killed and started."""

    def __init__(self, url: str, world: World, time: Time, path: Path, **settings: Any) -> None:
        self.world = world
        self.time = time
        self.env = {"OPENAI_ADMIN_KEY": ADMIN_KEY, "OPENAI_BASE_URL": f"{url}/v1"}
        given = {
            "state.path": str(path),
            "api.requests_per_minute": 1_000_000,
            "prometheus.enabled": False,
            "names.enabled": False,
            "limits.enabled": False,
            "costs.enabled": False,
            "prices.enabled": False,
            "usage.endpoints": ["completions"],
            "usage.start": "5d",
            "usage.reconcile": "2d",
            "attributes.zero_hold": "0s",
        }
        self.given = given | {name.replace("__", "."): value for name, value in settings.items()}
        self.seen: dict[str, float] = {}
        self._stack = AsyncExitStack()
        self.exporter: Exporter

    @property
    def settings(self) -> Settings:
        return load(None, self.env, self.given)

    async def start(self) -> None:
        """Begin a process on the state."""
        self.time.boot()
        self._stack = AsyncExitStack()
        self.exporter = await app.wire(
            self.settings, self._stack, clock=self.time.clock(), env=self.env
        )

    async def kill(self) -> None:
        """End the process. Nothing is written on the way out."""
        recorder = self.exporter.recorder
        recorder.source_states.clear()
        await self._stack.aclose()

    async def poll(self) -> None:
        """Poll everything and publish; no series may fall."""
        for loop in self.exporter.loops:
            assert await loop.once(), loop.error
        for _ in range(3):  # what is 0 first has its value in the next
            await self.exporter.publish()
        shown = self.series()
        fallen = {key: (self.seen[key], shown[key]) for key in self.seen.keys() & shown.keys()}
        assert not [key for key, (before, after) in fallen.items() if after < before]
        self.seen |= shown

    async def maintenance(self) -> None:
        """One round of retention."""
        assert self.exporter.maintenance
        await self.exporter.maintenance.once()

    def series(self) -> dict[str, float]:
        """The token and request counters that are shown."""
        points = self.exporter.board.current().points
        return {
            f"{name} {sorted(point.series.attributes.items())}": point.value
            for name in ("openai.api.tokens", "openai.api.requests")
            for point in points.get(name, ())
        }

    def source_state(self) -> SourceState:
        return self.exporter.recorder.source_states[0]

    def exact(self) -> bool:
        """Whether every attribute set has OpenAI's own total since counting began."""
        source_state = self.source_state()
        until = int(self.time.true) // MINUTE * MINUTE + MINUTE
        grouping = source_state.groupings.entries[-1][1]
        window = Window(source_state.progress.epoch, until)
        seen = self.world.visible(
            "completions",
            window,
            Width.MINUTE,
            grouping,
            datetime.fromtimestamp(self.time.true, UTC),
        )
        return counted(source_state) == added(seen.values())


@asynccontextmanager
async def scene(path: Path, **settings: Any) -> AsyncIterator[Scene]:
    """A scene whose first process has polled once."""
    world = World(3, projects=2, keys=3, users=3, lateness=lateness.PROMPT)
    time = Time()
    server = application(world, clock=lambda: datetime.fromtimestamp(time.true, UTC))
    async with running(server) as url:
        made = Scene(url, world, time, path / "state.db", **settings)
        await made.start()
        try:
            await made.poll()
            yield made
        finally:
            await made.kill()
