"""Plans which windows a poll reads, at which width, within OpenAI's limits.

Time has three tiers, newest first: fine (within `settle`, read at every poll), hours (the rest of
today and yesterday) and days (back to `reconcile`). Tiers meet at whole hours and whole days, so no
bucket is in two tiers. The day of the epoch, unless it begins at midnight, is always read in
minutes: a coarser bucket would contain usage from before the epoch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from otel_openai_usage.domain.model import Width, Window, ceil, floor

_DAY = Width.DAY
_HOUR = Width.HOUR
_MINUTE = Width.MINUTE


@dataclass(frozen=True, slots=True)
class Rules:
    """How far back to read, in seconds. `limits` are the most buckets of one request, by width.

    Every poll also reads the last `show` seconds before today's midnight, even if they lie before
    the epoch: the view shows these days, although no counter contains them.
    """

    width: Width
    settle: int
    reconcile: int
    limits: Mapping[Width, int]
    show: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a source was read. Times are Unix seconds.

    Counting begins at `epoch`. `complete` says that a whole poll succeeded. `horizon` is the end of
    the newest plan. `unread` are the windows since the epoch that no reading has covered.
    """

    epoch: int
    complete: bool = False
    horizon: int | None = None
    unread: tuple[Window, ...] = ()

    @property
    def whole_days_from(self) -> int:
        """The first midnight at or after the epoch: no later hour or day contains older usage."""
        return ceil(self.epoch, _DAY)


@dataclass(frozen=True, slots=True)
class Step:
    """One window to read. A fine reading replaces what is stored; a coarse one is reconciled."""

    window: Window
    width: Width
    coarse: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one poll, newest first.

    The fine tier begins at `fine_from`, the tier of hours at `hours_from`; all end at `end`. `gaps`
    are the unread windows older than the fine tier that the steps cover, `lost` those that can
    never be read. `unread` are the windows that stay unread until the steps were recorded.
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
    """The steps that are due at `now`.

    `hours` and `days` say whether those tiers are due; a gap makes its tier due. No step crosses an
    instant in `cuts`, where the grouping changes.
    """
    end = floor(now, rules.width) + rules.width
    oldest = progress.epoch
    # The first poll reads everything since the epoch, however long ago that is.
    if progress.complete:
        oldest = max(oldest, floor(now - rules.reconcile, _DAY))
    # Whole hours, because the tier of hours begins where the fine tier ends.
    settled = floor(now - rules.settle, max(rules.width, _HOUR))
    # The fine tier always has the current bucket, however short `settle` is.
    fine = min(max(oldest, settled), end - rules.width)
    unread = _with_new_time(progress, end)
    gaps = tuple(_within(unread, oldest, fine))
    hours = hours or bool(gaps)
    # With buckets of a day there is no tier of hours that could read the gap.
    has_day_gap = bool(gaps) and rules.width == _DAY
    days = days or not progress.complete or has_day_gap
    hours_from = _hours_from(progress, rules, oldest, fine, gaps)
    shown_from = fine
    if rules.show:
        shown_from = min(fine, floor(now, _DAY) - rules.show)
    split = _Splitter(progress.whole_days_from, rules.limits, tuple(cuts))
    steps = list(split(shown_from, end, rules.width, coarse=False))
    if hours:
        steps += split(hours_from, fine, _HOUR, coarse=True)
    if days:
        steps += split(oldest, hours_from, _DAY, coarse=True)
    lost: tuple[Window, ...] = ()
    # Nothing is lost before the first complete poll, which reads everything since the epoch.
    if progress.complete:
        lost = tuple(_within(unread, 0, oldest))
    return Plan(
        steps=tuple(steps),
        fine_from=fine,
        hours_from=hours_from,
        end=end,
        unread=tuple(_within(unread, oldest, end)),
        gaps=gaps,
        lost=lost,
    )


