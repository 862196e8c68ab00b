"""Reads the past days that the store lacks, in the background at every start, so that the month is
right on the first day. No counter moves: what lies before counting began is no part of a total.

Costs come first. The requests have the lowest priority. Each window is marked together with its
rows, so that a stopped exporter continues where it was.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from otel_openai_usage.domain.model import Width, floor
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine import backfill
from otel_openai_usage.engine.backfill import Call
from otel_openai_usage.engine.loop import as_bug
from otel_openai_usage.engine.ports import Source
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.errors import ExporterError, StateError
from otel_openai_usage.storage.ports import Writer

log = logging.getLogger(__name__)

_FIRST_PAUSE = 30.0
_LONGEST_PAUSE = 600.0
"""Seconds until days that could not be read are asked for again: doubled each time."""
_BEFORE_POLLS = 1.0
"""Seconds between two looks whether the first polls have ended."""


@dataclass(frozen=True, slots=True)
class Past:
    """What is read. `since` is a UTC midnight in Unix seconds, for a time; None: nothing.

    `hours_back` is how many seconds back hours are read; before that whole days are. `sources` are
    by endpoint.
    """

    since: Callable[[float], int | None]
    hours_back: int
    sources: Mapping[str, Source]
    prices: PriceList | None
    learn_units: Callable[[Mapping[str, set[str]]], None]


class FirstHistory:
    """The past of one organization. `missing` is called with the number of days still to be read."""

    def __init__(
        self,
        recorder: Recorder,
        store: Writer,
        organization: str,
        source_states: Sequence[SourceState],
        past: Past,
        missing: Callable[[int], None],
    ) -> None:
        self.organization = organization
        self._recorder = recorder
        self._store = store
        self._past = past
        self._missing = missing
        # Costs first: the month's figures need only them.
        self._source_states = sorted(source_states, key=lambda state: not state.endpoint.money)
        self._unavailable: set[Call] = set()
        self._said = 0

    async def forever(self, has_polled: Callable[[], bool]) -> None:
        """Read until nothing is missing. Begins when the first polls have ended."""
        clock = self._recorder.clock
        while not has_polled():
            await clock.sleep(_BEFORE_POLLS)
        pause = _FIRST_PAUSE
        while not await self.once():
            await clock.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def once(self) -> bool:
        """Read what is missing. Return whether nothing is missing any more."""
        is_complete = True
        await self._tell()
        for source_state in self._source_states:
            try:
                await self._read(source_state)
            except ExporterError as error:
                is_complete = False
                self._failed(source_state, error)
            except Exception as bug:  # noqa: BLE001 - a bug here must not stop polls
                is_complete = False
                self._failed(source_state, as_bug(source_state.endpoint.source, bug))
        await self._tell()
        return is_complete

    async def _read(self, source_state: SourceState) -> None:
        calls = await self._recorder.do(lambda: self._calls(source_state))
        if not calls:
            return
        facts = {"organization": self.organization, "source": source_state.endpoint.source}
        log.info(
            "reading past days that the state lacks: %d requests",
            len(calls),
            extra={"event": "history_began", "requests": len(calls), **facts},
        )
        done: list[Call] = []
        rows = await backfill.read(
            self._store,
            source_state,
            self._past.sources[source_state.endpoint.name],
            calls,
            int(self._recorder.clock.now()),
            done.append,
            self._past.prices,
            self._past.learn_units,
            self._recorder.do,
        )
        # Where OpenAI reports nothing that old, nothing is missing.
        left = await self._recorder.do(lambda: self._calls(source_state))
        self._unavailable.update(left)
        log.info(
            "past days were read",
            extra={"event": "history_read", "requests": len(done), "rows": rows, **facts},
        )
        await self._tell()

    def _calls(self, source_state: SourceState) -> list[Call]:
        """The calls that are still to be made for a source. In the recorder's thread."""
        # Not the machine's clock: one that is years behind would ask for years.
        now = self._recorder.latest()
        since = self._past.since(now)
        if since is None or since >= source_state.progress.epoch:
            return []
        hours_from = int(now) - self._past.hours_back
        done = self._store.backfilled(source_state)
        epoch = source_state.progress.epoch
        planned = backfill.plan(source_state, since, epoch, hours_from, done)
        return [call for call in planned if call not in self._unavailable]

    async def _tell(self) -> None:
        """Say how many days are still to be read."""
        try:
            missing = await self._recorder.do(self._missing_days)
        except StateError as error:
            # The state is away, which is no reason to end: the next round says it.
            log.debug("days to be read", extra={"event": "history_failed", "error": str(error)})
            return
        self._missing(missing)
        self._recorder.notify()
        if missing != self._said:
            log.info(
                "%d past days are still to be read",
                missing,
                extra={
                    "event": "history_missing",
                    "organization": self.organization,
                    "days": missing,
                },
            )
        self._said = missing

    def _missing_days(self) -> int:
        days: set[int] = set()
        for source_state in self._source_states:
            for call in self._calls(source_state):
                first = floor(call.window.start, Width.DAY)
                days.update(range(first, call.window.end, Width.DAY))
        return len(days)

    def _failed(self, source_state: SourceState, error: ExporterError) -> None:
        log.warning(
            "past days of a source were not read; they are asked for again",
            extra={
                "event": "history_failed",
                "organization": self.organization,
                "source": source_state.endpoint.source,
                "error": str(error),
            },
        )
