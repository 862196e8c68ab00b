"""Runs the exporter step by step, for tests: of dashboards, of alerts, of this project.

`Harness` is public and stable; see docs/testing.md.
"""

import asyncio
import math
import os
import time
from collections.abc import Collection, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, Protocol, TypeAlias

from otel_openai_usage.composition.app import Exporter, wire
from otel_openai_usage.config import Settings, load_mapping, require_keys
from otel_openai_usage.engine.loop import Loop
from otel_openai_usage.engine.recorder import Clock as _Clock
from otel_openai_usage.errors import StateError

_PAUSE = 0.01
"""Seconds of real time that a wait of the exporter takes when its clock is a test's."""
_STAGES = (("legacy",), ("names", "coverage"))
"""Sources that are polled after the others: one that waits, and those that look at what was read."""


_Step: TypeAlias = Coroutine[Any, Any, object]


class Clock(Protocol):
    """Where the exporter takes its time from."""

    def now(self) -> float:
        """Unix time in seconds. It may step, as a machine's clock does."""
        ...

    def monotonic(self) -> float:
        """Seconds since any moment. It never goes back."""
        ...


class Harness:
    """An exporter that does nothing by itself: a test polls, looks at the page, and ends it.

    It has the parts that `run` has, listeners and OTLP included where the settings enable them, on
    the state that the settings name. After `close` or `kill`, `start` begins another life on that
    state, as a new process would.

    `settings` are those of `otel_openai_usage.config.load`, or a mapping in the shape of the
    configuration file, which is read under `os.environ`. `clock` has `now()` and `monotonic()`;
    without one it is the machine's. Under a test's clock the exporter's own waiting (while the legacy
    source shows zeros, say) takes no real time. Requests to OpenAI
    are real HTTP: their time-outs, retries and rate limit are in real time, so tests set
    `api.retries: 0` and a high `api.requests_per_minute`.

    Use it from one event loop. Raises ConfigError for settings that cannot be used.
    """

    def __init__(
        self, settings: Settings | Mapping[str, object], clock: Clock | None = None
    ) -> None:
        self._settings = (
            settings if isinstance(settings, Settings) else load_mapping(settings, os.environ)
        )
        require_keys(self._settings)
        self._time = None if clock is None else _Time(clock)
        self._clock = (
            _Clock(time.time, time.monotonic)
            if self._time is None
            else _Clock(self._time.now, self._time.monotonic, self._time.sleep)
        )
        self._exporter: Exporter | None = None
        self._parts = AsyncExitStack()
        self._polls: set[asyncio.Future[list[Any]]] = set()
        self._taking_apart: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin a life: open the state, listen, and show what was counted before. Polls nothing.

        Raises ExporterError, such as StateError or ListenError, where `run` would exit with 1.
        """
        if self._exporter is not None:
            raise RuntimeError("the harness is running; call close() or kill() before start()")
        await self._taken_apart()
        async with AsyncExitStack() as parts:
            self._exporter = await wire(self._settings, parts, clock=self._clock, env=os.environ)
            self._parts = parts.pop_all()

    async def poll(self, sources: Collection[str] | None = None) -> None:
        """Poll each source once, all of them or those named (as the attribute `source` of
        `openai_api_up` does: "usage/completions", "costs", "names", …), and publish the result.

        A poll that fails raises nothing, as in `run`: the page shows `openai_api_up` 0 for that
        source, and the log says why. A damaged state raises StateCorrupt, as it ends `run`. A name
        that is no source of these settings raises ValueError. If `kill` is called meanwhile, the
        poll ends there and raises nothing.
        """
        exporter = self._running()
        loops = _chosen(exporter, sources)
        later = [source for stage in _STAGES for source in stage]
        first = [loop for loop in loops if loop.source not in later]
        stages = [[loop for loop in loops if loop.source in stage] for stage in _STAGES]
        for stage in (first, *stages):
            await self._until_killed(exporter, [loop.once() for loop in stage])
        if stages[-1]:
            await self._until_killed(exporter, [names.try_look_up() for names in exporter.names])
        await self._until_killed(exporter, [_publish(exporter)])

    async def upkeep(self) -> None:
        """One round of what `run` does beside the polls: old rows become coarser or go, what was
        committed is written back into the state's main file, and past days that the state lacks
        (`history.first`) are read.

        Raises StateError.
        """
        exporter = self._running()
        if exporter.maintenance is not None:
            await self._until_killed(exporter, [exporter.maintenance.once()])
        await self._until_killed(exporter, [exporter.care.once()])
        await self._until_killed(exporter, [history.once() for history in exporter.histories])
        if exporter.webhook is not None:
            await self._until_killed(exporter, [exporter.webhook.once()])
        await self._until_killed(exporter, [_publish(exporter)])

    def page(self) -> bytes:
        """What a scrape answers now, in Prometheus's text format. The time of the clock counts: a
        new series has its value once it was shown as 0 for long enough.
        """
        exporter = self._running()
        with suppress(StateError):  # as in `run`: what was shown stays
            exporter.publish_and_wait()
        return b"".join(exporter.prometheus.page())

    def kill(self) -> None:
        """End this life as `kill -9` does: what is committed is on disk, and nothing is written any
        more. Polls on their way end.
        """
        exporter = self._running()
        self._exporter = None
        exporter.abandon()
        for poll in self._polls:
            poll.cancel()
        self._taking_apart = asyncio.get_running_loop().create_task(self._parts.aclose())

    async def close(self) -> None:
        """End this life as SIGTERM does. After `kill`, or twice, it does no harm."""
        self._exporter = None
        await self._parts.aclose()
        await self._taken_apart()

    def _running(self) -> Exporter:
        if self._exporter is None:
            raise RuntimeError("the harness is not running; call start() first")
        return self._exporter

    async def _until_killed(self, exporter: Exporter, steps: list[_Step]) -> None:
        """Do these at the same time. Raises what the first of them raised, when all have ended."""
        if self._exporter is not exporter:
            for step in steps:
                step.close()
            return
        doing = asyncio.gather(*steps, return_exceptions=True)
        self._polls.add(doing)
        try:
            results = await doing
        except asyncio.CancelledError:
            if self._exporter is exporter:
                raise
            return
        finally:
            self._polls.discard(doing)
            if self._time is not None:
                self._time.step_ended()
        for result in results:
            if isinstance(result, BaseException) and self._exporter is exporter:
                raise result

    async def _taken_apart(self) -> None:
        """Wait until sockets and connections of a killed life are closed."""
        if self._taking_apart is not None:
            await self._taking_apart
            self._taking_apart = None


class _Time:
    """A test's clock, on which the exporter's own waiting takes no real time.

    A wait moves `monotonic` on until the test's clock has caught up, and `now` until the step of the
    harness ends: otherwise a poll that waits for a clock that stands still would never end.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waited = 0.0
        self._earliest = -math.inf

    def now(self) -> float:
        return self._clock.now() + self._waited

    def monotonic(self) -> float:
        return max(self._earliest, self._clock.monotonic())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(_PAUSE)
        self._waited += seconds
        self._earliest = self.monotonic() + seconds

    def step_ended(self) -> None:
        self._waited = 0.0


def _chosen(exporter: Exporter, sources: Collection[str] | None) -> list[Loop]:
    if isinstance(sources, str):
        raise TypeError(f"sources: expected a list such as [{sources!r}], got {sources!r}")
    known = list(dict.fromkeys(loop.source for loop in exporter.loops))
    if unknown := sorted(set(sources or ()) - set(known)):
        raise ValueError(
            f"sources: {', '.join(unknown)}: no such source here; there are {', '.join(known)}"
        )
    return [loop for loop in exporter.loops if sources is None or loop.source in sources]


async def _publish(exporter: Exporter) -> None:
    with suppress(StateError):  # as in `run`: what was shown stays
        await exporter.publish()
