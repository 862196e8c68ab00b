"""Records readings in one thread, and publishes what they changed."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeVar

from otel_openai_usage.domain.commits import Delta
from otel_openai_usage.domain.model import Names, Width
from otel_openai_usage.domain.pricing import PriceList, Unpriced
from otel_openai_usage.domain.readings import Reading
from otel_openai_usage.domain.series_marks import HighWaterMark, OverflowMember
from otel_openai_usage.domain.snapshot import Board
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.domain.trusted_time import KnownTimes, Present
from otel_openai_usage.domain.windows import Step
from otel_openai_usage.engine import polling, recording
from otel_openai_usage.engine.failure_log import SAY_AGAIN_AFTER
from otel_openai_usage.engine.recording import Recorded
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.ports import Writer
from otel_openai_usage.view.snapshot_builder import SnapshotBuilder

log = logging.getLogger(__name__)
T = TypeVar("T")

_KNOWN_TIMES = "known_times"
_CONTINUED = "continued_series"
_PAGE_SERVED = "page_served"

PUBLISH_GAP = 0.25
"""Least seconds between two snapshots: sources that end together are published together."""
PUBLISH_ANYWAY = 15.0
"""Seconds until the next snapshot if no source changed: time alone changes it, too. At midnight the
days of daily costs change.
"""


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks: `now` is in Unix seconds; `mono` is in seconds and never steps."""

    now: Callable[[], float]
    mono: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


def _was_shown(source_state: SourceState) -> bool:
    """Whether an older version of the exporter may have shown the source."""
    if source_state.endpoint.polled:
        return source_state.progress.complete
    return any(stored_series.changed for stored_series in source_state.series.values())


class Telemetry(Protocol):
    """Counts how polling goes. Times are in seconds."""

    def poll_began(self, organization: str, source: str, lag: float) -> None: ...
    def polled(self, organization: str, source: str, seconds: float, rows: int) -> None: ...
    def late(self, organization: str, source: str, lag: str, tokens: int) -> None: ...
    def gap(
        self, organization: str, source: str, outcome: Literal["healed", "lost"], seconds: float
    ) -> None: ...
    def unpriced(
        self, organization: str, operation: str, unpriced: Unpriced, amount: int
    ) -> None: ...
    def series(self, instrument: str, live: int, folded: int) -> None: ...


