"""Maintains the history: downsamples and purges rows, and compares estimated with billed cost."""

import logging
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from typing import Protocol

from otel_openai_usage.domain.model import Width, floor
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.retention import Retention
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.ports import HistoryWriter

log = logging.getLogger(__name__)

INTERVAL = 600.0
"""Seconds between two rounds."""
PAUSE = 0.05
"""Seconds between two small transactions of a round, so that polls need not wait."""
BILLED_AFTER = Width.DAY
"""Seconds after the end of a day until its costs are compared: OpenAI adds to them for hours."""
SPANS = {"day": 1, "week": 7}
"""Days of each value of the attribute `span`."""


def maintain(store: HistoryWriter, source_state: SourceState, keep: Retention) -> bool:
    """Do one step of retention. Return False if there was none to do. Raises StateError."""
    maintained = store.apply_retention(source_state, keep)
    if maintained is None:
        return False
    source_state.fingerprints.discard_within(maintained.window)
    source_state.purged_before = maintained.purged_before
    return True


class Telemetry(Protocol):
    """Exports the difference between estimated and billed cost, in US dollars."""

    def estimate_difference(self, organization: str, span: str, amount: float) -> None: ...


class Maintenance:
    """Maintains the history of the recorder's sources, and of the stored sources in `also`.

    `keep` gives the retention at a Unix time.
    """

    def __init__(
        self,
        recorder: Recorder,
        store: HistoryWriter,
        telemetry: Telemetry,
        organizations: Sequence[str],
        keep: Callable[[int], Retention],
        *,
        also: Sequence[SourceState] = (),
        prices: PriceList | None = None,
    ) -> None:
        self._recorder = recorder
        self._store = store
        self._telemetry = telemetry
        self._organizations = organizations
        self._compares = bool(organizations)
        self._also = tuple(also)
        self._keep = keep
        self._prices = prices

    def assign(self, organizations: Sequence[str], also: Sequence[SourceState]) -> None:
        """From now on compare the costs of these organizations, and maintain `also`, too."""
        if self._compares:
            self._organizations = organizations
        self._also = tuple(also)

    async def forever(self) -> None:
        """Do a round every few minutes. An error is logged, and the next round tries again."""
        while True:
            await self._recorder.clock.sleep(INTERVAL)
            try:
                await self.once()
            except StateError as error:
                log.warning(
                    "maintenance of the history failed",
                    extra={"event": "maintenance_failed", "error": str(error)},
                )
            except Exception:  # a bug here must not end the run; at most one trace a round
                log.exception("maintenance of the history failed", extra={"event": "upkeep_bug"})

    async def once(self) -> None:
        """Do one round. Raises StateError."""
        if self._prices:
            # Polls look for newer prices, too, but not every exporter polls usage.
            await self._recorder.do(partial(self._prices.refresh, self._recorder.clock.now()))
        await self._recorder.do(self._recorder.keep_times)
        keep = self._keep(int(self._recorder.earliest()))
        for source_state in (*self._recorder.source_states, *self._also):
            work = partial(maintain, self._store, source_state, keep)
            while await self._recorder.do(work):
                await self._recorder.clock.sleep(PAUSE)
        now = int(self._recorder.clock.now())
        for organization in self._organizations:
            await self._compare(organization, now)

    async def _compare(self, organization: str, now: int) -> None:
        end = floor(now - BILLED_AFTER, Width.DAY)
        days = await self._recorder.do(
            lambda: self._store.estimated_and_billed(organization, end - 7 * Width.DAY, end)
        )
        for span, count in SPANS.items():
            start = end - count * Width.DAY
            recent = [costs for day, costs in days.items() if day >= start]
            # `days` has no day without both costs, and fewer days are another span.
            if len(recent) < count:
                continue
            difference = Decimal(0)
            for estimated, billed in recent:
                difference += estimated - billed
            self._telemetry.estimate_difference(organization, span, float(difference))
