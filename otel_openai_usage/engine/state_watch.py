"""Looks after the state itself: says at the start what it is, and keeps its main file and its marker
up to date.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace

from otel_openai_usage.domain.commits import Delta
from otel_openai_usage.domain.model import Width, Window, floor, utc
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine import recording
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.ports import Writer

log = logging.getLogger(__name__)

INTERVAL = 120.0
"""Seconds between two checkpoints. What came since is in the write-ahead log only."""
LOOK = 5.0
"""Seconds between two looks whether `state accept` asked for something."""


def report(store: Writer) -> None:
    """One line on the state at every start, and one for each loss that nobody accepted."""
    if store.opening.is_new or store.opening.counting_since is None:
        log.info("the state is new", extra={"event": "state_new", "path": store.path})
    else:
        opened = {
            "event": "state_opened",
            "path": store.path,
            "counting_since": _time(store.opening.counting_since),
            "last_write": _time(store.opening.last_write)
            if store.opening.last_write
            else "unknown",
        }
        log.info("the state counts since %s", _time(store.opening.counting_since), extra=opened)
    for event, sentence in store.opening.warnings:
        log.warning(sentence, extra={"event": event})
    for loss in store.losses:
        facts: dict[str, object] = {
            "event": "state_lost",
            "reason": loss.reason,
            "lost_seconds": loss.seconds,
            "found": _time(loss.found),
            "path": store.path,
        }
        log.warning(
            "the state is not as it was left: %s. What OpenAI still reports of that time is read"
            " again (usage.reconcile); metered events of it are gone. Restore a backup, or accept"
            " it with `otel-openai-usage state accept`",
            loss.details,
            extra=facts,
        )


def _time(seconds: int) -> str:
    return utc(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_again(store: Writer, source_states: Iterable[tuple[SourceState, int]], now: int) -> None:
    """After a loss: count the last `reconcile` seconds of each book as unread, so that the first
    poll reads all of it. Raises StateError.
    """
    if not store.needs_reread:
        return
    for source_state, reconcile in source_states:
        progress = source_state.progress
        start = max(progress.epoch, floor(now - reconcile, Width.DAY))
        end = progress.horizon
        if source_state.endpoint.level or end is None or end <= start:
            continue
        older = tuple(
            Window(window.start, min(window.end, start))
            for window in progress.unread
            if window.start < start
        )
        source_state.progress = replace(progress, unread=(*older, Window(start, end)))
        recording.keep(store, source_state, now)
    store.set_reread()


class StateCare:
    """Writes the log back every few minutes, beside the polls, and does what `state accept` asks."""

    def __init__(self, recorder: Recorder, store: Writer) -> None:
        self._recorder = recorder
        self._store = store

    async def forever(self) -> None:
        """What goes wrong is logged, and tried again in the next round."""
        clock = self._recorder.clock
        last = clock.mono()
        while True:
            await clock.sleep(LOOK)
            try:
                await self.take_acceptance()
                if clock.mono() - last >= INTERVAL:
                    last = clock.mono()
                    await self.once()
            except StateError as error:
                facts = {"event": "state_checkpoint_failed", "error": str(error)}
                log.warning("looking after the state", extra=facts)

    async def once(self) -> None:
        """Write back what is in the log; only then bring the marker up to date, which takes the
        keeper's thread for some milliseconds. Raises StateError.
        """
        await asyncio.to_thread(self._store.checkpoint)
        await self._recorder.do(self._store.sync)

    async def take_acceptance(self) -> None:
        """Accept the reported losses if `state accept` asked for it. Raises StateError."""
        if self._store.acceptance_requested:
            await self._recorder.do(self._accept)
            self._recorder.notify()

    def _accept(self) -> None:
        accepted, changed = self._store.accept()
        for source_state in self._recorder.source_states:
            restated = []
            for id_, (total, shown) in changed.items():
                stored_series = source_state.series.by_id.get(id_)
                if stored_series is not None:
                    stored_series.total = total
                    stored_series.shown = shown
                    restated.append(stored_series)
            self._recorder.apply(Delta(source_state, restated))
        for loss in accepted:
            facts = {"event": "state_accepted", "reason": loss.reason}
            log.info("accepted: %s", loss.details, extra=facts)
