"""Records readings and events: load what is stored, decide, commit, apply.

All functions are synchronous, and run in the recorder's one thread.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from otel_openai_usage.domain import metered, metered_cost, reconciliation
from otel_openai_usage.domain.commits import (
    Commit,
    Created,
    Delta,
    StoredUsage,
    apply,
    apply_series,
    decide,
    priced,
    series_after,
)
from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.metered import AddedUsage, Event, EventCommit
from otel_openai_usage.domain.model import Dims, Rows, Width, Window, floor
from otel_openai_usage.domain.pricing import PriceList, Unpriced, add, dimensions_by_name
from otel_openai_usage.domain.readings import Bucket
from otel_openai_usage.domain.reconciliation import Row
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.domain.windows import Step
from otel_openai_usage.storage.ports import EventWriter, SharedState, UsageWriter


@dataclass(frozen=True, slots=True)
class Recorded:
    """What recording a reading changed.

    `rows` counts the rows that were compared with the store. `late` has new tokens by lateness.
    `refine` has the days whose reading differs from what is stored: read their hours, then record
    the days again. `unpriced` has the usage that has no price. `newest` is the start of the
    newest bucket with usage, in Unix seconds.
    """

    delta: Delta
    rows: int = 0
    late: Mapping[str, int] = field(default_factory=dict)
    refine: Sequence[Window] = ()
    unpriced: Mapping[Unpriced, int] = field(default_factory=dict)
    newest: int | None = None


def record_reading(
    store: UsageWriter,
    source_state: SourceState,
    step: Step,
    buckets: Sequence[Bucket],
    now: int,
    *,
    fine_from: int,
    refined: bool = False,
    prices: PriceList | None = None,
) -> Recorded:
    """Record the buckets of one step in one transaction.

    `fine_from` is the plan's. `refined` says that the hours of its days were just read, so that
    the days are now recorded even if they disagree. Raises BadResponse or StateError; nothing
    changed then.
    """
    fresh = _fresh(source_state, step.width, buckets)
    reading = {bucket.start: _counted(source_state, bucket) for bucket in fresh}
    refine: Sequence[int] = ()
    if not refined:
        refine = _days_to_refine(store, source_state, step, reading)
        # These days are recorded after their hours: only what the hours lack becomes a row of a
        # day.
        reading = {start: rows for start, rows in reading.items() if start not in refine}
    compact_before = None
    if not step.coarse and _has_minutes_to_compact(source_state, fine_from):
        compact_before = fine_from
    commit = decide(
        source_state,
        _stored_usage(store, source_state, step, reading),
        step,
        reading,
        now,
        prices=prices,
        is_complete=not refine,
        compact_before=compact_before,
    )
    delta = _write(store, source_state, commit, now)
    _update_fingerprints(source_state, step, fresh, reading, commit)
    _update_newest_bucket(source_state, step, reading)
    return Recorded(
        delta=delta,
        rows=sum(len(rows) for rows in reading.values()),
        late=_late(source_state, commit, now),
        refine=[Window(start, start + Width.DAY) for start in sorted(refine)],
        unpriced=commit.unpriced,
        newest=_newest_used(reading),
    )


def _counted(source_state: SourceState, bucket: Bucket) -> Rows:
    """The rows of a bucket without measures that do not count yet.

    Rows of an older version lack them. If some rows of a day had them, their sum would be no total,
    and usage that was priced would be priced again.
    """
    if bucket.start >= max(source_state.counted_from.values(), default=0):
        return bucket.rows
    return {
        dims: source_state.counted(bucket.start, amounts) for dims, amounts in bucket.rows.items()
    }


def _write(store: UsageWriter, source_state: SourceState, commit: Commit, now: int) -> Delta:
    """Write a commit and bring the state in memory up to date. Raises StateError.

    If only the progress changed, it is not written now: reading again after a crash does no harm.
    """
    created = Created()
    # The state in memory follows the commit: if it raises, neither of them has changed.
    if not commit.is_empty:
        created = store.commit(source_state, commit)
        source_state.written_at = now
    return apply(source_state, commit, created)


def _fresh(source_state: SourceState, width: Width, buckets: Sequence[Bucket]) -> list[Bucket]:
    """The buckets whose rows are not known to be stored, without those that were purged."""
    fresh = []
    for bucket in buckets:
        known = source_state.fingerprints.get(width, bucket.start)
        if bucket.start >= source_state.purged_before and bucket.fingerprint != known:
            fresh.append(bucket)
    return fresh


def _late(source_state: SourceState, commit: Commit, now: int) -> dict[str, int]:
    """New tokens by how late they came. At the first poll everything is new, and nothing late."""
    if not source_state.progress.complete:
        return {}
    tokens = [
        index
        for index, measure in enumerate(source_state.endpoint.measures)
        if measure.token_type in ("input", "output")
    ]
    return reconciliation.late(commit.change.grown(), tokens, now)


def _newest_used(reading: Mapping[int, Rows]) -> int | None:
    """The start of the newest bucket with usage."""
    # A row of zeros shows no usage: OpenAI reports days that cost nothing.
    used = [start for start, rows in reading.items() if any(map(any, rows.values()))]
    return max(used, default=None)


def price(source_state: SourceState, prices: PriceList, now: int) -> None:
    """Begin the estimated cost of series at 0 if they have a price now but had none before.

    Prometheus then sees their first cost as an increase from 0.
    """
    endpoint = source_state.endpoint
    for stored_series in source_state.series.values():
        if stored_series.estimate is not None or not stored_series.changed:
            continue
        dims = dimensions_by_name(endpoint, stored_series.dims)
        if prices.rates(source_state.organization, endpoint, dims, now):
            stored_series.estimate = Decimal(0)
            stored_series.estimate_shown = Decimal(0)


def _stored_usage(
    store: UsageWriter, source_state: SourceState, step: Step, reading: Mapping[int, Rows]
) -> StoredUsage:
    """What is stored where a reading of one step is recorded. Raises StateError."""
    if step.coarse:
        return StoredUsage(
            _rows_inside(store, source_state, step.width, reading),
            _wider_rows(store, source_state, step.width, reading),
            store.pending_decreases(source_state, step.width, step.window.start, step.window.end),
        )
    same_width = store.rows(source_state, step.width, sorted(reading))
    other_widths = set(Width) - {step.width}
    others = store.rows_within(source_state, other_widths, step.window.start, step.window.end)
    return StoredUsage(
        same_width + others, _overlapping_rows(store, source_state, step.width, step.window)
    )


def _overlapping_rows(
    store: UsageWriter, source_state: SourceState, width: Width, window: Window
) -> list[Row]:
    """Rows of wider buckets that began before the window and end in it.

    A wider bucket that begins in the window counts as covered: the rest of it was read in the same
    poll, newest first, or lies in the future.
    """
    wider = _wider_rows(store, source_state, width, [window.start])
    return [row for row in wider if row.start < window.start]


def _wider_rows(
    store: UsageWriter, source_state: SourceState, width: Width, starts: Iterable[int]
) -> list[Row]:
    """The rows of wider buckets that contain any of these buckets; none for a level.

    Levels do not add up, so a wider bucket never contains a part of another.
    """
    found: list[Row] = []
    if source_state.endpoint.level:
        return found
    starts = list(starts)
    for wider in Width:
        if wider > width:
            wider_starts = {floor(start, wider) for start in starts}
            found += store.rows(source_state, wider, sorted(wider_starts))
    return found


def _rows_inside(
    store: UsageWriter, source_state: SourceState, width: Width, starts: Iterable[int]
) -> list[Row]:
    """The rows of these buckets, and of the narrower buckets in them."""
    widths = [each for each in Width if each <= width]
    found: list[Row] = []
    for start in starts:
        found += store.rows_within(source_state, widths, start, start + width)
    return found


def _days_to_refine(
    store: UsageWriter, source_state: SourceState, step: Step, reading: Mapping[int, Rows]
) -> list[int]:
    """The days of a coarse reading that differ from what is stored, if hours can explain them."""
    endpoint = source_state.endpoint
    has_hours = min(endpoint.widths) < Width.DAY
    if not step.coarse or step.width != Width.DAY or not has_hours:
        return []
    stored = _rows_inside(store, source_state, Width.DAY, reading)
    return reconciliation.disagreeing(Width.DAY, reading, stored, endpoint.zero)


def _has_minutes_to_compact(source_state: SourceState, fine_from: int) -> bool:
    has_minutes = min(source_state.endpoint.widths) < Width.HOUR
    return has_minutes and source_state.fingerprints.has_minutes_before(fine_from)


def _update_fingerprints(
    source_state: SourceState,
    step: Step,
    fresh: Sequence[Bucket],
    reading: Mapping[int, Rows],
    commit: Commit,
) -> None:
    """Remember the buckets that agree with the store, so that they need not be decoded again."""
    fingerprints = source_state.fingerprints
    change = commit.change
    # A row that another width superseded must be decoded if it is ever read again.
    for width, start, _ in change.drops:
        fingerprints.discard(width, start)
    # A bucket whose decrease waits must be decoded again: only a second reading confirms it.
    undecided = {start for (_, start, _), pending in change.pending_decreases.items() if pending}
    for bucket in fresh:
        is_stored = bucket.start in reading and bucket.start not in undecided
        if is_stored:
            fingerprints.set(step.width, bucket.start, bucket.fingerprint)
        else:
            fingerprints.discard(step.width, bucket.start)
    changed = {row.start for row in change.writes}
    changed |= {start for _, start, _ in change.drops}
    fingerprints.discard_wider(step.width, changed)
    if commit.compact_before is not None:
        fingerprints.compacted(commit.compact_before)


def _update_newest_bucket(
    source_state: SourceState, step: Step, reading: Mapping[int, Rows]
) -> None:
    starts_with_rows = [start for start, rows in reading.items() if rows]
    if starts_with_rows:
        end = max(starts_with_rows) + step.width
        status = source_state.status
        status.newest_bucket = max(end, status.newest_bucket or 0)


@dataclass(frozen=True, slots=True)
class RecordedEvents:
    """How many events were new, repeated, or repeated with other content; and what changed."""

    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    deltas: Sequence[Delta] = ()


def record_events(
    store: EventWriter,
    source_states: Mapping[str, SourceState],
    events: Sequence[Event],
    now: int,
    dedupe: int,
    *,
    until: int | None = None,
    prices: PriceList | None = None,
) -> RecordedEvents:
    """Count and price every event once, in one transaction.

    Events whose identity was seen less than `dedupe` seconds ago are left out. An event counts in
    the hour of its time, but no later than `until` (else `now`). `source_states` has one
    source for each organization; the first is for events that name none of them. Raises
    StateError; nothing changed then.
    """
    identities = [event.identity for event in events]
    found = metered.deduplicate(events, store.known_events(identities, now - dedupe))
    default = next(iter(source_states))
    by_organization = metered.by_organization(found.fresh, default, source_states.__contains__)
    latest = now if until is None else until
    commits = [
        _event_commit(source_states[name], part, now, latest, prices)
        for name, part in by_organization.items()
    ]
    deltas = []
    if found.fresh:
        all_created = store.record_events(found.fresh, commits, now)
        for commit, created in zip(commits, all_created, strict=True):
            deltas.append(
                apply_series(commit.source_state, commit.created, commit.updated, created)
            )
    return RecordedEvents(len(found.fresh), found.duplicates, found.conflicts, deltas)


def queue_events(
    shared: SharedState,
    endpoint: Endpoint,
    organizations: Sequence[str],
    events: Sequence[Event],
    now: int,
    dedupe: int,
    *,
    until: int,
    prices: PriceList | None = None,
) -> RecordedEvents:
    """Store and price every event once; the owner of its organization counts it (`count_queued`).

    The other arguments are those of `record_events`. Raises StateError; nothing changed then.
    """

    def added(fresh: Sequence[Event]) -> dict[str, AddedUsage]:
        parts = metered.by_organization(fresh, organizations[0], organizations.__contains__)
        return {
            name: AddedUsage(
                metered.hours(part, until), metered_cost.costs(name, part, prices, until).days
            )
            for name, part in parts.items()
        }

    queued = shared.queue_events(events, endpoint, now - dedupe, now, added)
    return RecordedEvents(queued.accepted, queued.duplicates, queued.conflicts)


def count_queued(shared: SharedState, source_state: SourceState, now: int) -> Delta | None:
    """Count events that any replica stored. None if there are none. Raises StateError."""

    def decide(added: AddedUsage) -> EventCommit:
        created, updated = series_after(source_state, metered.change(added.hours), now)
        growth: dict[Dims, Decimal] = {}
        for (dims, _), cost in added.costs.items():
            growth[dims] = add(growth.get(dims, Decimal(0)), cost)
        for stored_series in (*created, *updated):
            priced(stored_series, growth.get(stored_series.dims))
        return EventCommit(source_state, added.hours, created, updated, added.costs)

    found = shared.count_queued(source_state, decide)
    if found is None:
        return None
    commit, new = found
    return apply_series(source_state, commit.created, commit.updated, new)


def _event_commit(
    source_state: SourceState,
    events: Sequence[Event],
    now: int,
    until: int,
    prices: PriceList | None,
) -> EventCommit:
    hours = metered.hours(events, until)
    costs = metered_cost.costs(source_state.organization, events, prices, until)
    created, updated = series_after(source_state, metered.change(hours), now)
    for stored_series in (*created, *updated):
        priced(stored_series, costs.growth.get(stored_series.dims))
    return EventCommit(source_state, hours, created, updated, costs.days)


def record_day(
    store: UsageWriter,
    source_state: SourceState,
    day: int,
    hours: Mapping[int, Rows],
    now: int,
    prices: PriceList | None = None,
) -> None:
    """Replace a whole UTC day by the rows of its hours, by start. Hours that are not in `hours`
    become empty. Raises StateError.
    """
    window = Window(day, day + Width.DAY)
    reading = {start: hours.get(start, {}) for start in range(day, window.end, Width.HOUR)}
    record_range(store, source_state, window, Width.HOUR, reading, now, prices)


def record_range(
    store: UsageWriter,
    source_state: SourceState,
    window: Window,
    width: Width,
    reading: Mapping[int, Rows],
    now: int,
    prices: PriceList | None = None,
) -> Delta:
    """Replace all that is stored of a window by a reading. Raises BadResponse or StateError;
    nothing changed then.
    """
    epoch = source_state.progress.epoch
    # These buckets are in the totals, but their rows were purged: they would be counted twice.
    purged = range(epoch, source_state.purged_before)
    reading = {start: rows for start, rows in reading.items() if start not in purged}
    stored = StoredUsage(
        store.rows_within(source_state, tuple(Width), window.start, window.end),
        _overlapping_rows(store, source_state, width, window),
    )
    step = Step(window, width, coarse=False)
    commit = decide(source_state, stored, step, reading, now, prices=prices)
    return _write(store, source_state, commit, now)
