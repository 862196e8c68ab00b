"""Reads past days of the legacy usage endpoint into the store, one request a day and user.

A day is marked when it was read completely, so that a stopped backfill continues where it was.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from otel_openai_usage.domain import legacy_day
from otel_openai_usage.domain.model import Rows, Width, Window, floor
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.domain.windows import unread
from otel_openai_usage.engine import recording
from otel_openai_usage.errors import BadRequest, NotOffered, RateLimited, SourceError, Unavailable
from otel_openai_usage.storage.ports import Writer

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""How often one day is tried if OpenAI does not answer, or asks for fewer requests."""
PAUSE = 60.0
"""Seconds between two attempts if OpenAI gives no Retry-After."""


class Answer(Protocol):
    """What the endpoint reports of one day: `providers.openai.legacy.source.Day`."""

    @property
    def hours(self) -> Mapping[int, Rows]: ...
    @property
    def by_user(self) -> bool: ...
    @property
    def unread(self) -> int: ...
    @property
    def records(self) -> int: ...


class Source(Protocol):
    """The endpoint. `read` yields what is known of a day after each answer for a user."""

    def read(self, day: int) -> AsyncIterator[Answer]: ...


def days(start: int, end: int, done: Sequence[Window]) -> list[int]:
    """The whole UTC days in [start, end) that were not read before, newest first."""
    found: list[int] = []
    for window in unread(start, floor(end, Width.DAY), done):
        found += range(window.start, window.end, Width.DAY)
    return sorted(found, reverse=True)


async def read(
    store: Writer,
    source_state: SourceState,
    source: Source,
    wanted: Sequence[int],
    now: int,
    report: Callable[[int], None],
    prices: PriceList | None,
    sleep: Callable[[float], Awaitable[None]],
    admit: Callable[[int, Answer], None],
) -> int:
    """Read the wanted days. Return the number of rows that came.

    `admit` may refuse an answer before it is stored. `report` is called with each day that is done.
    Where OpenAI refuses a date, older days are not read. Raises SourceError or StateError.
    """
    rows = 0
    for index, day in enumerate(wanted):
        try:
            answer = await _read_with_retries(source, day, sleep)
        except (BadRequest, NotOffered) as error:
            log.warning(
                "OpenAI does not report days that are older",
                extra={
                    "event": "backfill_ends",
                    "source": source_state.endpoint.source,
                    "error": str(error),
                },
            )
            for older in wanted[index:]:
                report(older)
            break
        admit(day, answer)
        hours = answer.hours
        if answer.by_user:
            # A user who has left the organization is not asked for any more: keep those rows.
            stored = store.rows_within(source_state, tuple(Width), day, day + Width.DAY)
            hours = legacy_day.with_absent(hours, stored)
        recording.record_day(store, source_state, day, hours, now, prices)
        if not answer.unread:
            store.mark_backfilled(source_state, Window(day, day + Width.DAY))
        rows += answer.records
        report(day)
    return rows


async def _read_with_retries(
    source: Source, day: int, sleep: Callable[[float], Awaitable[None]]
) -> Answer:
    """The whole answer for a day. Raises SourceError after `ATTEMPTS` attempts."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await _last_answer(source, day)
        except RateLimited as error:
            await sleep(error.retry_after or PAUSE)
        except Unavailable:
            await sleep(PAUSE)
    return await _last_answer(source, day)


async def _last_answer(source: Source, day: int) -> Answer:
    """The answer once every user was asked. Raises SourceError."""
    last: Answer | None = None
    async for answer in source.read(day):
        last = answer
    if last is None:
        raise SourceError("GET usage: no user could be asked for that day; run the same again")
    return last
