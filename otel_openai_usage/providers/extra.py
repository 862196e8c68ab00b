"""Sources beside the endpoints of a provider: each has its own key, poll and backfill."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from otel_openai_usage.config import Settings
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine.loop import Loop
from otel_openai_usage.engine.recorder import Clock, Recorder
from otel_openai_usage.providers.budget import Budget
from otel_openai_usage.storage.ports import Writer

Progress = Callable[[str, int, int], None]
"""Called as a backfill proceeds: organization and source, calls made, calls in all."""


class ExtraTelemetry(Protocol):
    """Receives how an extra source is doing."""

    def request(
        self, organization: str, endpoint: str, status: int | None, seconds: float
    ) -> None: ...
    def odd_values(self, organization: str, endpoint: str, outcome: str, count: int) -> None: ...
    def expect(self, organization: str, sources: Sequence[str]) -> None: ...
    def polled(self, organization: str, source: str, seconds: float, rows: int) -> None: ...
    def skipped(self, organization: str, source: str, records: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Run:
    """The parts of a running exporter that an extra source needs."""

    recorder: Recorder
    store: Writer
    telemetry: ExtraTelemetry
    prices: PriceList | None
    budget: Budget
    once: bool


@dataclass(frozen=True, slots=True)
class BackfillRun:
    """What a backfill needs: days from `start` to `end`, Unix seconds."""

    store: Writer
    start: int
    end: int
    now: int
    clock: Clock
    prices: PriceList | None
    report: Progress


class ExtraSource(Protocol):
    """A source beside the endpoints of a provider."""

    @property
    def name(self) -> str:
        """The value of the attribute `source`."""
        ...

    @property
    def warning(self) -> str:
        """The rest of the sentence "the … source". Logged at the start and shown by `check`."""
        ...

    def is_enabled(self, settings: Settings) -> bool:
        """Whether the settings ask for this source."""
        ...

    def source_state(self, settings: Settings, store: Writer) -> SourceState:
        """The state of this source. Raises StateError."""
        ...

    def open(
        self, settings: Settings, run: Run
    ) -> tuple[AbstractAsyncContextManager[object], Loop]:
        """The connection, to be entered, and the loop that polls. Raises StateError."""
        ...

    async def probe(self, settings: Settings) -> str:
        """Ask the endpoint once, as a poll would. Return its path. Raises SourceError."""
        ...

    async def backfill(self, settings: Settings, run: BackfillRun) -> int:
        """Read past days. Return the number of rows. Raises SourceError or StateError."""
        ...
