"""The verbs: plan a poll, take a reading into a book, finish the poll. Synchronous; called from one
thread.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from otel_openai_usage.core import ledger, metered, windows
from otel_openai_usage.core.book import (
    Book,
    Commit,
    Leaf,
    accept,
    grown,
    leaves_after,
    levels_after,
    priced,
)
from otel_openai_usage.core.estimate import Estimate, PriceBook, by_name, estimate
from otel_openai_usage.core.ledger import Change
from otel_openai_usage.core.metered import Booking, Event
from otel_openai_usage.core.model import Bucket, Rows, Width, Window, floor
from otel_openai_usage.core.ports import EventStore, Store
from otel_openai_usage.core.windows import Plan, Step
from otel_openai_usage.errors import BadResponse, GroupingRefused, StateError

KEEP_EVERY = 900
"""Seconds between two writes of a source that brings nothing new: so long a stop may look shorter
than it was.
"""


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What a reading brought: leaves that are new or moved, how many rows were looked at, how much
    of it was late.

    `newest` is the start of the newest bucket with usage. `finer` has the days that disagree with
    their hours, so that those should be read before this is absorbed again. `unpriced` has the
    tokens by model that no price is known of.
    """

    leaves: Sequence[Leaf] = ()
    rows: int = 0
    late: Mapping[str, int] = field(default_factory=dict)
    finer: Sequence[Window] = ()
    unpriced: Mapping[str, int] = field(default_factory=dict)
    newest: int | None = None


