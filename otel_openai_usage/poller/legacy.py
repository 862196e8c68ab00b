"""Polls the old usage endpoint: today's sums to show, every record into the history."""

import json
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

from otel_openai_usage import pipeline
from otel_openai_usage.core import daily
from otel_openai_usage.core.book import Book, Status
from otel_openai_usage.core.daily import Labels, Shown, Sums
from otel_openai_usage.core.estimate import PriceBook
from otel_openai_usage.core.model import Rows, Width, floor
from otel_openai_usage.poller.keeper import Clock, Keeper

log = logging.getLogger(__name__)

MINUTE = 60.0
FURTHEST = 31
"""Days of downtime that are read afterwards."""
_CALLS = "legacy.calls"
_SHOWN = "legacy.shown"


class Notes(Protocol):
    """Remembers small things across restarts. Every method raises StateError."""

    def note(self, key: str) -> str | None: ...
    def take_note(self, key: str, value: str) -> None: ...


class Answer(Protocol):
    """What the endpoint says of one day."""

    @property
    def hours(self) -> Mapping[int, Rows]: ...
    @property
    def odd(self) -> int: ...
    @property
    def by_user(self) -> bool: ...
    @property
    def records(self) -> int: ...


class Source(Protocol):
    """The endpoint. Yields what is known of a day after each of its answers."""

    def read(self, day: int) -> AsyncIterator[Answer]: ...


class Telemetry(Protocol):
    """Whom to tell how polling goes."""

    def polled(self, organization: str, source: str, seconds: float, rows: int) -> None: ...
    def skipped(self, organization: str, source: str, records: int) -> None: ...


class Pace:
    """At most `per_minute` requests in any 60 s, those before a restart included.

    `run` runs work that uses the notes in the thread that may use them.
    """

    def __init__(
        self,
        notes: Notes,
        per_minute: int,
        clock: Clock,
        run: Callable[[Callable[[], float]], Awaitable[float]],
    ) -> None:
        self._notes = notes
        self._limit = per_minute
        self._clock = clock
        self._run = run

    async def turn(self) -> None:
        """Wait until another request may be made, and remember it. Raises StateError."""
        while True:
            wait = await self._run(self._take)
            if wait <= 0:
                return
            await self._clock.sleep(wait)

    def _take(self) -> float:
        now = self._clock.now()
        noted: list[float] = json.loads(self._notes.note(_CALLS) or "[]")
        # A time in the future was noted by a clock that was set back since.
        calls = [time for time in noted if 0 <= now - time < MINUTE]
        if len(calls) >= self._limit:
            return calls[-self._limit] + MINUTE - now
        self._notes.take_note(_CALLS, json.dumps([*calls, now]))
        return 0.0


