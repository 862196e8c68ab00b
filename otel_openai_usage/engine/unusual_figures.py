"""Keeps the scores of unusual cost up to date, as `cost_figures` does for the month."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from otel_openai_usage.domain.model import Width, floor
from otel_openai_usage.domain.ownership import organization_scope
from otel_openai_usage.domain.unusual import KEPT, Score, Subject, Usual, scores, usual
from otel_openai_usage.engine.cost_figures import PAUSE_FACTOR
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.ports import Writer

log = logging.getLogger(__name__)

INTERVAL = 60.0
"""Seconds between two computations, at least. The past is looked at once an hour."""


class UnusualFigures:
    """The scores of the organizations that the exporter polls. `owns` is asked for their scopes."""

    def __init__(
        self,
        recorder: Recorder,
        store: Writer,
        organizations: Sequence[str],
        owns: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._owns = owns
        self._recorder = recorder
        self._store = store
        self._organizations = organizations
        self._next = float("-inf")
        self._hour = -1
        self._usual: dict[str, Mapping[Subject, Usual]] = {}

    def reset(self) -> None:
        """Compute the scores again before the next snapshot, the past included."""
        self._next = float("-inf")
        self._usual = {}

    def refresh(self, now: float, mono: float) -> None:
        """Compute the scores again if it is time. In the recorder's thread."""
        hour = floor(int(now), Width.HOUR)
        if mono < self._next and hour == self._hour:
            return
        began = time.perf_counter()
        found: dict[str, list[Score]] = {}
        try:
            for organization in self._organizations:
                if not self._owns(organization_scope(organization)):
                    continue
                found[organization] = self._scores(organization, now, hour)
        except StateError as error:
            # The last scores stay; the next round tries again.
            log.debug(
                "unusual cost was not computed",
                extra={"event": "unusual_failed", "error": str(error)},
            )
            return
        self._recorder.snapshot_builder.apply_unusual(found)
        self._hour = hour
        self._next = mono + max(INTERVAL, PAUSE_FACTOR * (time.perf_counter() - began))

    def _scores(self, organization: str, now: float, hour: int) -> list[Score]:
        today = floor(int(now), Width.DAY)
        # Late usage of past days changes little: they are looked at once an hour.
        if hour != self._hour or organization not in self._usual:
            past = self._store.hourly_costs(organization, today - KEPT, today)
            self._usual[organization] = usual(past, now)
        costs = self._store.hourly_costs(organization, today, today + Width.DAY)
        return scores(costs, self._usual[organization], now)
