"""Which windows are due, at which width, cut to OpenAI's limits.

Time falls into three belts, newest first: fine (within `settle`, read at every poll), hours (the
rest of today and yesterday) and days (back to `reconcile`). The belts meet at whole hours and whole
days, so a bucket is never half in one. The day that counting began in, unless it began at midnight,
is read in minutes for ever: a coarser bucket would hold usage from before.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from otel_openai_usage.domain.model import Width, Window, floor

_DAY = Width.DAY
_HOUR = Width.HOUR
_MINUTE = Width.MINUTE


@dataclass(frozen=True, slots=True)
class Rules:
    """How far back to read; all in seconds. `show` reaches back from today's midnight, whatever the
    epoch.
    """

    width: Width
    settle: int
    reconcile: int
    limits: dict[Width, int]
    show: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """What has been read. `unread` has the stretches since the epoch that no reading has covered
    yet.
    """

    epoch: int
    complete: bool = False
    horizon: int | None = None
    unread: tuple[Window, ...] = ()

    @property
    def whole_days_from(self) -> int:
        """From here on whole hours and days belong to the count."""
        return -(-self.epoch // _DAY) * _DAY


@dataclass(frozen=True, slots=True)
class Step:
    """One call to make. A fine reading replaces what is stored; a coarse one makes good what was
    missed.
    """

    window: Window
    width: Width
    coarse: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one poll, freshest first. `lost` can never be read.

    `fine_from` and `hours_from` are where those belts begin: from `hours_from` on no day is read
    whole.
    """

    steps: tuple[Step, ...]
    fine_from: int
    hours_from: int
    end: int
    unread: tuple[Window, ...]
    gaps: tuple[Window, ...]
    lost: tuple[Window, ...]


def plan(
    progress: Progress, now: int, rules: Rules, *, hours: bool, days: bool, cuts: Sequence[int] = ()
) -> Plan:
    """The steps due at `now`. `hours` and `days` say whether those belts are due; a gap makes its
    belt due.

    `cuts` are instants that no step may cross (where the grouping changes).
    """
    end = floor(now, rules.width) + rules.width
    oldest = (
        max(progress.epoch, floor(now - rules.reconcile, _DAY))
        if progress.complete
        else progress.epoch
    )
    fine = min(max(oldest, floor(now - rules.settle, max(rules.width, _HOUR))), end - rules.width)
    unread = _with_new_time(progress, end)
    gaps = tuple(_within(unread, oldest, fine))
    hours = hours or bool(gaps)
    days = days or not progress.complete or (bool(gaps) and rules.width == _DAY)
    middle = _hours_from(progress, rules, oldest, fine, gaps)
    shown = min(fine, floor(now, _DAY) - rules.show) if rules.show else fine
    split = _Splitter(progress.whole_days_from, rules.limits, tuple(cuts))
    steps = list(split(shown, end, rules.width, coarse=False))
    if hours:
        steps += split(middle, fine, _HOUR, coarse=True)
    if days:
        steps += split(oldest, middle, _DAY, coarse=True)
    lost = tuple(_within(unread, 0, oldest)) if progress.complete else ()
    return Plan(tuple(steps), fine, middle, end, tuple(_within(unread, oldest, end)), gaps, lost)


def past_days(
    progress: Progress, start: int, end: int, limits: dict[Width, int], cuts: Sequence[int] = ()
) -> list[Step]:
    """The steps that read the counted part of whole days, [start, end), oldest first."""
    split = _Splitter(progress.whole_days_from, limits, tuple(cuts))
    return (
        list(split(max(start, progress.epoch), end, _DAY, coarse=True))[::-1]
        if progress.epoch < end
        else []
    )


def _hours_from(
    progress: Progress, rules: Rules, oldest: int, fine: int, gaps: Sequence[Window]
) -> int:
    """Where the hours belt begins: yesterday, or earlier when a gap or the first poll asks for
    more.
    """
    if rules.width == _DAY:
        return fine
    if not progress.complete:
        return oldest
    return min(
        max(oldest, floor(fine, _DAY) - _DAY),
        *(max(oldest, floor(gap.start, _DAY)) for gap in gaps),
        fine,
    )


def without(unread: Iterable[Window], read: Window) -> tuple[Window, ...]:
    """What is left unread when `read` has been read."""
    return tuple(
        Window(start, end)
        for window in unread
        for start, end in (
            (window.start, min(window.end, read.start)),
            (max(window.start, read.end), window.end),
        )
        if start < end
    )


def pieces(window: Window, cuts: Iterable[int]) -> list[Window]:
    """The window in pieces that cross none of `cuts`, newest first."""
    edges = [window.start, *sorted(cut for cut in cuts if window.start < cut < window.end)]
    ends = [*edges[1:], window.end]
    return [Window(start, end) for start, end in zip(edges, ends, strict=True)][::-1]


def _with_new_time(progress: Progress, end: int) -> tuple[Window, ...]:
    start = progress.epoch if progress.horizon is None else max(progress.epoch, progress.horizon)
    if end <= start:
        return progress.unread
    older = progress.unread
    if older and older[-1].end >= start:
        return (*older[:-1], Window(older[-1].start, max(end, older[-1].end)))
    return (*older, Window(start, end))


def _within(windows: Iterable[Window], start: int, end: int) -> Iterator[Window]:
    for window in windows:
        low = max(window.start, start)
        high = min(window.end, end)
        if low < high:
            yield Window(low, high)


@dataclass(frozen=True, slots=True)
class _Splitter:
    whole_days_from: int
    limits: dict[Width, int]
    cuts: tuple[int, ...]

    def __call__(self, start: int, end: int, width: Width, *, coarse: bool) -> Iterator[Step]:
        """Tiles of [start, end): newest first, in minutes before `whole_days_from`."""
        border = min(max(start, self.whole_days_from), end)
        yield from self._tiles(border, end, width, coarse)
        yield from self._tiles(start, border, _MINUTE if _MINUTE in self.limits else width, coarse)

    def _tiles(self, start: int, end: int, width: Width, coarse: bool) -> Iterator[Step]:
        if start >= end:
            return
        span = self.limits[width] * width
        coarser = {_MINUTE: _HOUR, _HOUR: _DAY, _DAY: _DAY}[width]
        while start < end:
            # Whole hours (days) in one tile: what a reading covers in full it may replace, a half
            # never.
            low = max(
                start,
                -(-(end - span) // coarser) * coarser,
                *(cut for cut in self.cuts if start < cut < end),
            )
            yield Step(Window(low, end), width, coarse)
            end = low


def unread(start: int, end: int, done: Sequence[Window]) -> tuple[Window, ...]:
    """The parts of [start, end) that no window in `done` covers, oldest first."""
    left: tuple[Window, ...] = (Window(start, end),) if start < end else ()
    for window in done:
        left = without(left, window)
    return left
