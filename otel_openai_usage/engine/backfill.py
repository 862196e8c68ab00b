"""Reads past usage and costs into the store: only what lies before counting began, so that no
counter ever moves.

Each window that was read is marked together with its rows, so that a stopped backfill continues
where it was.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from otel_openai_usage.domain import windows
from otel_openai_usage.domain.model import Rows, Width, Window, floor
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.readings import Reading
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine import polling, recording
from otel_openai_usage.engine.ports import Source
from otel_openai_usage.errors import GroupingRefused, LookbackExceeded, NotOffered
from otel_openai_usage.storage.ports import Writer

log = logging.getLogger(__name__)


T = TypeVar("T")


class Run(Protocol):
    """Runs work that uses the store, and returns what it returns."""

    async def __call__(self, work: Callable[[], T], /) -> T: ...


@dataclass(frozen=True, slots=True)
class Call:
    """One call to make."""

    window: Window
    width: Width


def plan(
    source_state: SourceState, start: int, end: int, hours_from: int, done: Sequence[Window]
) -> list[Call]:
    """The calls that read [start, end) before counting began, newest first, without the windows in
    `done`.

    They read days before `hours_from`, hours after it, and the minutes of the hour in which
    counting began.
    """
    end = min(end, source_state.progress.epoch)
    limits = source_state.endpoint.limits
    if source_state.endpoint.money:
        # OpenAI reports costs by whole UTC days only.
        return list(_calls(start, end, Width.DAY, limits[Width.DAY], done))
    days_end = min(max(floor(hours_from, Width.DAY), start), floor(end, Width.DAY))
    hours_end = floor(end, Width.HOUR)
    calls = list(_calls(hours_end, end, Width.MINUTE, limits[Width.MINUTE], done))
    calls += _calls(days_end, hours_end, Width.HOUR, limits[Width.HOUR], done)
    calls += _calls(start, days_end, Width.DAY, limits[Width.DAY], done)
    return calls


def _calls(
    start: int, end: int, width: Width, limit: int, done: Sequence[Window]
) -> Iterator[Call]:
    """Calls of at most `limit` buckets for the unread part of [start, end), newest first."""
    longest = limit * width
    for window in reversed(windows.unread(start, end, done)):
        call_end = window.end
        while call_end > window.start:
            call_start = max(window.start, call_end - longest)
            yield Call(Window(call_start, call_end), width)
            call_end = call_start


async def at_once(work: Callable[[], T]) -> T:
    """Run work that uses the store here and now, for a command that has no other thread."""
    return work()


async def read(
    store: Writer,
    source_state: SourceState,
    source: Source,
    calls: Sequence[Call],
    now: int,
    report: Callable[[Call], None],
    prices: PriceList | None,
    learn_units: Callable[[Mapping[str, set[str]]], None] = lambda units: None,
    run: Run = at_once,
) -> int:
    """Make the calls, and store each before the next. Return the number of rows that came.

    `run` runs what uses the store, in the thread to which the store belongs. `report` is called
    with each call that is done. Where OpenAI does not report that far back, or has no such endpoint
    here, the remaining calls are not made. Raises SourceError or StateError.
    """
    reader = _CallReader(store, source_state, source, now, prices, learn_units, run)
    for index, call in enumerate(calls):
        try:
            await reader.read(call)
        except (LookbackExceeded, NotOffered) as error:
            log.warning(
                "OpenAI does not report older usage of a source",
                extra={
                    "event": "backfill_ends",
                    "source": source_state.endpoint.source,
                    "error": str(error),
                },
            )
            for unmade in calls[index:]:
                report(unmade)
            break
        report(call)
    return reader.rows


class _CallReader:
    """Reads and stores the calls of one source, and counts the rows."""

    def __init__(
        self,
        store: Writer,
        source_state: SourceState,
        source: Source,
        now: int,
        prices: PriceList | None,
        learn_units: Callable[[Mapping[str, set[str]]], None],
        run: Run,
    ) -> None:
        self.rows = 0
        self._run = run
        self._store = store
        self._source_state = source_state
        self._source = source
        self._now = now
        self._learn_units = learn_units
        # What OpenAI billed needs no price.
        self._prices = None if source_state.endpoint.money else prices

    async def read(self, call: Call) -> None:
        """Read a call, in smaller calls if OpenAI refuses it. Raises SourceError or StateError."""
        state = self._source_state
        grouping = state.groupings.at(call.window.start)
        try:
            reading = await self._source.read(call.window, call.width, grouping, {})
        except (GroupingRefused, LookbackExceeded) as error:
            refused = error  # `error` ends with its block
            smaller_calls = await self._run(
                lambda: _smaller_calls(self._store, state, call, refused)
            )
            for smaller in smaller_calls:
                await self.read(smaller)
            return
        rows_by_start = {bucket.start: bucket.rows for bucket in reading.buckets}
        await self._run(lambda: self._record(call, reading, rows_by_start))
        for rows in rows_by_start.values():
            self.rows += len(rows)

    def _record(self, call: Call, reading: Reading, rows_by_start: Mapping[int, Rows]) -> None:
        """Store a reading, and that its window was read."""
        state = self._source_state
        state.organization_id = reading.organization_id or state.organization_id
        self._learn_units(reading.units)
        recording.record_range(
            self._store, state, call.window, call.width, rows_by_start, self._now, self._prices
        )
        self._store.mark_backfilled(state, call.window)


def _smaller_calls(
    store: Writer, source_state: SourceState, call: Call, error: GroupingRefused | LookbackExceeded
) -> Sequence[Call]:
    """The calls to make in place of one that OpenAI refuses. Raises the error if there are none."""
    if isinstance(error, LookbackExceeded):
        is_one_bucket = call.window.end - call.window.start <= call.width
        if is_one_bucket:
            raise error
        return _halves(call)
    left_out = polling.leave_out(store, source_state, call.window, error)
    if left_out is None:
        raise error
    if left_out.news:
        facts = error.facts(source_state.organization, source_state.endpoint.source)
        log.warning(error.summary, extra=facts)
    parts = windows.pieces(call.window, source_state.groupings.cuts)
    return [Call(part, call.width) for part in parts]


def _halves(call: Call) -> tuple[Call, Call]:
    """The newer and the older half: OpenAI may report as far back as the newer one."""
    window = call.window
    buckets = (window.end - window.start) // call.width
    middle = window.end - buckets // 2 * call.width
    newer = Call(Window(middle, window.end), call.width)
    older = Call(Window(window.start, middle), call.width)
    return newer, older