def past_days(
    progress: Progress, start: int, end: int, limits: Mapping[Width, int], cuts: Sequence[int] = ()
) -> list[Step]:
    """The steps that read the part of [start, end) after the epoch in days, oldest first."""
    if progress.epoch >= end:
        return []
    split = _Splitter(progress.whole_days_from, limits, tuple(cuts))
    newest_first = list(split(max(start, progress.epoch), end, _DAY, coarse=True))
    return newest_first[::-1]


def _hours_from(
    progress: Progress, rules: Rules, oldest: int, fine: int, gaps: Sequence[Window]
) -> int:
    """Where the tier of hours begins: yesterday, or earlier for a gap or at the first poll."""
    if rules.width == _DAY:
        return fine
    if not progress.complete:
        return oldest
    starts = [floor(fine, _DAY) - _DAY]
    # Whole days, because the tier of days ends where the tier of hours begins.
    starts += [floor(gap.start, _DAY) for gap in gaps]
    return min(max(oldest, min(starts)), fine)


def without(unread: Iterable[Window], read: Window) -> tuple[Window, ...]:
    """The windows without the part that was read."""
    left = []
    for window in unread:
        before_end = min(window.end, read.start)
        if window.start < before_end:
            left.append(Window(window.start, before_end))
        after_start = max(window.start, read.end)
        if after_start < window.end:
            left.append(Window(after_start, window.end))
    return tuple(left)


def pieces(window: Window, cuts: Iterable[int]) -> list[Window]:
    """Split the window at `cuts`. Return the pieces, newest first."""
    edges = [window.start, *sorted(cut for cut in cuts if window.start < cut < window.end)]
    ends = [*edges[1:], window.end]
    return [Window(start, end) for start, end in zip(edges, ends, strict=True)][::-1]


def _with_new_time(progress: Progress, end: int) -> tuple[Window, ...]:
    """The unread windows, with the time since the last plan."""
    start = progress.epoch
    if progress.horizon is not None:
        start = max(start, progress.horizon)
    older = progress.unread
    if end <= start:
        return older
    if older:
        newest = older[-1]
        if newest.end >= start:
            joined = Window(newest.start, max(end, newest.end))
            return (*older[:-1], joined)
    return (*older, Window(start, end))


def _within(windows: Iterable[Window], start: int, end: int) -> Iterator[Window]:
    """The parts of the windows that lie in [start, end)."""
    for window in windows:
        part_start = max(window.start, start)
        part_end = min(window.end, end)
        if part_start < part_end:
            yield Window(part_start, part_end)


@dataclass(frozen=True, slots=True)
class _Splitter:
    """Splits a span into steps that OpenAI answers in one request each."""

    whole_days_from: int
    limits: Mapping[Width, int]
    cuts: tuple[int, ...]

    def __call__(self, start: int, end: int, width: Width, *, coarse: bool) -> Iterator[Step]:
        """Steps of [start, end), newest first; in minutes before `whole_days_from`."""
        minutes_end = min(max(start, self.whole_days_from), end)
        yield from self._tiles(minutes_end, end, width, coarse)
        # Costs have days only.
        finest = _MINUTE if _MINUTE in self.limits else width
        yield from self._tiles(start, minutes_end, finest, coarse)

    def _tiles(self, start: int, end: int, width: Width, coarse: bool) -> Iterator[Step]:
        if start >= end:
            return
        span = self.limits[width] * width
        coarser = {_MINUTE: _HOUR, _HOUR: _DAY, _DAY: _DAY}[width]
        while start < end:
            # A reading may only replace buckets that it covers in full, so a step has whole hours
            # or days.
            cuts = [cut for cut in self.cuts if start < cut < end]
            step_start = max(start, ceil(end - span, coarser), *cuts)
            yield Step(Window(step_start, end), width, coarse)
            end = step_start


def unread(start: int, end: int, done: Sequence[Window]) -> tuple[Window, ...]:
    """The parts of [start, end) that no window in `done` covers, oldest first."""
    left: tuple[Window, ...] = (Window(start, end),) if start < end else ()
    for window in done:
        left = without(left, window)
    return left