class LegacyPoll:
    """Polls the old usage endpoint.

    `hold` is how long a new series is shown as 0, in seconds; if that is infinite, until the next
    process. `answered` is called after each answer
    whose numbers are shown.
    """

    def __init__(
        self,
        keeper: Keeper,
        notes: Notes,
        source: Source,
        book: Book,
        telemetry: Telemetry,
        *,
        hold: float,
        prices: PriceBook | None = None,
    ) -> None:
        self._keeper = keeper
        self._notes = notes
        self._source = source
        self._book = book
        self._telemetry = telemetry
        self._hold = hold
        self._waits = hold != math.inf
        self._prices = prices
        self.answered: Callable[[], None] = lambda: None
        self._zero_since: dict[Labels, float] = {}
        self._odd: dict[int, int] = {}
        self._status = Status(book.organization, "legacy")
        keeper.display.statuses.append(self._status)
        self._shown = _read(notes.note(_SHOWN))
        keeper.display.legacy = self._shown

    def status(self, up: bool) -> None:
        """Show how it went."""
        self._status.up = up
        if up:
            self._status.last_success = int(self._keeper.clock.now())

    async def poll(self) -> None:
        """Read the days that ended since the last poll a last time, then today.

        Raises SourceError or StateError.
        """
        clock = self._keeper.clock
        began = clock.mono()
        today = floor(int(clock.now()), Width.DAY)
        records = 0
        if self._shown and self._shown.day < today:
            records += await self._read_and_show(self._shown.day)
            if self._waits:
                await clock.sleep(self._hold)
            oldest = max(self._shown.day + Width.DAY, today - FURTHEST * Width.DAY)
            for day in range(oldest, today, Width.DAY):
                records += await self._read(day)
        records += await self._read_and_show(today)
        self._telemetry.polled(self._book.organization, "legacy", clock.mono() - began, records)

    async def _read(self, day: int) -> int:
        """Keep a day. The number of its records."""
        records = 0
        async for answer in self._source.read(day):
            await self._record(day, answer)
            records = answer.records
        return records

    async def _read_and_show(self, day: int) -> int:
        """Keep a day, and show it as its answers come. The number of its records."""
        records = 0
        said: Mapping[Labels, Sums] = {}
        async for answer in self._source.read(day):
            hours = await self._record(day, answer)
            said = daily.sums(hours)
            records = answer.records
            await self._show(day, said)
            self.answered()
        while self._waits and (held := self._held()):
            await self._keeper.clock.sleep(min(held.values()))
            await self._show(day, said)
        return records

    async def _record(self, day: int, answer: Answer) -> Mapping[int, Rows]:
        """Keep an answer. What is stored of the day then."""
        self._report_odd(day, answer.odd)
        hours = await self._keeper.do(lambda: self._keep(day, answer))
        if answer.hours:
            end = max(answer.hours) + Width.HOUR
            self._status.newest_bucket = max(end, self._status.newest_bucket or 0)
        return hours

    def _report_odd(self, day: int, odd: int) -> None:
        """Count values that were not understood: once for each, though a day is read many times."""
        more = odd - self._odd.get(day, 0)
        if more <= 0:
            return
        if not self._odd:
            log.warning(
                "the legacy usage endpoint has values that are not understood; they are left out,"
                " the rest is counted",
                extra={"values": odd},
            )
        self._odd = {day: odd}
        self._telemetry.skipped(self._book.organization, "legacy", more)

    def _keep(self, day: int, answer: Answer) -> Mapping[int, Rows]:
        store = self._keeper.store
        hours = answer.hours
        if answer.by_user:
            hours = daily.with_absent(
                hours, store.rows_within(self._book, tuple(Width), day, day + Width.DAY)
            )
        pipeline.book_day(
            store, self._book, day, hours, int(self._keeper.clock.now()), self._prices
        )
        return hours

    async def _show(self, day: int, said: Mapping[Labels, Sums]) -> None:
        """Commit a frame, then show it. A new series is 0 first, on a new day every series is."""
        begun = self._shown is None
        same_day = self._shown is not None and self._shown.day == day
        known = self._shown.sums if self._shown is not None else {}
        now = self._keeper.clock.mono()
        if not begun and not same_day:
            self._zero_since = dict.fromkeys((*known, *said), now)
        elif not begun:
            self._zero_since |= dict.fromkeys(said.keys() - known.keys(), now)
        frame = daily.frame(self._shown, day, said, self._held())
        await self._keeper.do(lambda: self._put(frame))
        self._keeper.tell()

    def _held(self) -> dict[Labels, float]:
        """The series that are still shown as 0, and for how many more seconds."""
        now = self._keeper.clock.mono()
        left = {labels: since + self._hold - now for labels, since in self._zero_since.items()}
        self._zero_since = {labels: self._zero_since[labels] for labels in left if left[labels] > 0}
        return {labels: seconds for labels, seconds in left.items() if seconds > 0}

    def _put(self, frame: Shown) -> None:
        if frame != self._shown:
            self._notes.take_note(
                _SHOWN,
                json.dumps([frame.day, [[*labels, *sums] for labels, sums in frame.sums.items()]]),
            )
        self._shown = self._keeper.display.legacy = frame


def _read(text: str | None) -> Shown | None:
    if text is None:
        return None
    day, series = json.loads(text)
    return Shown(day, {tuple(row[:4]): tuple(row[4:]) for row in series})
