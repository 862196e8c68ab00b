"""Reads past usage and costs into the store: only what lies before counting began, so that no
counter ever moves.

What was read is noted with its rows, so that a stopped backfill goes on where it was.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from otel_openai_usage import pipeline
from otel_openai_usage.core import windows
from otel_openai_usage.core.book import Book
from otel_openai_usage.core.estimate import PriceBook
from otel_openai_usage.core.kinds import COST_LIMIT, COSTS, LIMITS
from otel_openai_usage.core.model import Width, Window, floor
from otel_openai_usage.core.ports import Source
from otel_openai_usage.errors import GroupingRefused, LookbackExceeded, NotOffered
from otel_openai_usage.state.sqlite import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One call to make."""

    window: Window
    width: Width


def plan(book: Book, start: int, end: int, hours_from: int, done: Sequence[Window]) -> list[Call]:
    """The calls that read [start, end) before counting began, newest first; `done` was read before.

    Days before `hours_from`, hours after it, and the minutes of the hour in which counting began.
    """
    end = min(end, book.progress.epoch)
    if book.kind is COSTS:
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
    book: Book,
    source: Source,
    calls: Sequence[Call],
    now: int,
    told: Callable[[Call], None],
    prices: PriceBook | None,
) -> int:
    """Make the calls, and keep each before the next. How many rows came. Raises SourceError or
    StateError.

    Where OpenAI does not report that far back, or has no such endpoint here, the rest is left.
    """
    rows = 0

    async def make(call: Call) -> None:
        nonlocal rows
        try:
            buckets = await source.read(call.window, call.width, book.group_by(call.window.start))
        except (GroupingRefused, LookbackExceeded) as error:
            for part in _parts(store, book, call, error):
                await make(part)
            return
        reading = {bucket.start: source.parse(bucket.results) for bucket in buckets}
        book.organization_id = source.organization_id or book.organization_id
        pipeline.book_past(
            store,
            book,
            call.window,
            call.width,
            reading,
            now,
            prices if book.kind is not COSTS else None,
        )
        store.mark_backfilled(book, call.window)
        rows += sum(map(len, reading.values()))

    for place, call in enumerate(calls):
        try:
            await make(call)
        except (LookbackExceeded, NotOffered) as error:
            log.warning(
                "the past of a source ends here",
                extra={"source": book.kind.source, "error": str(error)},
            )
            for rest in calls[place:]:
                told(rest)
            break
        told(call)
    return rows


def _parts(
    store: Store, book: Book, call: Call, error: GroupingRefused | LookbackExceeded
) -> Sequence[Call]:
    """The calls to make in place of one that OpenAI refuses. Raises the error if there are none."""
    if isinstance(error, LookbackExceeded):
        if call.window.end - call.window.start <= call.width:
            raise error
        return _halves(call)
    left_out = pipeline.leave_out(store, book, call.window, error)
    if left_out is None:
        raise error
    if left_out.news:
        log.warning(error.summary, extra=error.facts(book.organization, book.kind.source))
    return [Call(window, call.width) for window in windows.pieces(call.window, book.cuts)]


def _halves(call: Call) -> tuple[Call, Call]:
    """The newer half of a call, and the older: OpenAI may report as far back as the one."""
    middle = call.window.end - (call.window.end - call.window.start) // call.width // 2 * call.width
    return Call(Window(middle, call.window.end), call.width), Call(
        Window(call.window.start, middle), call.width
    )
