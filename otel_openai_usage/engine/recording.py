"""The verbs: plan a poll, take a reading into a book, finish the poll. Synchronous; called from one
thread.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from otel_openai_usage.domain import metered, reconciliation, windows
from otel_openai_usage.domain.metered import Booking, Event
from otel_openai_usage.domain.model import Bucket, Rows, Width, Window, floor
from otel_openai_usage.domain.pricing import Estimate, PriceList, dimensions_by_name, estimate
from otel_openai_usage.domain.reconciliation import Change
from otel_openai_usage.domain.source_state import (
    Commit,
    SourceState,
    StoredSeries,
    accept,
    grown,
    levels_after,
    priced,
    series_after,
)
from otel_openai_usage.domain.windows import Plan, Step
from otel_openai_usage.errors import BadResponse, GroupingRefused, StateError
from otel_openai_usage.storage.ports import EventStore, Store

KEEP_EVERY = 900
"""Seconds between two writes of a source that brings nothing new: so long a stop may look shorter
than it was.
"""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a reading brought: leaves that are new or moved, how many rows were looked at, how much
    of it was late.

    `newest` is the start of the newest bucket with usage. `finer` has the days that disagree with
    their hours, so that those should be read before this is absorbed again. `unpriced` has the
    tokens by model that no price is known of.
    """

    stored_series_list: Sequence[StoredSeries] = ()
    rows: int = 0
    late: Mapping[str, int] = field(default_factory=dict)
    refine: Sequence[Window] = ()
    unpriced: Mapping[str, int] = field(default_factory=dict)
    newest: int | None = None


