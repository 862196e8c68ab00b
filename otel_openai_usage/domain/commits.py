"""What a reading changes, decided before anything is written.

`decide` is pure: it gets what is stored as values, and returns a Commit. The store writes the
commit in one transaction and returns what it Created. A Delta names the series that changed, for
the view.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from otel_openai_usage.domain import reconciliation, windows
from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Amounts, Dims, Rows
from otel_openai_usage.domain.pricing import Estimate, HourKey, PriceList, Unpriced, add, estimate
from otel_openai_usage.domain.reconciliation import Change, PendingDecrease, Row, highest, total
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.domain.windows import Progress, Step
from otel_openai_usage.errors import BadResponse

# The integers that a database column can hold.
_MIN_INTEGER = -(2**63)
_MAX_INTEGER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class StoredUsage:
    """What the store has where a reading is recorded.

    `rows` are those that the reading replaces or is compared with. `wider` are rows of wider
    buckets that contain buckets of the reading.
    """

    rows: Sequence[Row] = ()
    wider: Sequence[Row] = ()
    pending_decreases: Mapping[tuple[int, int, Dims], PendingDecrease] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction.

    `created` series have the id 0, because the store chooses their ids. `updated` series are copies
    with the new totals. Minutes before `compact_before` are downsampled to hours. `estimates` is
    the growth of estimated costs by attribute set and UTC day, `hours` that by hour, project and
    model. `unpriced` has the usage that has no
    price; it is not stored.
    """

    progress: Progress
    change: Change = field(default_factory=Change)
    created: Sequence[StoredSeries] = ()
    updated: Sequence[StoredSeries] = ()
    compact_before: int | None = None
    estimates: Mapping[tuple[Dims, int], Decimal] = field(default_factory=dict)
    unpriced: Mapping[Unpriced, int] = field(default_factory=dict)
    hours: Mapping[HourKey, Decimal] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed but the progress, which may be written later."""
        change = self.change
        has_rows = bool(change.writes or change.drops or change.pending_decreases)
        has_series = bool(self.created or self.updated)
        return not has_rows and not has_series and self.compact_before is None


@dataclass(frozen=True, slots=True)
class Created:
    """The ids of the series that a commit created, by attribute set."""

    ids: Mapping[Dims, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delta:
    """The series of one source that a commit created or updated, as they are now."""

    source_state: SourceState
    series: Sequence[StoredSeries] = ()


def decide(
    source_state: SourceState,
    stored: StoredUsage,
    step: Step,
    reading: Mapping[int, Rows],
    now: int,
    *,
    prices: PriceList | None = None,
    is_complete: bool = True,
    compact_before: int | None = None,
) -> Commit:
    """Decide what a reading of one step changes. Changes neither its arguments nor the store.

    `reading` has the rows of each bucket by its start. `is_complete` is false if days were left out
    of it because they are read again: the window then still counts as unread. Raises BadResponse if
    a row does not fit into the database.
    """
    endpoint = source_state.endpoint
    change = _change(source_state, stored, step, reading, now)
    _refuse_unstorable(endpoint, change)
    if endpoint.level:
        created, updated = levels_after(source_state, reading, change, now)
    else:
        created, updated = series_after(source_state, change, now)
    costs = _costs(source_state, change, prices)
    updated += _repriced(source_state, costs, [*created, *updated])
    for stored_series in (*created, *updated):
        priced(stored_series, costs.growth.get(stored_series.dims))
    progress = source_state.progress
    if is_complete:
        progress = replace(progress, unread=windows.without(progress.unread, step.window))
    return Commit(
        progress, change, created, updated, compact_before, costs.days, costs.unpriced, costs.hours
    )


def _change(
    source_state: SourceState,
    stored: StoredUsage,
    step: Step,
    reading: Mapping[int, Rows],
    now: int,
) -> Change:
    """The rows to write. A coarse reading is reconciled with finer rows; a fine one replaces."""
    epoch = source_state.progress.epoch
    zero = source_state.endpoint.zero
    if step.coarse:
        change = reconciliation.reconcile(
            step.width, reading, stored.rows, stored.pending_decreases, now, epoch, zero
        )
    else:
        change = reconciliation.replace(step.width, reading, stored.rows, epoch, zero)
    reconciliation.draw_down(change, stored.wider, epoch)
    return change


def _refuse_unstorable(endpoint: Endpoint, change: Change) -> None:
    """Raise BadResponse for a count beyond the 64 bits of a database column.

    A coarse row is the difference between OpenAI's bucket and its finer rows, which may be many.
    """
    for row in change.writes:
        if not reconciliation.are_whole(row.amounts):
            continue
        if min(row.amounts) < _MIN_INTEGER or max(row.amounts) > _MAX_INTEGER:
            raise BadResponse(
                f"{endpoint.path}: counts of the bucket {row.start} are too large to be stored"
            )


def _costs(source_state: SourceState, change: Change, prices: PriceList | None) -> Estimate:
    """The estimated costs of a change; a level and OpenAI's own costs have none."""
    endpoint = source_state.endpoint
    if prices is None or not endpoint.is_priced:
        return Estimate()
    return estimate(endpoint, source_state.organization, change.moves, prices)