class Recorder:
    """Owns the thread in which source states, store and snapshot builder are used.

    A method that says "in the thread" must be called by `do` or `do_and_wait`.
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
        # The newest snapshot that each exporter tried to send. A series that is shown as 0 first
        # gets its value only after a snapshot with its 0 was sent.
        self._attempts: dict[str, int] = {}
        if otlp:
            self.expect_attempts("otlp")
        # Counts changes, so that a source can wait until its own change is published.
        self._generation = 0
        self._published_generation = 0
        self._changed = asyncio.Event()
        self._unwritten_members: list[OverflowMember] = []
        self._unwritten_marks: list[HighWaterMark] = []
        self._logged_at = -SAY_AGAIN_AFTER
        self.source_states: list[SourceState] = []
        self.before_snapshot: list[Callable[[float, float], None]] = []
        """Called in the thread before each snapshot, with the time and the time that never steps."""
        # One thread, so that source states, store and view need no locks.
        self._thread = ThreadPoolExecutor(1, "recorder")
        self._abandoned = False
        self._present = Present(clock.now(), clock.mono())
        self._served_is_written = False
        # This holds until `load` has read the stored value.
        snapshot_builder.series_index.page_served = False

    def load(self, names: Mapping[str, Names]) -> None:
        """Load the known times and all series. Raises StateError.

        `names` are by organization. Call it once, after `source_states` is complete.
        """
        wall = self.clock.now()
        mono = self.clock.mono()
        self._present = Present(wall, mono, self._known_times())
        for source_state in self.source_states:
            newest_end = source_state.status.newest_bucket
            if source_state.endpoint.polled and newest_end:
                # The width of that bucket is not stored. No bucket is longer than a day.
                self._present.reported(newest_end - Width.DAY, wall, mono)
        served = self.store.note(_PAGE_SERVED)
        if served is None:
            # The state is new, or of a version that did not write this.
            was_served = any(map(_was_shown, self.source_states))
            served = "1" if was_served else "0"
            self.store.set_note(_PAGE_SERVED, served)
        continued = self.store.note(_CONTINUED)
        self.snapshot_builder.series_index.continued = set(json.loads(continued or "[]"))
        self._served_is_written = served == "1"
        self.snapshot_builder.series_index.page_served = self._served_is_written
        self.fold(self.snapshot_builder.load(self.source_states, names, self.earliest(), mono))

    def note_continued(self) -> None:
        """Write which series continue another's total after a rename. In the thread.

        Raises StateError.
        """
        continued = self.snapshot_builder.series_index.continued
        if not continued:
            return
        stored = self.store.note(_CONTINUED)
        # Other replicas write theirs, too.
        text = json.dumps(sorted(continued.union(json.loads(stored or "[]"))))
        if stored != text:
            self.store.set_note(_CONTINUED, text)

    def adopt(self, source_states: Sequence[SourceState], names: Mapping[str, Names]) -> None:
        """Show sources that this replica owns now. In the thread. Raises StateError.

        `names` are of their organizations.
        """
        wall = self.clock.now()
        mono = self.clock.mono()
        for source_state in source_states:
            newest_end = source_state.status.newest_bucket
            if source_state.endpoint.polled and newest_end:
                self._present.reported(newest_end - Width.DAY, wall, mono)
        index = self.snapshot_builder.series_index
        # Whoever owned them may have written more since this replica began.
        index.remember(self.store.overflow_members(), self.store.high_water_marks())
        index.continued.update(json.loads(self.store.note(_CONTINUED) or "[]"))
        if not self._served_is_written:
            self._served_is_written = self.store.note(_PAGE_SERVED) == "1"
            index.page_served = index.page_served or self._served_is_written
        self.source_states += source_states
        self._show_sources(names)

    def leave(self, source_states: Collection[SourceState]) -> None:
        """Show these sources no more: another replica owns them. In the thread.

        Raises StateError; they are not shown all the same.
        """
        self.source_states[:] = [
            source_state for source_state in self.source_states if source_state not in source_states
        ]
        self._show_sources({})

    def _show_sources(self, names: Mapping[str, Names]) -> None:
        builder = self.snapshot_builder
        mono = self.clock.mono()
        self.fold(builder.replace(self.source_states, names, self.earliest(), mono))

    def _known_times(self) -> KnownTimes:
        text = self.store.note(_KNOWN_TIMES)
        return KnownTimes(*json.loads(text)) if text else KnownTimes()

    def before_page(self) -> None:
        """Note that a page is about to be served, or sent by OTLP. Any thread may call this.

        From now on new series are published as 0 first. Series that were published with their
        values at once are on the Board when this returns, so the page has them.
        """
        if self._served_is_written:
            return
        # If the thread has ended, nothing more is published.
        with suppress(RuntimeError, CancelledError):
            self._thread.submit(self._write_served).result()

    def _write_served(self) -> None:
        self.snapshot_builder.series_index.page_served = True
        try:
            self.store.set_note(_PAGE_SERVED, "1")
        except StateError as error:
            self._log_error(error)  # The next page tries it again.
        else:
            self._served_is_written = True

    @property
    def page_served(self) -> bool:
        """Whether a page was served on this state."""
        return self.snapshot_builder.series_index.page_served

    def record(
        self,
        source_state: SourceState,
        step: Step,
        reading: Reading,
        *,
        fine_from: int,
        refined: bool = False,
        prices: PriceList | None = None,
    ) -> Recorded:
        """Decide, commit and apply the reading of one step. In the thread.

        The arguments are those of `recording.record_reading`. Raises BadResponse or StateError;
        nothing changed then.
        """
        recorded = recording.record_reading(
            self.store,
            source_state,
            step,
            reading.buckets,
            int(self.latest()),
            fine_from=fine_from,
            refined=refined,
            prices=prices,
        )
        if reading.organization_id:
            source_state.organization_id = reading.organization_id
        self.reported(recorded.newest)
        self.apply(recorded.delta)
        return recorded

    def apply(self, delta: Delta) -> None:
        """Show in the next snapshot what a commit changed. In the thread. Raises StateError."""
        self.fold(self.snapshot_builder.apply(delta, self.earliest(), self.clock.mono()))

    def earliest(self) -> float:
        """A time that is certainly not in the future. Use it where age removes something."""
        return self._present.earliest(self.clock.now(), self.clock.mono())

    def latest(self) -> float:
        """The best guess of the present time."""
        return self._present.latest(self.clock.now(), self.clock.mono())

    def stamp(self) -> float:
        """The time to store for what is seen now, so that it does not look old too early."""
        return self._present.stamp(self.clock.now(), self.clock.mono())

    def reported(self, began: int | None) -> None:
        """Note that OpenAI reported usage in a bucket that began then. In the thread."""
        if began is not None:
            self._present.reported(began, self.clock.now(), self.clock.mono())

    def keep_times(self) -> None:
        """Write the known times. In the thread. Raises StateError."""
        known = self._present.known(self.clock.mono())
        self.store.set_note(_KNOWN_TIMES, json.dumps([known.proven, known.assumed]))

    async def do(self, work: Callable[[], T]) -> T:
        """Run `work` in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def do_and_wait(self, work: Callable[[], T]) -> T:
        """Run `work` in the thread, for a caller that cannot await."""
        return self._thread.submit(work).result()

    @property
    def attempted(self) -> int | None:
        """The newest snapshot that every sending exporter tried to send; None if none sends."""
        return min(self._attempts.values(), default=None)

    def expect_attempts(self, exporter: str) -> None:
        """Wait with the values of new series until this exporter tried to send their 0, too."""
        self._attempts[exporter] = 0

    def sent(self, version: int, ok: bool, exporter: str = "otlp") -> None:
        """Note that an exporter tried to send a snapshot, whether it arrived or not."""
        self._attempts[exporter] = version

    def notify(self) -> int:
        """Note that something may have changed. Return the generation that it belongs to."""
        self._generation += 1
        self._changed.set()
        return self._generation

    def is_published(self, generation: int) -> bool:
        """Whether the changes up to a generation are on the Board, and rendered for readers."""
        return self._published_generation >= generation

    def fold(self, members: Sequence[OverflowMember], marks: Sequence[HighWaterMark] = ()) -> None:
        """Write overflow members and high-water marks, before they are published.

        In the thread. Raises StateError; the next call then writes them.
        """
        self._unwritten_members += members
        self._unwritten_marks += marks
        if self._unwritten_members or self._unwritten_marks:
            self.store.add_overflow(self._unwritten_members, self._unwritten_marks)
            self._unwritten_members.clear()
            self._unwritten_marks.clear()

    def publish(self) -> bool:
        """Publish a snapshot if something changed, and return whether it did. In the thread.

        Raises StateError.
        """
        now = self.clock.now()
        mono = self.clock.mono()
        certain = self.earliest()
        series_index = self.snapshot_builder.series_index
        self.fold(series_index.resume(certain, mono))
        series_index.forget(certain)
        self._release(series_index.releasable(mono, self.attempted))
        for prepare in self.before_snapshot:
            prepare(now, mono)
        snapshot = self.snapshot_builder.snapshot(now, mono)
        if snapshot is None:
            return False
        self.fold([], series_index.take_marks())
        self.board.publish(snapshot)
        for instrument, (live, folded) in series_index.counts().items():
            self.telemetry.series(instrument, live, folded)
        for instrument, left_out in self.snapshot_builder.left_out.items():
            if left_out:
                self.telemetry.series(instrument, len(snapshot.points[instrument]), left_out)
        return True

    def release_zeros(self) -> None:
        """Give series that were exported as 0 their values in the next snapshot. In the thread.

        For a process that exports once and then stops.
        """
        self._release(self.snapshot_builder.series_index.releasable(float("inf"), None))

    def _release(self, stored_series_list: Sequence[StoredSeries]) -> None:
        """Note in the store that series were published as 0.

        If the disk is full, these series stay 0 for longer, and all else is published, so that
        users see that polls fail.
        """
        try:
            if stored_series_list:
                self.store.mark_released(stored_series_list)
        except StateError as error:
            self._log_error(error)
        else:
            self.snapshot_builder.series_index.release(stored_series_list)

    def _log_error(self, error: Exception) -> None:
        """Log why nothing new is published, at most once an hour. A bug has its traceback."""
        now = self.clock.mono()
        if now - self._logged_at < SAY_AGAIN_AFTER:
            return
        self._logged_at = now
        is_bug = not isinstance(error, StateError)
        log.error(
            "publishing failed",
            extra={"event": "publish_failed", "error": str(error)},
            exc_info=error if is_bug else None,
        )

    async def publish_once(self, render: Callable[[], Awaitable[None]]) -> None:
        """Publish what changed; `render` makes it ready for readers. Raises StateError."""
        # Read before the snapshot is built: a later change may not be in it.
        generation = self._generation
        if await self.do(self.publish):
            await render()
        self._published_generation = generation

    async def publish_forever(self, render: Callable[[], Awaitable[None]]) -> None:
        """Publish soon after each change; `render` makes the snapshot ready for readers."""
        while True:
            try:
                await self.publish_once(render)
            except StateError as error:
                self._log_error(error)
            except Exception as error:  # noqa: BLE001 - a bug here must not stop polls and events
                self._log_error(error)
            await self.clock.sleep(PUBLISH_GAP)
            is_waiting = self.snapshot_builder.series_index.waits
            pause = PUBLISH_GAP if is_waiting else PUBLISH_ANYWAY
            try:
                await asyncio.wait_for(self._changed.wait(), pause)
            except TimeoutError:
                continue
            finally:
                self._changed.clear()

    async def close(self) -> None:
        """Write the progress of every source, then end the thread."""
        if self._abandoned:
            return
        await self.do(self._write_all_progress)
        await asyncio.to_thread(self._thread.shutdown)

    def abandon(self) -> None:
        """End the thread after its current work, and write nothing more."""
        self._abandoned = True
        self._thread.shutdown(cancel_futures=True)

    def _write_all_progress(self) -> None:
        """Write all progress and the known times. An error does not stop the other writes."""
        now = int(self.clock.now())
        writes: list[Callable[[], None]] = [
            partial(polling.write_progress, self.store, source_state, source_state.progress, now)
            for source_state in self.source_states
        ]
        for write in (*writes, self.keep_times):
            try:
                write()
            except StateError as error:
                log.warning(
                    "the progress of reading was not written",
                    extra={"event": "progress_not_written", "error": str(error)},
                )
