"""The exporter as a library: it polls and stores as `run` does, and shows on any MeterProvider.

`Poller` is public and stable; see docs/opentelemetry.md.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from opentelemetry.metrics import MeterProvider

from otel_openai_usage.composition.app import Exporter, run_loops, wire
from otel_openai_usage.config import Settings, load, load_mapping, require_keys
from otel_openai_usage.engine.recorder import Clock
from otel_openai_usage.exporters.sdk.instruments import instrument

_LOOK_AGAIN = 0.05
"""Seconds between two looks at whether every source was polled."""


class Poller:
    """Polls OpenAI and keeps the state, within an application's own event loop.

        async with Poller(settings) as poller:
            poller.instrument(meter_provider)

    `settings` are those of `otel_openai_usage.config.load`, or a mapping in the shape of the
    configuration file, read under `os.environ`. Without settings the file that
    OTEL_OPENAI_USAGE_CONFIG names counts, else the environment alone.

    The application's MeterProvider exports. So OTEL_METRICS_EXPORTER, the Prometheus listener and
    OTLP play no part here, unless the settings say `prometheus.enabled` or `otlp.enabled`.

    Entering raises ConfigError for settings that cannot be used, and ExporterError, such as
    StateInUse, where `run` would exit with 1. If polling ends because the state is damaged, leaving
    raises that error; until then the last values stay.
    """

    def __init__(self, settings: Settings | Mapping[str, object] | None = None) -> None:
        env = {name: value for name, value in os.environ.items() if name != "OTEL_METRICS_EXPORTER"}
        if settings is None:
            settings = load(None, env)
        elif not isinstance(settings, Settings):
            settings = load_mapping(settings, env)
        require_keys(settings)
        self._settings = _without_exporters(settings)
        self._parts = AsyncExitStack()
        self._exporter: Exporter | None = None
        self._stop = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the state and begin to poll."""
        async with AsyncExitStack() as parts:
            clock = Clock(time.time, time.monotonic)
            self._exporter = await wire(self._settings, parts, clock=clock, env=os.environ)
            self._parts = parts.pop_all()
        self._stop.clear()
        self._polling = asyncio.create_task(run_loops(self._stop, self._exporter))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop polling, and write what is not written yet."""
        self._stop.set()
        try:
            if self._polling is not None:
                await self._polling
        finally:
            await self._parts.aclose()

    def instrument(
        self,
        meter_provider: MeterProvider,
        *,
        since_start: bool = False,
        cardinality_limit: int | None = None,
    ) -> None:
        """Show every instrument on a MeterProvider, as observable counters and gauges.

        With `since_start` the counters observe only what was booked after this call. Use it for
        readers with delta temporality: their first delta is all that a counter shows.

        Series beyond the lowest cardinality limit of the provider's readers are folded, which is
        logged once. `cardinality_limit` sets the limit for a provider that does not tell it.

        Call it once for each MeterProvider, while the poller runs. After the end of the poller the
        instruments keep their last values.
        """
        exporter = self._running()
        instrument(
            meter_provider,
            exporter.shown,
            since_start=since_start,
            cardinality_limit=cardinality_limit,
            before_page=exporter.recorder.before_page,
        )

    async def polled(self) -> None:
        """Wait until every source was polled once, successfully or not, and the result is shown.

        Raises ExporterError if polling ended.
        """
        exporter = self._running()
        while not all(loop.tried for loop in exporter.loops):
            if self._polling is not None and self._polling.done():
                self._polling.result()
                return
            await asyncio.sleep(_LOOK_AGAIN)
        await exporter.publish()

    def _running(self) -> Exporter:
        if self._exporter is None:
            raise RuntimeError("the poller is not running; use it as `async with Poller(…)`")
        return self._exporter


def _without_exporters(settings: Settings) -> Settings:
    """Return the settings without exporters, but for those that were asked for by name."""
    prometheus = settings.prometheus
    if "enabled" not in prometheus.model_fields_set:
        prometheus = prometheus.model_copy(update={"enabled": False})
    otlp = settings.otlp
    if otlp.enabled == "auto":
        otlp = otlp.model_copy(update={"enabled": False})
    changes = {"prometheus": prometheus, "otlp": otlp, "sdk_exporters": ()}
    return settings.model_copy(update=changes)