def regroup(store: Store, book: Book, wanted: tuple[str, ...], now: int) -> None:
    """Let the configured grouping apply from the next UTC midnight on. Raises StateError; nothing
    changed then.

    To be called before every poll: a clock that was ahead had put that midnight too far off.
    """
    before = book.groupings
    if book.regroup(wanted, book.next_midnight(now)):
        try:
            store.regroup(book)
        except StateError:
            book.groupings = before
            raise


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Dimensions that buckets are read without from now on. `news` has those of them that the
    buckets before were still read with: nobody was told of them yet.
    """

    news: tuple[str, ...]


def leave_out(store: Store, book: Book, window: Window, refused: GroupingRefused) -> LeftOut | None:
    """Read the buckets of a window without the dimensions that OpenAI refuses there. None if that
    would change nothing, because its buckets were read with them before.

    Older days get the same grouping if none of them has rows. Raises StateError; nothing changed
    then.
    """
    end = refused.accepted_from or -(-window.end // Width.DAY) * Width.DAY
    rows = store.rows_within(book, tuple(Width), 0, end)
    read_until = max((row.start + row.width for row in rows), default=0)
    start = -(-read_until // Width.DAY) * Width.DAY
    if start >= end:
        return None
    before = book.groupings
    known = book.group_by(max(0, start - 1))
    if not book.leave_out(refused.dimensions, start, end):
        return None
    try:
        store.regroup(book)
    except StateError:
        book.groupings = before
        raise
    return LeftOut(tuple(name for name in refused.dimensions if name in known))


def due(book: Book, now: int, rules: windows.Rules, *, hours: bool, days: bool) -> Plan:
    """The steps of one poll, with the time since the last poll noted as unread.

    Levels are read fresh only: an old level says nothing of now, so it leaves no gap either.
    """
    # Buckets whose rows were deleted are never booked again, so they are not read either.
    bookable = replace(book.progress, epoch=max(book.progress.epoch, book.purged_before))
    plan = windows.plan(bookable, now, rules, hours=hours, days=days, cuts=book.cuts)
    if book.kind.level:
        plan = replace(
            plan,
            steps=tuple(step for step in plan.steps if not step.coarse),
            unread=(),
            gaps=(),
            lost=(),
        )
    book.progress = replace(book.progress, horizon=plan.end, unread=plan.unread)
    return plan


def whole_days(store: Store, book: Book, plan: Plan) -> Sequence[Step]:
    """Comparisons of whole days that the plan reads in hours though they have a row of their own.

    Such a row stays from another bucket width, or because OpenAI's hours knew less than its days.
    Only a comparison of the day can lower it. The running day waits until it is over. Raises
    StateError.
    """
    if book.kind.level or plan.hours_from >= plan.fine_from:
        return ()
    rows = store.rows_within(book, (Width.DAY,), plan.hours_from, plan.end)
    starts = {row.start for row in rows if row.start + Width.DAY < plan.end}
    return [
        Step(Window(start, start + Width.DAY), Width.DAY, coarse=True)
        for start in sorted(starts, reverse=True)
    ]


def give_up(book: Book, window: Window) -> Sequence[Window]:
    """OpenAI does not report that far back: do not ask for it as a gap again. What of it no reading
    has covered.
    """
    lost = [
        Window(max(unread.start, window.start), min(unread.end, window.end))
        for unread in book.progress.unread
        if unread.start < window.end and window.start < unread.end
    ]
    book.progress = replace(book.progress, unread=windows.without(book.progress.unread, window))
    return lost


def absorb(
    store: Store,
    book: Book,
    parse: Callable[[bytes], Rows],
    step: Step,
    buckets: Sequence[Bucket],
    now: int,
    *,
    fine_from: int,
    drilled: bool = False,
    prices: PriceBook | None = None,
) -> Absorbed:
    """Book one step's reading and keep it, all or nothing.

    `fine_from` is the plan's. `drilled` says that the hours of its days were just read. Raises
    BadResponse or StateError; nothing changed then.
    """
    fresh = [
        bucket
        for bucket in buckets
        if bucket.start >= book.purged_before
        and book.prints.get((step.width, bucket.start)) != bucket.fingerprint
    ]
    reading = {bucket.start: parse(bucket.results) for bucket in fresh}
    finer = (
        _disagreeing(store, book, reading)
        if step.coarse and step.width == Width.DAY > min(book.kind.widths) and not drilled
        else []
    )
    if finer:
        reading = {start: rows for start, rows in reading.items() if start not in finer}
    change = (
        _make_good(store, book, step, reading, now)
        if step.coarse
        else _replace(store, book, step, reading)
    )
    _refuse_unstorable(book, change)
    new, moved = (
        levels_after(book, ledger.latest(reading), now)
        if book.kind.level
        else leaves_after(book, change, now)
    )
    found = (
        estimate(book.kind, book.organization, change.moves, prices)
        if prices and not book.kind.level
        else Estimate()
    )
    # Where only the price moved: usage is now known to be of another hour.
    dear = found.growth.keys() - {leaf.dims for leaf in (*new, *moved)}
    moved += [
        grown(leaf, book.kind.zero, leaf.changed)
        for dims in dear
        if (leaf := book.leaves.get(dims)) and found.growth[dims]
    ]
    for leaf in (*new, *moved):
        priced(leaf, found.growth.get(leaf.dims))
    progress = (
        replace(book.progress, unread=windows.without(book.progress.unread, step.window))
        if not finer
        else book.progress
    )
    compact = fine_from if not step.coarse and _compactable(book, fine_from) else None
    if change.writes or change.drops or change.suspects or new or moved or compact is not None:
        store.commit(book, Commit(progress, change, new, moved, compact, found.days))
        book.kept_at = now
    book.progress = progress
    _remember(book, step, fresh, reading, change, compact)
    return Absorbed(
        accept(book, new, moved),
        sum(map(len, reading.values())),
        ledger.late(change.grown(), _tokens(book), now) if progress.complete else {},
        [Window(start, start + Width.DAY) for start in sorted(finer)],
        found.unpriced,
        max(
            (start for start, rows in reading.items() if any(map(any, rows.values()))), default=None
        ),
    )


def _refuse_unstorable(book: Book, change: Change) -> None:
    """BadResponse where a row would leave the 64 bits of a database column: a coarse row is the
    difference between what OpenAI says and the finer rows, which may be many.
    """
    for row in change.writes:
        if any(isinstance(n, int) and not -(2**63) <= n < 2**63 for n in row.amounts):
            raise BadResponse(
                f"{book.kind.path}: counts of the bucket {row.start} are too large to be stored"
            )


def price(book: Book, prices: PriceBook, now: int) -> None:
    """Let the leaves that have a price now, but had none, begin at 0: so their first cost is an
    increase.
    """
    for leaf in book.leaves.values():
        if (
            leaf.estimate is None
            and leaf.changed
            and prices.rates(book.organization, book.kind, by_name(book.kind, leaf.dims), now)
        ):
            leaf.estimate = leaf.estimate_shown = Decimal(0)


def finish(store: Store, book: Book, now: int) -> bool:
    """Note that every step of a poll was taken. True if it was the first such poll: the book may
    now be shown.

    Raises StateError; the poll has not ended then.
    """
    first = not book.progress.complete
    before = book.last_success
    progress = replace(book.progress, complete=True)
    book.last_success = now
    if first or not 0 <= now - book.kept_at < KEEP_EVERY:
        try:
            store.commit(book, Commit(progress))
        except StateError:
            book.last_success = before
            raise
        book.kept_at = now
    book.progress = progress
    return first


def keep(store: Store, book: Book, now: int) -> None:
    """Write down how far reading has come."""
    store.commit(book, Commit(book.progress))
    book.kept_at = now


def _tokens(book: Book) -> list[int]:
    return [
        index
        for index, measure in enumerate(book.kind.measures)
        if measure.token_type in ("input", "output")
    ]


def _replace(store: Store, book: Book, step: Step, reading: Mapping[int, Rows]) -> Change:
    """Let a fine reading replace its own rows, and those of other widths that it covers.

    A wider bucket that begins in the window is covered: the rest of it was read in the same poll,
    newest first, or lies in the future. One that began before the window is covered in part.
    """
    start = step.window.start
    stored = store.rows(book, step.width, sorted(reading))
    others = set(Width) - {step.width}
    stored += store.rows_within(book, others, start, step.window.end)
    change = ledger.replace(step.width, reading, stored, book.progress.epoch, book.kind.zero)
    wider = [row for row in _wider(store, book, step.width, [start]) if row.start < start]
    ledger.draw_down(change, wider, book.progress.epoch)
    return change


def _make_good(
    store: Store, book: Book, step: Step, reading: Mapping[int, Rows], now: int
) -> Change:
    suspicions = store.suspicions(book, step.width, step.window.start, step.window.end)
    change = ledger.make_good(
        step.width,
        reading,
        _parts(store, book, step.width, reading),
        suspicions,
        now,
        book.progress.epoch,
        book.kind.zero,
    )
    wider = _wider(store, book, step.width, reading)
    ledger.draw_down(change, wider, book.progress.epoch)
    return change


def _wider(store: Store, book: Book, width: Width, starts: Iterable[int]) -> list[ledger.Row]:
    """The rows of wider buckets that hold any of these buckets. Levels do not add up: none."""
    found: list[ledger.Row] = []
    if book.kind.level:
        return found
    for wide in Width:
        if wide > width:
            held = sorted({floor(start, wide) for start in starts})
            found += store.rows(book, wide, held)
    return found


def _parts(store: Store, book: Book, width: Width, reading: Mapping[int, Rows]) -> list[ledger.Row]:
    widths = [each for each in Width if each <= width]
    return [
        row for start in reading for row in store.rows_within(book, widths, start, start + width)
    ]


def _disagreeing(store: Store, book: Book, reading: Mapping[int, Rows]) -> list[int]:
    return ledger.disagreeing(
        Width.DAY, reading, _parts(store, book, Width.DAY, reading), book.kind.zero
    )


def _compactable(book: Book, fine_from: int) -> bool:
    return floor(fine_from, Width.HOUR) > book.compacted and min(book.kind.widths) < Width.HOUR


def _remember(
    book: Book,
    step: Step,
    fresh: Sequence[Bucket],
    reading: Mapping[int, Rows],
    change: Change,
    compact: int | None,
) -> None:
    """Keep fingerprints of what agrees with the store, so that it need not be decoded again; forget
    what was outrun.
    """
    doubted = {start for (_, start, _), suspicion in change.suspects.items() if suspicion}
    for (
        width,
        start,
        _,
    ) in change.drops:  # what another width superseded must be decoded if it is ever read again
        book.prints.pop((width, start), None)
    for bucket in fresh:
        if bucket.start in reading and bucket.start not in doubted:
            book.prints[step.width, bucket.start] = bucket.fingerprint
        else:  # an older fingerprint no longer tells what is stored
            book.prints.pop((step.width, bucket.start), None)
    touched = {row.start for row in change.writes} | {start for _, start, _ in change.drops}
    for width in Width:
        if width > step.width:
            for start in touched:
                book.prints.pop((width, floor(start, width)), None)
    if any(rows for rows in reading.values()):
        end = max(start for start, rows in reading.items() if rows) + step.width
        book.newest_bucket = max(end, book.newest_bucket or 0)
    if compact is not None:
        book.compacted = floor(compact, Width.HOUR)
        for key in [key for key in book.prints if key[0] == Width.MINUTE and key[1] < compact]:
            del book.prints[key]


@dataclass(frozen=True, slots=True)
class Booked:
    """What became of events, and the leaves that they made or moved."""

    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    leaves: Sequence[tuple[Book, Sequence[Leaf]]] = ()


def book_events(
    store: EventStore,
    books: Mapping[str, Book],
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
    found = metered.sift(
        events, store.known_events([event.identity for event in events], now - dedupe)
    )
    bookings = [
        _booking(books[name], part, now, now if until is None else until)
        for name, part in metered.by_organization(
            found.fresh, next(iter(books)), books.__contains__
        ).items()
    ]
    if found.fresh:
        store.book_events(found.fresh, bookings, now)
    leaves = [
        (booking.book, accept(booking.book, booking.new, booking.moved)) for booking in bookings
    ]
    return Booked(len(found.fresh), found.duplicates, found.conflicts, leaves)


def _booking(book: Book, events: Sequence[Event], now: int, until: int) -> Booking:
    hours = metered.hours(events, until)
    return Booking(book, hours, *leaves_after(book, metered.change(hours), now))


def book_day(
    store: Store,
    book: Book,
    day: int,
    hours: Mapping[int, Rows],
    now: int,
    prices: PriceBook | None = None,
) -> None:
    """Keep what a source says of a whole UTC day, in place of what it said before. `hours` by their
    start. Raises StateError.
    """
    reading = {start: hours.get(start, {}) for start in range(day, day + Width.DAY, Width.HOUR)}
    book_past(store, book, Window(day, day + Width.DAY), Width.HOUR, reading, now, prices)


def book_past(
    store: Store,
    book: Book,
    window: Window,
    width: Width,
    reading: Mapping[int, Rows],
    now: int,
    prices: PriceBook | None = None,
) -> None:
    """Keep a reading of a window in place of all that is stored of it. Raises StateError; nothing
    changed then.
    """
    stored = store.rows_within(book, tuple(Width), window.start, window.end)
    began = book.progress.epoch
    reading = {
        start: rows
        for start, rows in reading.items()
        if not began <= start < book.purged_before  # counted, then deleted because of its age
    }
    change = ledger.replace(width, reading, stored, book.progress.epoch, book.kind.zero)
    wider = [row for row in _wider(store, book, width, [window.start]) if row.start < window.start]
    ledger.draw_down(change, wider, book.progress.epoch)
    if change.writes or change.drops:
        new, moved = leaves_after(book, change, now)
        found = (
            estimate(book.kind, book.organization, change.moves, prices)
            if prices and not book.kind.level
            else Estimate()
        )
        for leaf in (*new, *moved):
            priced(leaf, found.growth.get(leaf.dims))
        store.commit(book, Commit(book.progress, change, new, moved, estimates=found.days))
        accept(book, new, moved)