def _repriced(
    source_state: SourceState, costs: Estimate, changed: Iterable[StoredSeries]
) -> list[StoredSeries]:
    """Copies of the series whose estimate changes although their total does not.

    That happens when OpenAI moves usage to another hour, in which it had another price.
    """
    changed_dims = {stored_series.dims for stored_series in changed}
    zero = source_state.endpoint.zero
    repriced = []
    for dims, growth in costs.growth.items():
        stored_series = source_state.series.get(dims)
        if growth and stored_series is not None and dims not in changed_dims:
            repriced.append(grown(stored_series, zero, stored_series.changed))
    return repriced


def grown(stored_series: StoredSeries, moved: Amounts, now: int) -> StoredSeries:
    """A copy of the series after its total moved."""
    after = total(stored_series.total, moved)
    # Nearly always both are equal. There are many series, so they share one tuple.
    shown = after
    if stored_series.shown is not stored_series.total or min(moved) < 0:
        top = highest(stored_series.shown, after)
        shown = after if top == after else top
    return StoredSeries(
        stored_series.id,
        stored_series.dims,
        after,
        shown,
        stored_series.released,
        stored_series.first_seen,
        now,
        stored_series.estimate,
        stored_series.estimate_shown,
    )


def priced(stored_series: StoredSeries, growth: Decimal | None) -> None:
    """Add to the estimated cost of an uncommitted series. `growth` is None without a price."""
    if growth is not None:
        stored_series.estimate = add(stored_series.estimate or Decimal(0), growth)
        stored_series.estimate_shown = max(
            stored_series.estimate_shown or Decimal(0), stored_series.estimate
        )


def series_after(
    source_state: SourceState, change: Change, now: int
) -> tuple[list[StoredSeries], list[StoredSeries]]:
    """The series that a change creates, and copies of those that it updates."""
    zero = source_state.endpoint.zero
    created = []
    updated = []
    for dims, growth in change.growth.items():
        stored_series = source_state.series.get(dims)
        if stored_series is None:
            fresh = StoredSeries(0, dims, zero, zero, False, now, now)
            created.append(grown(fresh, growth, now))
        elif any(growth):
            updated.append(grown(stored_series, growth, now))
    return created + _before_epoch(source_state, change, now), updated


def levels_after(
    source_state: SourceState, reading: Mapping[int, Rows], change: Change, now: int
) -> tuple[list[StoredSeries], list[StoredSeries]]:
    """The same for a level, whose value is that of the newest bucket: it may fall.

    Buckets before the epoch are stored, but say nothing about the present.
    """
    epoch = source_state.progress.epoch
    counted = {start: rows for start, rows in reading.items() if start >= epoch}
    created = []
    updated = []
    for dims, (start, amounts) in reconciliation.latest(counted).items():
        stored_series = source_state.series.get(dims)
        if stored_series is None:
            created.append(StoredSeries(0, dims, amounts, amounts, True, now, start))
            continue
        before = (stored_series.changed, stored_series.shown)
        if start >= stored_series.changed and (start, amounts) != before:
            first_seen = stored_series.first_seen
            updated.append(
                StoredSeries(stored_series.id, dims, amounts, amounts, True, first_seen, start)
            )
    created_dims = {stored_series.dims for stored_series in created}
    before_epoch = _before_epoch(source_state, change, now)
    created += [each for each in before_epoch if each.dims not in created_dims]
    return created, updated


def _before_epoch(source_state: SourceState, change: Change, now: int) -> list[StoredSeries]:
    """New series that have rows from before the epoch only, so that no counter shows them."""
    zero = source_state.endpoint.zero
    # One lookup for each: a difference of sets would visit every series of the source.
    return [
        StoredSeries(0, dims, zero, zero, False, now, 0)
        for dims in change.before_epoch
        if dims not in change.growth and dims not in source_state.series
    ]


def apply(source_state: SourceState, commit: Commit, created: Created) -> Delta:
    """Apply a commit that the store has to the state in memory."""
    source_state.progress = commit.progress
    return apply_series(source_state, commit.created, commit.updated, created)


def apply_series(
    source_state: SourceState,
    new: Iterable[StoredSeries],
    updated: Iterable[StoredSeries],
    created: Created,
) -> Delta:
    """Add created series under their ids, and update the others; these stay the same objects."""
    series = []
    for stored_series in new:
        added = replace(stored_series, id=created.ids[stored_series.dims])
        source_state.series.add(added)
        series.append(added)
    series += [source_state.series.replace_values(stored_series) for stored_series in updated]
    return Delta(source_state, series)
