"""Polls the old usage endpoint: today's sums to show, every record into the history."""

import json
import logging
from collections.abc import Mapping
from typing import Protocol

from otel_openai_usage import pipeline
from otel_openai_usage.core import daily
from otel_openai_usage.core.book import Book, Status
from otel_openai_usage.core.daily import Shown
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
    def skipped(self) -> int: ...
    @property
    def by_user(self) -> bool: ...
    @property
    def records(self) -> int: ...


class Source(Protocol):
    """The endpoint."""

    async def read(self, day: int) -> Answer: ...


class Telemetry(Protocol):
    """Whom to tell how polling goes."""

    def polled(
        self, organization: str, source: str, seconds: float, rows: int, lag: float = 0.0
    ) -> None: ...
    def skipped(self, organization: str, source: str, records: int) -> None: ...


class Pace:
    """At most `per_minute` requests in any 60 s, those before a restart included."""

    def __init__(self, keeper: Keeper, notes: Notes, per_minute: int) -> None:
        self._keeper = keeper
        self._notes = notes
        self._limit = per_minute

    async def turn(self) -> None:
        """Wait until another request may be made, and remember it. Raises StateError."""
        clock: Clock = self._keeper.clock
        while True:
            wait = await self._keeper.do(self._take)
            if wait <= 0:
                return
            await clock.sleep(wait)

    def _take(self) -> float:
        now = self._keeper.clock.now()
        # A time in the future is of a clock that was set back since.
        calls = [
            time
            for time in json.loads(self._notes.note(_CALLS) or "[]")
            if 0 <= now - time < MINUTE
        ]
        if len(calls) >= self._limit:
            return float(calls[-self._limit] + MINUTE - now)
        self._notes.take_note(_CALLS, json.dumps([*calls, now]))
        return 0.0


class LegacyPoll:
    """Polls the old usage endpoint. `hold` is how long zeros are shown before what follows them, in
    seconds.
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
        self._prices = prices
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
        """Read the days that ended since the last poll a last time, then today. Raises SourceError
        or StateError.
        """
        clock = self._keeper.clock
        began = clock.mono()
        today = floor(int(clock.now()), Width.DAY)
        records = 0
        if self._shown and self._shown.day < today:
            records += await self._read_and_show(self._shown.day)
            await clock.sleep(self._hold)
            oldest = max(self._shown.day + Width.DAY, today - FURTHEST * Width.DAY)
            for day in range(oldest, today, Width.DAY):
                records += (await self._take(day))[0]
        records += await self._read_and_show(today)
        self._telemetry.polled(self._book.organization, "legacy", clock.mono() - began, records)

    async def _read_and_show(self, day: int) -> int:
        records, hours = await self._take(day)
        await self._show(day, hours)
        return records

    async def _take(self, day: int) -> tuple[int, Mapping[int, Rows]]:
        """How many records there were, and what is kept of the day."""
        answer = await self._source.read(day)
        if answer.skipped:
            self._telemetry.skipped(self._book.organization, "legacy", answer.skipped)
            log.warning(
                "records of the legacy usage endpoint were skipped", extra={"count": answer.skipped}
            )
        hours = await self._keeper.do(lambda: self._keep(day, answer))
        if answer.hours:
            self._status.newest_bucket = max(
                max(answer.hours) + Width.HOUR, self._status.newest_bucket or 0
            )
        return answer.records, hours

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

    async def _show(self, day: int, hours: Mapping[int, Rows]) -> None:
        """Commit, then show, frame after frame."""
        steps = daily.frames(self._shown, day, daily.sums(hours))
        for index, frame in enumerate(steps):
            if index:
                await self._keeper.clock.sleep(self._hold)
            await self._keeper.do(lambda frame=frame: self._put(frame))  # type: ignore[misc]
            self._keeper.tell()

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
