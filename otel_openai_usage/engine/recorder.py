"""The one thread in which books, store and display are touched, and what is published out of it."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeVar

from otel_openai_usage.domain.commits import Delta
from otel_openai_usage.domain.endpoints import ENDPOINTS
from otel_openai_usage.domain.model import Names, Width
from otel_openai_usage.domain.series_marks import HighWaterMark, OverflowMember
from otel_openai_usage.domain.snapshot import Board
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.domain.trusted_time import KnownTimes, Present
from otel_openai_usage.engine import recording
from otel_openai_usage.engine.failure_log import SAY_AGAIN_AFTER
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.ports import Writer
from otel_openai_usage.view.snapshot_builder import SnapshotBuilder

log = logging.getLogger(__name__)
T = TypeVar("T")

REPORTED = frozenset(endpoint.path for endpoint in ENDPOINTS.values())
"""Sources whose buckets are OpenAI's word on what time it is."""
_KNOWN_TIMES = "known_times"
_PAGE_SERVED = "page_served"

PUBLISH_GAP = 0.25
"""Seconds between two snapshots at the least, so that sources that end together are shown together.
"""
PUBLISH_ANYWAY = 15.0
"""Seconds after which the Board is looked over even if no source said anything: midnight comes by
itself.
"""


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from. `now` in Unix seconds; `mono` never steps."""

    now: Callable[[], float]
    mono: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


def _was_shown(source_state: SourceState) -> bool:
    """Whether an older version may have shown the book."""
    if source_state.endpoint.path in REPORTED:
        return source_state.progress.complete
    return any(stored_series.changed for stored_series in source_state.series.values())


class Telemetry(Protocol):
    """Whom to tell how polling goes."""

    def poll_began(self, organization: str, source: str, lag: float) -> None: ...
    def polled(self, organization: str, source: str, seconds: float, rows: int) -> None: ...
    def late(self, organization: str, source: str, lag: str, tokens: int) -> None: ...
    def gap(
        self, organization: str, source: str, outcome: Literal["healed", "lost"], seconds: float
    ) -> None: ...
    def unpriced(self, organization: str, model: str, tokens: int) -> None: ...
    def series(self, instrument: str, live: int, folded: int) -> None: ...


class Recorder:
    """The one thread in which books, store and display are touched, and what is published out of
    it.
    """

    def __init__(
        self,
        store: Writer,
        snapshot_builder: SnapshotBuilder,
        board: Board,
        clock: Clock,
        telemetry: Telemetry,
        *,
        otlp: bool,
    ) -> None:
        self.store = store
        self.snapshot_builder = snapshot_builder
        self.board = board
        self.clock = clock
        self.telemetry = telemetry
        self.attempted: int | None = 0 if otlp else None
        self._told = 0
        self._shown = 0
        self._changed = asyncio.Event()
        self._unkept: list[OverflowMember] = []
        self._unheld: list[HighWaterMark] = []
        self._said = -SAY_AGAIN_AFTER
        self.source_states: list[SourceState] = []
        self._thread = ThreadPoolExecutor(1, "keeper")
        self._abandoned = False
        self._present = Present(clock.now(), clock.mono())
        self._served_kept = False
        snapshot_builder.series_index.page_served = False  # until `load` has asked the state

    def load(self, names: Mapping[str, Names]) -> None:
        """Take over what the state knows of the time, and shape the series of all books.

        Call it once, after the books were added. Raises StateError.
        """
        wall = self.clock.now()
        mono = self.clock.mono()
        self._present = Present(wall, mono, self._known_times())
        for source_state in self.source_states:
            if source_state.endpoint.path in REPORTED and source_state.status.newest_bucket:
                # Its width is not stored. No bucket is longer than a day.
                self._present.reported(source_state.status.newest_bucket - Width.DAY, wall, mono)
        served = self.store.note(_PAGE_SERVED)
        if served is None:
            # The state is new, or of a version that did not write this down.
            served = str(int(any(map(_was_shown, self.source_states))))
            self.store.set_note(_PAGE_SERVED, served)
        self._served_kept = served == "1"
        self.snapshot_builder.series_index.page_served = self._served_kept
        self.fold(self.snapshot_builder.load(self.source_states, names, self.earliest(), mono))

    def _known_times(self) -> KnownTimes:
        text = self.store.note(_KNOWN_TIMES)
        return KnownTimes(*json.loads(text)) if text else KnownTimes()

    def before_page(self) -> None:
        """A page is about to be served, or sent by OTLP. May be called in any thread, and waits.

        From now on new series are shown as 0 first. What the thread published before is on the
        Board when this returns, so a page that is made afterwards has all that is shown at once.
        """
        if self._served_kept:
            return
        with suppress(RuntimeError, CancelledError):  # the thread has ended, and publishes no more
            self._thread.submit(self._keep_served).result()

    def _keep_served(self) -> None:
        self.snapshot_builder.series_index.page_served = True
        try:
            self.store.set_note(_PAGE_SERVED, "1")
        except StateError as error:
            self._tell_of(error)  # written down with the next page
        else:
            self._served_kept = True

    @property
    def page_served(self) -> bool:
        """Whether a page was served on this state."""
        return self.snapshot_builder.series_index.page_served

    def apply(self, delta: Delta) -> None:
        """Let the next snapshot show what a commit changed. In the thread. Raises StateError."""
        self.fold(self.snapshot_builder.apply(delta, self.earliest(), self.clock.mono()))

    def earliest(self) -> float:
        """A time that has certainly come: what age removes is removed by this one."""
        return self._present.earliest(self.clock.now(), self.clock.mono())

    def latest(self) -> float:
        """The best guess of the present."""
        return self._present.latest(self.clock.now(), self.clock.mono())

    def stamp(self) -> float:
        """The time to keep of what was last seen now, so that it does not look old too early."""
        return self._present.stamp(self.clock.now(), self.clock.mono())

    def reported(self, began: int | None) -> None:
        """OpenAI reported usage in a bucket that began then. In the thread."""
        if began is not None:
            self._present.reported(began, self.clock.now(), self.clock.mono())

    def keep_times(self) -> None:
        """Write down what is known of the time. In the thread. Raises StateError."""
        known = self._present.known(self.clock.mono())
        self.store.set_note(_KNOWN_TIMES, json.dumps([known.proven, known.assumed]))

    async def do(self, work: Callable[[], T]) -> T:
        """Run `work` in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def do_and_wait(self, work: Callable[[], T]) -> T:
        """Run `work` in the thread, for a caller that cannot await."""
        return self._thread.submit(work).result()

    def sent(self, version: int, ok: bool) -> None:
        """OTLP tried to send that version; whether it arrived does not matter here."""
        self.attempted = version

    def notify(self) -> int:
        """Something may have changed; the number by which `shows` knows it."""
        self._told += 1
        self._changed.set()
        return self._told

    def is_published(self, told: int) -> bool:
        """Whether what was told then is on the Board, and ready for readers."""
        return self._shown >= told

    def fold(self, folds: Sequence[OverflowMember], floors: Sequence[HighWaterMark] = ()) -> None:
        """Remember what was folded, and what must not fall, before it is shown.

        What cannot be kept now is kept with the next. Raises StateError.
        """
        self._unkept += folds
        self._unheld += floors
        if self._unkept or self._unheld:
            self.store.add_overflow(self._unkept, self._unheld)
            self._unkept.clear()
            self._unheld.clear()

    def publish(self) -> bool:
        """Put on the Board what is new. In the thread. True if anything was."""
        now = self.clock.now()
        mono = self.clock.mono()
        certain = self.earliest()
        series_index = self.snapshot_builder.series_index
        self.fold(series_index.resume(certain, mono))
        series_index.forget(certain)
        self._release(series_index.releasable(mono, self.attempted))
        snapshot = self.snapshot_builder.snapshot(now, mono)
        if snapshot is None:
            return False
        self.board.publish(snapshot)
        for instrument, (live, folded) in series_index.counts().items():
            self.telemetry.series(instrument, live, folded)
        return True

    def release_zeros(self) -> None:
        """An export had the series that are shown as 0, and this process makes no other: the next
        one shows what they are. In the thread.
        """
        self._release(self.snapshot_builder.series_index.releasable(float("inf"), None))

    def _release(self, stored_series_list: Sequence[StoredSeries]) -> None:
        """Without room on the disk new series stay 0 for longer; all else is shown, not least that
        polls fail.
        """
        try:
            if stored_series_list:
                self.store.mark_released(stored_series_list)
        except StateError as error:
            self._tell_of(error)
        else:
            self.snapshot_builder.series_index.release(stored_series_list)

    def _tell_of(self, error: Exception) -> None:
        """Log why nothing new is shown, at most once an hour; with its trace if it is a bug."""
        if self.clock.mono() - self._said >= SAY_AGAIN_AFTER:
            self._said = self.clock.mono()
            foreseen = isinstance(error, StateError)
            log.error(
                "publishing",
                extra={"event": "publish_failed", "error": str(error)},
                exc_info=None if foreseen else error,
            )

    async def publish_once(self, render: Callable[[], Awaitable[None]]) -> None:
        """Publish what changed; `render` makes it ready for readers. Raises StateError."""
        told = self._told
        if await self.do(self.publish):
            await render()
        self._shown = told

    async def publish_forever(self, render: Callable[[], Awaitable[None]]) -> None:
        """Publish what changes, soon after it did; `render` makes it ready for readers."""
        while True:
            try:
                await self.publish_once(render)
            except StateError as error:
                self._tell_of(error)
            except Exception as error:  # noqa: BLE001 - a bug here must not stop polls and events
                self._tell_of(error)
            await self.clock.sleep(PUBLISH_GAP)
            pause = PUBLISH_GAP if self.snapshot_builder.series_index.waits else PUBLISH_ANYWAY
            try:
                await asyncio.wait_for(self._changed.wait(), pause)
            except TimeoutError:
                continue
            finally:
                self._changed.clear()

    async def close(self) -> None:
        """Write down how far reading has come, and end the thread after what it is doing."""
        if self._abandoned:
            return
        await self.do(self._keep)
        await asyncio.to_thread(self._thread.shutdown)

    def abandon(self) -> None:
        """End the thread after what it is doing, and write nothing more."""
        self._abandoned = True
        self._thread.shutdown(cancel_futures=True)

    def _keep(self) -> None:
        now = int(self.clock.now())
        steps: list[Callable[[], None]] = [
            partial(recording.keep, self.store, source_state, now)
            for source_state in self.source_states
        ]
        for step in (*steps, self.keep_times):
            try:
                step()
            except StateError as error:
                log.warning("keeping how far reading has come", extra={"error": str(error)})
