"""Polls the legacy usage endpoint: exports today's sums, and stores every record."""

import json
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from otel_openai_usage.domain import legacy_day
from otel_openai_usage.domain.legacy_day import Labels, Shown, Sums
from otel_openai_usage.domain.model import Rows, Width, floor, utc
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.source_state import SourceState, Status
from otel_openai_usage.engine import recording
from otel_openai_usage.engine.recorder import Clock, Recorder
from otel_openai_usage.errors import SourceError

log = logging.getLogger(__name__)

MINUTE = 60.0
MAX_DAYS = 31
"""Days of downtime that are read afterwards, at most."""
TRIES = 12
"""So many polls try to read a day that ended, while today can be read; then it is given up."""
STEP = 3600.0
"""Seconds by which a clock may be set forward and is believed at once: corrections are small, and a
machine that slept has the right time again.
"""
INSISTS = 600.0
"""Seconds after which a clock that was set forward by more is believed, though OpenAI has no usage of
its day.
"""
_CALLS = "legacy.calls"
_SHOWN = "legacy.shown"
_DAYS = "legacy.days"


class Notes(Protocol):
    """Remembers small things across restarts. Every method raises StateError."""

    def note(self, key: str) -> str | None: ...
    def set_note(self, key: str, value: str) -> None: ...


class Answer(Protocol):
    """The usage of one day."""

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
    """Receives how polling goes."""

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
        self._calls: list[float] | None = None

    async def turn(self) -> None:
        """Wait until another request may be made, and remember it. Raises StateError."""
        while True:
            wait = await self._run(self._take)
            if wait <= 0:
                return
            await self._clock.sleep(wait)

    def _take(self) -> float:
        now = self._clock.now()
        mono = self._clock.mono()
        if self._calls is None:
            noted: list[float] = json.loads(self._notes.note(_CALLS) or "[]")
            # A time in the future was noted by a clock that was set back since: at most now.
            self._calls = [mono - max(0.0, now - time) for time in noted]
        calls = [call for call in self._calls if mono - call < MINUTE]
        if len(calls) >= self._limit:
            return calls[-self._limit] + MINUTE - mono
        self._calls = [*calls, mono]
        self._notes.set_note(_CALLS, json.dumps([now - (mono - call) for call in self._calls]))
        return 0.0


