"""Keeps the figures of the month up to date: what it cost so far, and what it will have cost.

They are computed from the store, in the recorder's thread, when a snapshot is about to be built:
at most every few seconds, and seldom where that takes long.
"""

import logging
import time
from collections.abc import Mapping, Sequence

from otel_openai_usage.domain.endpoints import COSTS, USAGE_ENDPOINTS
from otel_openai_usage.domain.model import Width, floor
from otel_openai_usage.domain.month_costs import (
    ESTIMATED_FOR,
    MonthCosts,
    month_costs,
    month_of,
    unread_days,
)
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.ports import Writer

log = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two computations, at least."""
PAUSE_FACTOR = 50.0
"""The pause after a computation, as a multiple of its duration."""
_HISTORY = 2
"""Months before this one that a forecast looks at."""


class CostFigures:
    """The figures of the organizations that the exporter polls."""

    def __init__(
        self, recorder: Recorder, store: Writer, organizations: Sequence[str], *, bills: bool
    ) -> None:
        self._recorder = recorder
        self._store = store
        self._organizations = organizations
        self._bills = bills
        self._next = float("-inf")
        self._day = -1
        self._days_missing: Mapping[str, int] = {}

    @property
    def days_missing(self) -> Mapping[str, int]:
        """The days of this and the last month that are still to be read, by organization."""
        return self._days_missing

    def reset(self) -> None:
        """Compute the figures again before the next snapshot."""
        self._next = float("-inf")

    def refresh(self, now: float, mono: float) -> None:
        """Compute the figures again if it is time. In the recorder's thread."""
        day = floor(int(now), Width.DAY)
        if mono < self._next and day == self._day:
            return
        began = time.perf_counter()
        missing = {}
        for organization in self._organizations:
            try:
                figures = self._figures(organization, now)
            except StateError as error:
                # The last figures stay; the next round tries again.
                log.debug(
                    "the figures of the month were not computed",
                    extra={"event": "month_failed", "error": str(error)},
                )
                continue
            self._recorder.snapshot_builder.apply_month(organization, figures)
            missing[organization] = figures.days_missing
        self._days_missing = missing
        self._day = day
        self._next = mono + max(INTERVAL, PAUSE_FACTOR * (time.perf_counter() - began))

    def _figures(self, organization: str, now: float) -> MonthCosts:
        end = floor(int(now), Width.DAY) + Width.DAY
        history = month_of(now, _HISTORY).start
        new_days = floor(int(now) - ESTIMATED_FOR, Width.DAY) - Width.DAY
        estimated_from = new_days if self._bills else history
        costs = self._store.day_costs(organization, history, end, estimated_from)
        unread = self.unread(organization, month_of(now, 1).start, end, bills=self._bills)
        return month_costs(costs, unread.__contains__, now, bills=self._bills)

    def unread(self, organization: str, start: int, end: int, *, bills: bool) -> set[int]:
        """The days in [start, end) of which the bill, or otherwise any usage, was not read.

        In the recorder's thread. Raises StateError.

        A source that fails keeps its last values: only days before yesterday count as unread then.
        """
        unread: set[int] = set()
        yesterday = end - 2 * Width.DAY
        for source_state in self._sources(organization):
            if not _is_used(source_state, bills=bills):
                continue
            backfilled = self._store.backfilled(source_state)
            found = unread_days(source_state.progress, backfilled, start, end)
            is_new = not source_state.progress.complete
            epoch_day = floor(source_state.progress.epoch, Width.DAY)
            unread.update(
                day for day in found if is_new or day < min(epoch_day, end) or day < yesterday
            )
        return unread

    def _sources(self, organization: str) -> Sequence[SourceState]:
        found = [
            source_state
            for source_state in self._recorder.source_states
            if source_state.organization == organization
        ]
        shared = self._store.shared
        # Another replica polls it.
        return shared.sources_of(organization) if shared and not found else found


def _is_used(source_state: SourceState, *, bills: bool) -> bool:
    endpoint = source_state.endpoint
    if bills:
        return endpoint is COSTS
    return endpoint.name in USAGE_ENDPOINTS and not endpoint.level
