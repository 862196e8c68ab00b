"""What OpenAI knows of a minute by now: usage that is late, grows, is corrected, or is put to
another key first.

Everything is drawn from (seed, stream, minute) and the age of the minute, so the same question at
the same time has the same answer, and after `settles_after` that answer is the truth.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

from otel_openai_usage.simulator.chance import noise

_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_BYTES = 5  # drawn for each minute


class Fate(IntEnum):
    """What happens to what one stream used in one minute."""

    PLAIN = 0
    GROWS = 1
    LATE = 2
    OVER = 3
    UNDER = 4
    MOVED = 5
    NAMELESS = 6
    VANISHES = 7


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late, and how wrong at first. Shares are of the minutes of a stream, from 0 to 1; their
    sum is at most 1.

    `delay`: shortest and longest time from a minute's end until it is seen, drawn for each, so out
    of order. `growing`: seen in `steps` equal parts over `grows_for`. `late`: half of it comes
    `late_by` later. `restated`: first half too high or a third too low. `moved`: first under
    another key. `nameless`: first without key and user though grouped by them. `vanishing`: seen,
    gone, seen again. The last four are made good after `restated_after`. `split`: share of rows
    that come as two rows of one key. Costs follow `costs_delay` behind usage; a share of
    `costs_restated` of the costs of a day is a tenth too high until `restated_after` has passed
    since the day.
    """

    delay: tuple[timedelta, timedelta] = (timedelta(0), timedelta(0))
    growing: float = 0.0
    grows_for: timedelta = _HOUR
    steps: int = 4
    late: float = 0.0
    late_by: tuple[timedelta, timedelta] = (2 * _HOUR, 48 * _HOUR)
    restated: float = 0.0
    moved: float = 0.0
    nameless: float = 0.0
    vanishing: float = 0.0
    restated_after: tuple[timedelta, timedelta] = (10 * _MINUTE, 3 * _HOUR)
    split: float = 0.0
    costs_delay: timedelta = timedelta(0)
    costs_restated: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.growing, self.late, self.restated, self.moved, self.nameless, self.vanishing)
        # Each minute has one fate, so their shares add up; the other two are drawn on their own.
        independent = (self.split, self.costs_restated)
        smallest = min(*shares, *independent)
        largest = max(sum(shares), *independent)
        if smallest < 0 or largest > 1:
            raise ValueError(
                f"lateness: shares must lie between 0 and 1 and add up to at most 1, got {shares}"
            )
        if self.steps < 1:
            raise ValueError(f"lateness: steps: expected at least 1, got {self.steps}")
        for least, most in (self.delay, self.late_by, self.restated_after):
            if not timedelta(0) <= least <= most:
                raise ValueError(
                    f"lateness: expected a shortest and a longest time, got {least} and {most}"
                )

    @property
    def settles_after(self) -> timedelta:
        """So long after a bucket's end what is visible of it is the truth, costs included."""
        wrong = self.restated + self.moved + self.nameless + self.vanishing
        # A minute has one fate, so the slowest fate counts, not their sum.
        slow = timedelta(0)
        if self.growing:
            slow = max(slow, self.grows_for)
        if self.late:
            slow = max(slow, self.late_by[1])
        if wrong:
            slow = max(slow, self.restated_after[1])
        costs = self.costs_delay
        if self.costs_restated:
            costs += self.restated_after[1]
        return max(self.delay[1] + slow, costs)


PROMPT = Lateness()
"""Every minute is known when it ends."""
DEMO = Lateness(
    delay=(20 * _SECOND, 150 * _SECOND),
    growing=0.05,
    grows_for=6 * _MINUTE,
    costs_delay=12 * _MINUTE,
)
"""Tens of seconds to minutes late, as on a good day."""
HARSH = Lateness(
    delay=(20 * _SECOND, 15 * _MINUTE),
    growing=0.3,
    late=0.1,
    restated=0.1,
    moved=0.05,
    nameless=0.05,
    vanishing=0.05,
    split=0.1,
    costs_delay=2 * _HOUR,
    costs_restated=0.2,
)
"""All that was ever reported, at once."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is seen of a minute: `num` / `den` of it, at its own dimensions or elsewhere."""

    num: int
    den: int
    fate: Fate = Fate.PLAIN


ALL = Part(1, 1)
NONE = Part(0, 1)


def _between(bounds: tuple[float, float], byte: int) -> float:
    least, most = bounds
    return least + (most - least) * byte / 255


class Delays:
    """A `Lateness` made ready to be asked often."""

    def __init__(self, lateness: Lateness) -> None:
        self.lateness = lateness
        self.settles = lateness.settles_after.total_seconds()
        self._delay = _spans(lateness.delay)
        self._late = _spans(lateness.late_by)
        self._wrong = _spans(lateness.restated_after)
        self._step = lateness.grows_for.total_seconds() / lateness.steps
        self._fates = _thresholds(lateness)

    def luck(self, seed: int, hour: int) -> bytes:
        """The chance of the 60 minutes of an hour, to be cut by `part`."""
        return noise(60 * _BYTES, seed, "luck", hour)

    def part(self, luck: bytes, minute: int, age: float) -> Part:
        """What is seen of a minute of the hour `age` seconds after it ended."""
        first = minute * _BYTES
        high, low, wait, long, side = luck[first : first + _BYTES]
        past = age - _between(self._delay, wait)
        if past < 0:
            return NONE
        fate = self._fate(high << 8 | low, side)
        if fate is Fate.PLAIN:
            return ALL
        if fate is Fate.GROWS:
            steps = self.lateness.steps
            # The first part is there at once: a row that exists has some usage.
            seen = 1 + int(past / self._step)
            return Part(min(seen, steps), steps)
        if fate is Fate.LATE:
            return ALL if past >= _between(self._late, long) else Part(1, 2)
        return self._wrongly(fate, past, _between(self._wrong, long))

    def _wrongly(self, fate: Fate, past: float, until: float) -> Part:
        if past >= until:
            return ALL
        if fate is Fate.VANISHES:
            return ALL if past < until / 2 else NONE
        if fate is Fate.OVER:
            return Part(3, 2)
        if fate is Fate.UNDER:
            return Part(2, 3)
        return Part(1, 1, fate)

    def _fate(self, chance: int, side: int) -> Fate:
        for threshold, fate in self._fates:
            if chance >= threshold:
                continue
            # `restated` is one share for both directions: too much and too little are as likely.
            if fate is Fate.OVER and side & 1:
                return Fate.UNDER
            return fate
        return Fate.PLAIN


def _spans(bounds: tuple[timedelta, timedelta]) -> tuple[float, float]:
    return bounds[0].total_seconds(), bounds[1].total_seconds()


def _thresholds(lateness: Lateness) -> tuple[tuple[int, Fate], ...]:
    shares = (
        (lateness.growing, Fate.GROWS),
        (lateness.late, Fate.LATE),
        (lateness.restated, Fate.OVER),
        (lateness.moved, Fate.MOVED),
        (lateness.nameless, Fate.NAMELESS),
        (lateness.vanishing, Fate.VANISHES),
    )
    found = []
    total = 0.0
    for share, fate in shares:
        total += share
        if share:
            threshold = round(total * 65536)
            found.append((threshold, fate))
    return tuple(found)