class LegacyPoll:
    """Polls the old usage endpoint.

    `hold` is how long a new series is shown as 0, in seconds; if that is infinite, until the next
    process. `answered` is called after each answer
    whose numbers are shown.
    """

    def __init__(
        self,
        recorder: Recorder,
        notes: Notes,
        source: Source,
        source_state: SourceState,
        telemetry: Telemetry,
        *,
        hold: float,
        prices: PriceList | None = None,
    ) -> None:
        self._recorder = recorder
        self._notes = notes
        self._source = source
        self._source_state = source_state
        self._telemetry = telemetry
        self._hold = hold
        self._waits = hold != math.inf
        self._prices = prices
        self.admit: Callable[[int, Answer], None] = lambda day, answer: None
        """Called in the recorder's thread before an answer for a day is recorded; it may refuse it."""
        self.answered: Callable[[], None] = lambda: None
        self._zero_since: dict[Labels, float] = {}
        self._odd: dict[int, int] = {}
        self._status = Status(source_state.organization, "legacy")
        recorder.snapshot_builder.add_status(self._status)
        self._shown = _read(notes.note(_SHOWN))
        recorder.snapshot_builder.apply_legacy(self._shown)
        self._days = _Days.read(notes.note(_DAYS))
        self._offset: float | None = None
        self._ahead_since: float | None = None

    def status(self, up: bool) -> None:
        """Show how it went."""
        self._status.up = up
        if up:
            self._status.last_success = int(self._recorder.clock.now())

    async def poll(self) -> None:
        """Read the day that ended since the last poll a last time, then today, then days that are
        still to be read.

        A day that ended and cannot be read does not keep today from beginning: it is tried again by
        the next polls. Raises SourceError, for today's reading, or StateError.
        """
        clock = self._recorder.clock
        began = clock.mono()
        today = await self._today()
        records = 0
        if self._shown and self._shown.day < today:
            records += await self._end_day(self._shown, today)
        records += await self._read_and_show(today)
        records += await self._read_unread()
        self._telemetry.polled(
            self._source_state.organization, "legacy", clock.mono() - began, records
        )

    async def _today(self) -> int:
        """The day to show. Never an earlier one than OpenAI has reported usage of."""
        clock = self._recorder.clock
        today = floor(int(clock.now()), Width.DAY)
        shown = self._shown
        if shown is None or shown.day == today:
            self._note_time()
            return today
        if today < shown.day:
            last = self._days.ended
            return shown.day if reported(shown) else max(today, last.day if last else today)
        if self._is_doubtful(today - shown.day) and not await self._read(today):
            return shown.day
        self._note_time()
        return today

    def _note_time(self) -> None:
        """Trust the clock: later times are compared with this one."""
        clock = self._recorder.clock
        self._offset = clock.now() - clock.mono()
        self._ahead_since = None

    def _is_doubtful(self, away: int) -> bool:
        """Whether the clock was set forward not long ago, so that its day may be wrong.

        A process that has just started knows no earlier time: it doubts a day that is `away` by more
        than one from the day shown last. `run --once` has no time to wait and believes its clock.
        """
        clock = self._recorder.clock
        if self._offset is None:
            if not self._waits or away <= Width.DAY:
                return False
        elif clock.now() - clock.mono() - self._offset <= STEP:
            return False
        if self._ahead_since is None:
            self._ahead_since = clock.mono()
        return clock.mono() - self._ahead_since < INSISTS

    async def _end_day(self, ended: Shown, today: int) -> int:
        """Show a day that ended once more, as it is now. What cannot be read is noted as unread.

        Returns the number of records.
        """
        oldest = max(ended.day + Width.DAY, today - MAX_DAYS * Width.DAY)
        unread = dict.fromkeys(range(oldest, today, Width.DAY), 0)
        records = 0
        try:
            records = await self._read_and_show(ended.day)
        except SourceError as error:
            unread[ended.day] = 0
            log.warning(
                "the last reading of a day that ended failed; today begins, and that day is tried"
                " again beside it",
                extra={
                    "event": "legacy_day_unread",
                    "day": _date(ended.day),
                    "error": str(error),
                },
            )
        else:
            self._days.unread.pop(ended.day, None)
            if self._waits:
                await self._recorder.clock.sleep(self._hold)
        self._days.unread |= unread
        return records

    async def _read_unread(self) -> int:
        """Read days that ended into the history. The number of records."""
        records = 0
        for day in sorted(self._days.unread):
            try:
                records += await self._read(day)
            except SourceError as error:
                self._days.unread[day] += 1
                if self._days.unread[day] >= TRIES:
                    del self._days.unread[day]
                    log.warning(
                        "a day that ended cannot be read, and is given up: what was read of it"
                        " before stays in the history",
                        extra={
                            "event": "legacy_day_given_up",
                            "day": _date(day),
                            "error": str(error),
                        },
                    )
            else:
                del self._days.unread[day]
            await self._store_days()
        return records

    async def _store_days(self) -> None:
        text = self._days.text()
        await self._recorder.do(lambda: self._notes.set_note(_DAYS, text))

    async def _read(self, day: int) -> int:
        """Record a day. Returns the number of its records."""
        records = 0
        async for answer in self._source.read(day):
            await self._record(day, answer)
            records = answer.records
        return records

    async def _read_and_show(self, day: int) -> int:
        """Record a day, and publish it as its answers arrive. Returns the number of its records."""
        records = 0
        said: Mapping[Labels, Sums] = {}
        async for answer in self._source.read(day):
            hours = await self._record(day, answer)
            said = legacy_day.sums(hours)
            records = answer.records
            await self._show(day, said)
            self.answered()
        while self._waits and (waits := self._zero_for()):
            await self._recorder.clock.sleep(min(waits.values()))
            await self._show(day, said)
        return records

    async def _record(self, day: int, answer: Answer) -> Mapping[int, Rows]:
        """Record an answer. Returns the rows that are stored of the day, by hour."""
        self._report_odd(day, answer.odd)
        hours = await self._recorder.do(lambda: self._store(day, answer))
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
                extra={"event": "legacy_odd_values", "values": odd},
            )
        self._odd = {day: odd}
        self._telemetry.skipped(self._source_state.organization, "legacy", more)

    def _store(self, day: int, answer: Answer) -> Mapping[int, Rows]:
        store = self._recorder.store
        hours = answer.hours
        self.admit(day, answer)
        if answer.by_user:
            hours = legacy_day.with_absent(
                hours, store.rows_within(self._source_state, tuple(Width), day, day + Width.DAY)
            )
        recording.record_day(
            store, self._source_state, day, hours, int(self._recorder.clock.now()), self._prices
        )
        return hours

    async def _show(self, day: int, said: Mapping[Labels, Sums]) -> None:
        """Commit a frame, then show it. A new series is 0 first, on a new day every series is."""
        begun = self._shown is None and not self._recorder.page_served
        same_day = self._shown is not None and self._shown.day == day
        known = self._shown.sums if self._shown is not None else {}
        if self._shown is not None and not same_day:
            self._days.turn(self._shown, day)
            await self._store_days()
        said = self._days.uncounted(day, said)
        now = self._recorder.clock.mono()
        if not begun and not same_day:
            self._zero_since = dict.fromkeys((*known, *said), now)
        elif not begun:
            self._zero_since |= dict.fromkeys(said.keys() - known.keys(), now)
        frame = legacy_day.frame(self._shown, day, said, self._zero_for())
        await self._recorder.do(lambda: self._put(frame))
        self._recorder.notify()

    def _zero_for(self) -> dict[Labels, float]:
        """The series that are still shown as 0, and for how many more seconds."""
        now = self._recorder.clock.mono()
        left = {labels: since + self._hold - now for labels, since in self._zero_since.items()}
        self._zero_since = {labels: self._zero_since[labels] for labels in left if left[labels] > 0}
        return {labels: seconds for labels, seconds in left.items() if seconds > 0}

    def _put(self, frame: Shown) -> None:
        if frame != self._shown:
            self._notes.set_note(_SHOWN, json.dumps(_written(frame)))
        self._shown = frame
        self._recorder.snapshot_builder.apply_legacy(frame)


