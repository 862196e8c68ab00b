"""Reads past usage and costs into the store: only what lies before counting began, so that no
counter ever moves.

What was read is noted with its rows, so that a stopped backfill goes on where it was.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from otel_openai_usage.domain import windows
from otel_openai_usage.domain.endpoints import COST_LIMIT, COSTS, LIMITS
from otel_openai_usage.domain.model import Width, Window, floor
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine import recording
from otel_openai_usage.errors import GroupingRefused, LookbackExceeded, NotOffered
from otel_openai_usage.storage.ports import Source
from otel_openai_usage.storage.sqlite.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One call to make."""

    window: Window
    width: Width


def plan(
    source_state: SourceState, start: int, end: int, hours_from: int, done: Sequence[Window]
) -> list[Call]:
    """The calls that read [start, end) before counting began, newest first; `done` was read before.

    Days before `hours_from`, hours after it, and the minutes of the hour in which counting began.
    """
    end = min(end, source_state.progress.epoch)
    if source_state.endpoint is COSTS:
        return list(_tiles(start, end, Width.DAY, COST_LIMIT, done))
    days_to = min(max(floor(hours_from, Width.DAY), start), floor(end, Width.DAY))
    hours_to = floor(end, Width.HOUR)
    calls = [*_tiles(hours_to, end, Width.MINUTE, LIMITS[Width.MINUTE], done)]
    calls += _tiles(days_to, hours_to, Width.HOUR, LIMITS[Width.HOUR], done)
    calls += _tiles(start, days_to, Width.DAY, LIMITS[Width.DAY], done)
    return calls


def _tiles(
    start: int, end: int, width: Width, limit: int, done: Sequence[Window]
) -> Iterator[Call]:
    unread: tuple[Window, ...] = (Window(start, end),) if start < end else ()
    for window in done:
        unread = windows.without(unread, window)
    for window in reversed(unread):
        high = window.end
        while high > window.start:
            low = max(window.start, high - limit * width)
            yield Call(Window(low, high), width)
            high = low


async def read(
    store: Store,
    source_state: SourceState,
    source: Source,
    calls: Sequence[Call],
    now: int,
    told: Callable[[Call], None],
    prices: PriceList | None,
) -> int:
    """Make the calls, and keep each before the next. How many rows came. Raises SourceError or
    StateError.

    Where OpenAI does not report that far back, or has no such endpoint here, the rest is left.
    """
    rows = 0

    async def make(call: Call) -> None:
        nonlocal rows
        try:
            buckets = await source.read(
                call.window, call.width, source_state.group_by(call.window.start)
            )
        except (GroupingRefused, LookbackExceeded) as error:
            for part in _parts(store, source_state, call, error):
                await make(part)
            return
        reading = {bucket.start: source.parse(bucket.results) for bucket in buckets}
        source_state.organization_id = source.organization_id or source_state.organization_id
        recording.record_range(
            store,
            source_state,
            call.window,
            call.width,
            reading,
            now,
            prices if source_state.endpoint is not COSTS else None,
        )
        store.mark_backfilled(source_state, call.window)
        rows += sum(map(len, reading.values()))

    for place, call in enumerate(calls):
        try:
            await make(call)
        except (LookbackExceeded, NotOffered) as error:
            log.warning(
                "the past of a source ends here",
                extra={"source": source_state.endpoint.source, "error": str(error)},
            )
            for rest in calls[place:]:
                told(rest)
            break
        told(call)
    return rows


def _parts(
    store: Store, source_state: SourceState, call: Call, error: GroupingRefused | LookbackExceeded
) -> Sequence[Call]:
    """The calls to make in place of one that OpenAI refuses. Raises the error if there are none."""
    if isinstance(error, LookbackExceeded):
        if call.window.end - call.window.start <= call.width:
            raise error
        return _halves(call)
    left_out = recording.leave_out(store, source_state, call.window, error)
    if left_out is None:
        raise error
    if left_out.news:
        log.warning(
            error.summary,
            extra=error.facts(source_state.organization, source_state.endpoint.source),
        )
    return [Call(window, call.width) for window in windows.pieces(call.window, source_state.cuts)]


def _halves(call: Call) -> tuple[Call, Call]:
    """The newer half of a call, and the older: OpenAI may report as far back as the one."""
    middle = call.window.end - (call.window.end - call.window.start) // call.width // 2 * call.width
    return Call(Window(middle, call.window.end), call.width), Call(
        Window(call.window.start, middle), call.width
    )