def regroup(store: Store, source_state: SourceState, wanted: tuple[str, ...], now: int) -> None:
    """Let the configured grouping apply from the next UTC midnight on. Raises StateError; nothing
    changed then.

    To be called before every poll: a clock that was ahead had put that midnight too far off.
    """
    before = source_state.groupings
    if source_state.regroup(wanted, source_state.next_midnight(now)):
        try:
            store.regroup(source_state)
        except StateError:
            source_state.groupings = before
            raise


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Dimensions that buckets are read without from now on. `news` has those of them that the
    buckets before were still read with: nobody was told of them yet.
    """

    news: tuple[str, ...]


def leave_out(
    store: Store, source_state: SourceState, window: Window, refused: GroupingRefused
) -> LeftOut | None:
    """Read the buckets of a window without the dimensions that OpenAI refuses there. None if that
    would change nothing, because its buckets were read with them before.

    Older days get the same grouping if none of them has rows. Raises StateError; nothing changed
    then.
    """
    end = refused.accepted_from or -(-window.end // Width.DAY) * Width.DAY
    rows = store.rows_within(source_state, tuple(Width), 0, end)
    read_until = max((row.start + row.width for row in rows), default=0)
    start = -(-read_until // Width.DAY) * Width.DAY
    if start >= end:
        return None
    before = source_state.groupings
    known = source_state.group_by(max(0, start - 1))
    if not source_state.leave_out(refused.dimensions, start, end):
        return None
    try:
        store.regroup(source_state)
    except StateError:
        source_state.groupings = before
        raise
    return LeftOut(tuple(name for name in refused.dimensions if name in known))


def due(
    source_state: SourceState, now: int, rules: windows.Rules, *, hours: bool, days: bool
) -> Plan:
    """The steps of one poll, with the time since the last poll noted as unread.

    Levels are read fresh only: an old level says nothing of now, so it leaves no gap either.
    """
    # Buckets whose rows were deleted are never booked again, so they are not read either.
    bookable = replace(
        source_state.progress, epoch=max(source_state.progress.epoch, source_state.purged_before)
    )
    plan = windows.plan(bookable, now, rules, hours=hours, days=days, cuts=source_state.cuts)
    if source_state.endpoint.level:
        plan = replace(
            plan,
            steps=tuple(step for step in plan.steps if not step.coarse),
            unread=(),
            gaps=(),
            lost=(),
        )
    source_state.progress = replace(source_state.progress, horizon=plan.end, unread=plan.unread)
    return plan


def whole_days(store: Store, source_state: SourceState, plan: Plan) -> Sequence[Step]:
    """Comparisons of whole days that the plan reads in hours though they have a row of their own.

    Such a row stays from another bucket width, or because OpenAI's hours knew less than its days.
    Only a comparison of the day can lower it. The running day waits until it is over. Raises
    StateError.
    """
    if source_state.endpoint.level or plan.hours_from >= plan.fine_from:
        return ()
    rows = store.rows_within(source_state, (Width.DAY,), plan.hours_from, plan.end)
    starts = {row.start for row in rows if row.start + Width.DAY < plan.end}
    return [
        Step(Window(start, start + Width.DAY), Width.DAY, coarse=True)
        for start in sorted(starts, reverse=True)
    ]


def mark_lost(source_state: SourceState, window: Window) -> Sequence[Window]:
    """OpenAI does not report that far back: do not ask for it as a gap again. What of it no reading
    has covered.
    """
    lost = [
        Window(max(unread.start, window.start), min(unread.end, window.end))
        for unread in source_state.progress.unread
        if unread.start < window.end and window.start < unread.end
    ]
    source_state.progress = replace(
        source_state.progress, unread=windows.without(source_state.progress.unread, window)
    )
    return lost


def record_reading(
    store: Store,
    source_state: SourceState,
    parse: Callable[[bytes], Rows],
    step: Step,
    buckets: Sequence[Bucket],
    now: int,
    *,
    fine_from: int,
    refined: bool = False,
    prices: PriceList | None = None,
) -> Recorded:
    """Book one step's reading and keep it, all or nothing.

    `fine_from` is the plan's. `drilled` says that the hours of its days were just read. Raises
    BadResponse or StateError; nothing changed then.
    """
    fresh = [
        bucket
        for bucket in buckets
        if bucket.start >= source_state.purged_before
        and source_state.fingerprints.get((step.width, bucket.start)) != bucket.fingerprint
    ]
    reading = {bucket.start: parse(bucket.results) for bucket in fresh}
    refine = (
        _disagreeing(store, source_state, reading)
        if step.coarse
        and step.width == Width.DAY > min(source_state.endpoint.widths)
        and not refined
        else []
    )
    if refine:
        reading = {start: rows for start, rows in reading.items() if start not in refine}
    change = (
        _make_good(store, source_state, step, reading, now)
        if step.coarse
        else _replace(store, source_state, step, reading)
    )
    _refuse_unstorable(source_state, change)
    new, moved = (
        levels_after(source_state, reconciliation.latest(reading), now)
        if source_state.endpoint.level
        else series_after(source_state, change, now)
    )
    found = (
        estimate(source_state.endpoint, source_state.organization, change.moves, prices)
        if prices and not source_state.endpoint.level
        else Estimate()
    )
    # Where only the price moved: usage is now known to be of another hour.
    dear = found.growth.keys() - {stored_series.dims for stored_series in (*new, *moved)}
    moved += [
        grown(stored_series, source_state.endpoint.zero, stored_series.changed)
        for dims in dear
        if (stored_series := source_state.series.get(dims)) and found.growth[dims]
    ]
    for stored_series in (*new, *moved):
        priced(stored_series, found.growth.get(stored_series.dims))
    progress = (
        replace(
            source_state.progress, unread=windows.without(source_state.progress.unread, step.window)
        )
        if not refine
        else source_state.progress
    )
    compact = fine_from if not step.coarse and _compactable(source_state, fine_from) else None
    if (
        change.writes
        or change.drops
        or change.pending_decreases
        or new
        or moved
        or compact is not None
    ):
        store.commit(source_state, Commit(progress, change, new, moved, compact, found.days))
        source_state.kept_at = now
    source_state.progress = progress
    _remember(source_state, step, fresh, reading, change, compact)
    return Recorded(
        accept(source_state, new, moved),
        sum(map(len, reading.values())),
        reconciliation.late(change.grown(), _tokens(source_state), now)
        if progress.complete
        else {},
        [Window(start, start + Width.DAY) for start in sorted(refine)],
        found.unpriced,
        max(
            (start for start, rows in reading.items() if any(map(any, rows.values()))), default=None
        ),
    )


def _refuse_unstorable(source_state: SourceState, change: Change) -> None:
    """BadResponse where a row would leave the 64 bits of a database column: a coarse row is the
    difference between what OpenAI says and the finer rows, which may be many.
    """
    for row in change.writes:
        if any(isinstance(n, int) and not -(2**63) <= n < 2**63 for n in row.amounts):
            raise BadResponse(
                f"{source_state.endpoint.path}: counts of the bucket {row.start} are too large to be stored"
            )


def price(source_state: SourceState, prices: PriceList, now: int) -> None:
    """Let the leaves that have a price now, but had none, begin at 0: so their first cost is an
    increase.
    """
    for stored_series in source_state.series.values():
        if (
            stored_series.estimate is None
            and stored_series.changed
            and prices.rates(
                source_state.organization,
                source_state.endpoint,
                dimensions_by_name(source_state.endpoint, stored_series.dims),
                now,
            )
        ):
            stored_series.estimate = stored_series.estimate_shown = Decimal(0)


def finish(store: Store, source_state: SourceState, now: int) -> bool:
    """Note that every step of a poll was taken. True if it was the first such poll: the book may
    now be shown.

    Raises StateError; the poll has not ended then.
    """
    first = not source_state.progress.complete
    before = source_state.last_success
    progress = replace(source_state.progress, complete=True)
    source_state.last_success = now
    if first or not 0 <= now - source_state.kept_at < KEEP_EVERY:
        try:
            store.commit(source_state, Commit(progress))
        except StateError:
            source_state.last_success = before
            raise
        source_state.kept_at = now
    source_state.progress = progress
    return first


def keep(store: Store, source_state: SourceState, now: int) -> None:
    """Write down how far reading has come."""
    store.commit(source_state, Commit(source_state.progress))
    source_state.kept_at = now


def _tokens(source_state: SourceState) -> list[int]:
    return [
        index
        for index, measure in enumerate(source_state.endpoint.measures)
        if measure.token_type in ("input", "output")
    ]


def _replace(
    store: Store, source_state: SourceState, step: Step, reading: Mapping[int, Rows]
) -> Change:
    """Let a fine reading replace its own rows, and those of other widths that it covers.

    A wider bucket that begins in the window is covered: the rest of it was read in the same poll,
    newest first, or lies in the future. One that began before the window is covered in part.
    """
    start = step.window.start
    stored = store.rows(source_state, step.width, sorted(reading))
    others = set(Width) - {step.width}
    stored += store.rows_within(source_state, others, start, step.window.end)
    change = reconciliation.replace(
        step.width, reading, stored, source_state.progress.epoch, source_state.endpoint.zero
    )
    wider = [row for row in _wider(store, source_state, step.width, [start]) if row.start < start]
    reconciliation.draw_down(change, wider, source_state.progress.epoch)
    return change


def _make_good(
    store: Store, source_state: SourceState, step: Step, reading: Mapping[int, Rows], now: int
) -> Change:
    pending_decreases = store.pending_decreases(
        source_state, step.width, step.window.start, step.window.end
    )
    change = reconciliation.reconcile(
        step.width,
        reading,
        _parts(store, source_state, step.width, reading),
        pending_decreases,
        now,
        source_state.progress.epoch,
        source_state.endpoint.zero,
    )
    wider = _wider(store, source_state, step.width, reading)
    reconciliation.draw_down(change, wider, source_state.progress.epoch)
    return change


def _wider(
    store: Store, source_state: SourceState, width: Width, starts: Iterable[int]
) -> list[reconciliation.Row]:
    """The rows of wider buckets that hold any of these buckets. Levels do not add up: none."""
    found: list[reconciliation.Row] = []
    if source_state.endpoint.level:
        return found
    for wide in Width:
        if wide > width:
            held = sorted({floor(start, wide) for start in starts})
            found += store.rows(source_state, wide, held)
    return found


def _parts(
    store: Store, source_state: SourceState, width: Width, reading: Mapping[int, Rows]
) -> list[reconciliation.Row]:
    widths = [each for each in Width if each <= width]
    return [
        row
        for start in reading
        for row in store.rows_within(source_state, widths, start, start + width)
    ]


def _disagreeing(store: Store, source_state: SourceState, reading: Mapping[int, Rows]) -> list[int]:
    return reconciliation.disagreeing(
        Width.DAY,
        reading,
        _parts(store, source_state, Width.DAY, reading),
        source_state.endpoint.zero,
    )


def _compactable(source_state: SourceState, fine_from: int) -> bool:
    return (
        floor(fine_from, Width.HOUR) > source_state.compacted
        and min(source_state.endpoint.widths) < Width.HOUR
    )


def _remember(
    source_state: SourceState,
    step: Step,
    fresh: Sequence[Bucket],
    reading: Mapping[int, Rows],
    change: Change,
    compact: int | None,
) -> None:
    """Keep fingerprints of what agrees with the store, so that it need not be decoded again; forget
    what was outrun.
    """
    doubted = {
        start
        for (_, start, _), pending_decrease in change.pending_decreases.items()
        if pending_decrease
    }
    for (
        width,
        start,
        _,
    ) in change.drops:  # what another width superseded must be decoded if it is ever read again
        source_state.fingerprints.pop((width, start), None)
    for bucket in fresh:
        if bucket.start in reading and bucket.start not in doubted:
            source_state.fingerprints[step.width, bucket.start] = bucket.fingerprint
        else:  # an older fingerprint no longer tells what is stored
            source_state.fingerprints.pop((step.width, bucket.start), None)
    touched = {row.start for row in change.writes} | {start for _, start, _ in change.drops}
    for width in Width:
        if width > step.width:
            for start in touched:
                source_state.fingerprints.pop((width, floor(start, width)), None)
    if any(rows for rows in reading.values()):
        end = max(start for start, rows in reading.items() if rows) + step.width
        source_state.newest_bucket = max(end, source_state.newest_bucket or 0)
    if compact is not None:
        source_state.compacted = floor(compact, Width.HOUR)
        for key in [
            key for key in source_state.fingerprints if key[0] == Width.MINUTE and key[1] < compact
        ]:
            del source_state.fingerprints[key]


@dataclass(frozen=True, slots=True)
class Booked:
    """What became of events, and the leaves that they made or moved."""

    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    stored_series_list: Sequence[tuple[SourceState, Sequence[StoredSeries]]] = ()


def record_events(
    store: EventStore,
    source_states: Mapping[str, SourceState],
    events: Sequence[Event],
    now: int,
    dedupe: int,
    *,
    until: int | None = None,
) -> Booked:
    """Count every event once: those whose identity was seen less than `dedupe` seconds ago are left
    out. None is booked later than `until` (else `now`), whatever time it names.

    `books` has one of each organization; the first is for events that name none of them. Raises
    StateError; nothing changed then.
    """
    found = metered.deduplicate(
        events, store.known_events([event.identity for event in events], now - dedupe)
    )
    bookings = [
        _booking(source_states[name], part, now, now if until is None else until)
        for name, part in metered.by_organization(
            found.fresh, next(iter(source_states)), source_states.__contains__
        ).items()
    ]
    if found.fresh:
        store.record_events(found.fresh, bookings, now)
    stored_series_list = [
        (booking.source_state, accept(booking.source_state, booking.new, booking.moved))
        for booking in bookings
    ]
    return Booked(len(found.fresh), found.duplicates, found.conflicts, stored_series_list)


def _booking(source_state: SourceState, events: Sequence[Event], now: int, until: int) -> Booking:
    hours = metered.hours(events, until)
    return Booking(source_state, hours, *series_after(source_state, metered.change(hours), now))


def record_day(
    store: Store,
    source_state: SourceState,
    day: int,
    hours: Mapping[int, Rows],
    now: int,
    prices: PriceList | None = None,
) -> None:
    """Keep what a source says of a whole UTC day, in place of what it said before. `hours` by their
    start. Raises StateError.
    """
    reading = {start: hours.get(start, {}) for start in range(day, day + Width.DAY, Width.HOUR)}
    record_range(
        store, source_state, Window(day, day + Width.DAY), Width.HOUR, reading, now, prices
    )


def record_range(
    store: Store,
    source_state: SourceState,
    window: Window,
    width: Width,
    reading: Mapping[int, Rows],
    now: int,
    prices: PriceList | None = None,
) -> None:
    """Keep a reading of a window in place of all that is stored of it. Raises StateError; nothing
    changed then.
    """
    stored = store.rows_within(source_state, tuple(Width), window.start, window.end)
    began = source_state.progress.epoch
    reading = {
        start: rows
        for start, rows in reading.items()
        if not began
        <= start
        < source_state.purged_before  # counted, then deleted because of its age
    }
    change = reconciliation.replace(
        width, reading, stored, source_state.progress.epoch, source_state.endpoint.zero
    )
    wider = [
        row
        for row in _wider(store, source_state, width, [window.start])
        if row.start < window.start
    ]
    reconciliation.draw_down(change, wider, source_state.progress.epoch)
    if change.writes or change.drops:
        new, moved = series_after(source_state, change, now)
        found = (
            estimate(source_state.endpoint, source_state.organization, change.moves, prices)
            if prices and not source_state.endpoint.level
            else Estimate()
        )
        for stored_series in (*new, *moved):
            priced(stored_series, found.growth.get(stored_series.dims))
        store.commit(
            source_state, Commit(source_state.progress, change, new, moved, estimates=found.days)
        )
        accept(source_state, new, moved)