@dataclass(slots=True)
class _Days:
    """What is to be remembered of other days than the one that is shown.

    `unread` has the days that are still to be read, and how many polls tried. `ended` is the last
    day with usage that was shown before, with its last sums. If a wrong clock began a day too early, `ended` goes
    on: `counted` has what was shown of it before, which must not be counted a second time.
    """

    unread: dict[int, int] = field(default_factory=dict)
    ended: Shown | None = None
    counted: Shown | None = None

    def turn(self, shown: Shown, day: int) -> None:
        """Another day is shown from now on."""
        whole = Shown(shown.day, self._added(shown))
        if reported(whole):
            self.ended = whole
        back = self.ended is not None and self.ended.day == day
        self.counted = self.ended if back else None

    def uncounted(self, day: int, said: Mapping[Labels, Sums]) -> Mapping[Labels, Sums]:
        """The sums of a day, without what was shown of it before another day was."""
        if self.counted is None or self.counted.day != day:
            return said
        before = self.counted.sums
        return {
            labels: legacy_day.minus(sums, before[labels]) if labels in before else sums
            for labels, sums in said.items()
        }

    def _added(self, shown: Shown) -> dict[Labels, Sums]:
        before = self.counted.sums if self.counted and self.counted.day == shown.day else {}
        return {
            labels: legacy_day.plus(
                shown.sums.get(labels, legacy_day.NOTHING), before.get(labels, legacy_day.NOTHING)
            )
            for labels in {**shown.sums, **before}
        }

    def text(self) -> str:
        """As a note."""
        return json.dumps(
            {
                "unread": sorted(self.unread.items()),
                "ended": _written(self.ended),
                "counted": _written(self.counted),
            }
        )

    @classmethod
    def read(cls, text: str | None) -> "_Days":
        """The reverse of `text`."""
        if text is None:
            return cls()
        found = json.loads(text)
        return cls(dict(found["unread"]), _shown(found["ended"]), _shown(found["counted"]))


def reported(shown: Shown) -> bool:
    """Whether OpenAI has reported any usage of the day."""
    return any(any(sums) for sums in shown.sums.values())


def _date(day: int) -> str:
    return utc(day).date().isoformat()


def _written(shown: Shown | None) -> list[Any] | None:
    if shown is None:
        return None
    return [shown.day, [[*labels, *sums] for labels, sums in shown.sums.items()]]


def _shown(found: Any) -> Shown | None:
    if found is None:
        return None
    day, series = found
    return Shown(day, {tuple(row[:4]): tuple(row[4:]) for row in series})


def _read(text: str | None) -> Shown | None:
    return _shown(json.loads(text)) if text is not None else None
