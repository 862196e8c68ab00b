"""Logs the condition of the state at the start, and writes checkpoints while it is open."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace

from otel_openai_usage.domain.commits import Delta
from otel_openai_usage.domain.model import Width, Window, floor, utc
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine import polling
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.ports import Writer

log = logging.getLogger(__name__)

INTERVAL = 120.0
"""Seconds between two checkpoints. Newer commits are in the write-ahead log only."""
CHECK_INTERVAL = 5.0
"""Seconds between two checks whether `state accept` was run."""


def report(store: Writer) -> None:
    """Log one line on the state, and one for each loss that is not accepted."""
    if store.opening.is_new or store.opening.counting_since is None:
        log.info("the state is new", extra={"event": "state_new", "path": store.path})
    else:
        last_write = "unknown"
        if store.opening.last_write:
            last_write = _time(store.opening.last_write)
        opened = {
            "event": "state_opened",
            "path": store.path,
            "counting_since": _time(store.opening.counting_since),
            "last_write": last_write,
        }
        log.info(
            "the state counts since %s",
            _time(store.opening.counting_since),
            extra={"event": "state_opened", **opened},
        )
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
            extra={"event": "state_lost", **facts},
        )


def _time(seconds: int) -> str:
    return utc(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_again(store: Writer, source_states: Iterable[tuple[SourceState, int]], now: int) -> None:
    """After a loss, mark the last seconds of each source as unread, so that the first poll reads
    them. Each source comes with its `reconcile` seconds. Raises StateError.
    """
    if not store.needs_reread:
        return
    for source_state, reconcile in source_states:
        progress = source_state.progress
        start = max(progress.epoch, floor(now - reconcile, Width.DAY))
        end = progress.horizon
        # Only the newest value of a level counts, so an old one need not be read again.
        if source_state.endpoint.level or end is None or end <= start:
            continue
        older = tuple(
            Window(window.start, min(window.end, start))
            for window in progress.unread
            if window.start < start
        )
        progress = replace(progress, unread=(*older, Window(start, end)))
        polling.write_progress(store, source_state, progress, now)
    store.set_reread()


class StateCare:
    """Writes checkpoints beside the polls, and accepts losses after `state accept`."""

    def __init__(self, recorder: Recorder, store: Writer) -> None:
        self._recorder = recorder
        self._store = store

    async def forever(self) -> None:
        """Do a round every few seconds. An error is logged, and the next round tries again."""
        clock = self._recorder.clock
        last = clock.mono()
        while True:
            await clock.sleep(CHECK_INTERVAL)
            try:
                await self.take_acceptance()
                if clock.mono() - last >= INTERVAL:
                    last = clock.mono()
                    await self.once()
            except StateError as error:
                facts = {"event": "state_checkpoint_failed", "error": str(error)}
                log.warning("a checkpoint of the state was not written", extra=facts)
            except Exception:  # a bug here must not end the run
                log.exception("looking after the state", extra={"event": "state_care_bug"})

    async def once(self) -> None:
        """Copy the write-ahead log into the main file, then update the marker. Raises StateError.

        Only the marker needs the recorder's thread, for some milliseconds.
        """
        await asyncio.to_thread(self._store.checkpoint)
        await self._recorder.do(self._store.sync)

    async def take_acceptance(self) -> None:
        """Accept the reported losses if `state accept` was run. Raises StateError."""
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
            log.info("accepted: %s", loss.details, extra={"event": "state_accepted", **facts})
