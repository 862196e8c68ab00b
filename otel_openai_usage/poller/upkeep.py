"""Looks after what is stored: old rows become coarser or go, and estimated cost is compared with
what OpenAI billed.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from otel_openai_usage.core.book import Book
from otel_openai_usage.core.model import Width, floor
from otel_openai_usage.core.retention import Retention
from otel_openai_usage.errors import StateError
from otel_openai_usage.poller.keeper import Keeper

log = logging.getLogger(__name__)

INTERVAL = 600.0
"""Seconds between two rounds."""
PAUSE = 0.05
"""Seconds between two small transactions of a round, so that polls are not kept waiting."""
BILLED_AFTER = Width.DAY
"""Seconds after which a day's costs count as settled: OpenAI adds to them for hours."""
SPANS = {"day": 1, "week": 7}


class HistoryStore(Protocol):
    """What survives, as this room needs it. Every method raises StateError."""

    def tidy(self, book: Book, keep: Retention) -> bool:
        """Do one small piece of upkeep for a book's history. False if there was nothing to do."""
        ...

    def spent(
        self, organization: str, start: int, end: int
    ) -> Mapping[int, tuple[Decimal, Decimal]]:
        """Estimated and billed cost in US dollars of the UTC days in [start, end) for which both
        are known, by day.
        """
        ...


class Telemetry(Protocol):
    """Whom to tell how well costs are estimated."""

    def estimate_difference(self, organization: str, span: str, amount: float) -> None: ...


class Upkeep:
    """Looks after the history of the keeper's books, and of others that are only kept. Times in
    seconds.
    """

    def __init__(
        self,
        keeper: Keeper,
        store: HistoryStore,
        telemetry: Telemetry,
        organizations: Sequence[str],
        keep: Callable[[int], Retention],
        *,
        also: Sequence[Book] = (),
    ) -> None:
        self._keeper = keeper
        self._store = store
        self._telemetry = telemetry
        self._organizations = organizations
        self._also = tuple(also)
        self._keep = keep

    async def forever(self) -> None:
        """A round every few minutes; what goes wrong is told, and tried again in the next."""
        while True:
            await self._keeper.clock.sleep(INTERVAL)
            try:
                await self.once()
            except StateError as error:
                log.warning("looking after the history", extra={"error": str(error)})
            except Exception:  # a bug here must not end the run; at most one trace a round
                log.exception("looking after the history", extra={"event": "upkeep_bug"})

    async def once(self) -> None:
        """Do all that is to be done. Raises StateError."""
        await self._keeper.do(self._keeper.keep_times)
        keep = self._keep(int(self._keeper.earliest()))
        for book in (*self._keeper.books, *self._also):
            while await self._keeper.do(lambda book=book: self._store.tidy(book, keep)):  # type: ignore[misc]
                await self._keeper.clock.sleep(PAUSE)
        now = int(self._keeper.clock.now())
        for organization in self._organizations:
            await self._compare(organization, now)

    async def _compare(self, organization: str, now: int) -> None:
        end = floor(now - BILLED_AFTER, Width.DAY)
        days = await self._keeper.do(
            lambda: self._store.spent(organization, end - 7 * Width.DAY, end)
        )
        for span, count in SPANS.items():
            within = [pair for day, pair in days.items() if day >= end - count * Width.DAY]
            if len(within) == count:
                difference = sum((estimated - billed for estimated, billed in within), Decimal(0))
                self._telemetry.estimate_difference(organization, span, float(difference))
