"""A store made of dictionaries, and readings written by hand: what laws on the core are tried with."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from otel_openai_usage.domain.commits import Commit, Created
from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS, Endpoint
from otel_openai_usage.domain.groupings import Groupings
from otel_openai_usage.domain.model import (
    NO_NAMES,
    Amounts,
    Dims,
    Limit,
    Names,
    Rows,
    Width,
    Window,
    floor,
)
from otel_openai_usage.domain.readings import Bucket
from otel_openai_usage.domain.reconciliation import PendingDecrease, Row, total
from otel_openai_usage.domain.series_marks import HighWaterMark, OverflowMember
from otel_openai_usage.domain.source_state import SourceKey, SourceState, StoredSeries
from otel_openai_usage.domain.windows import Progress, Step
from otel_openai_usage.engine import recording
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.ports import UsageWriter

MINUTE = 60
HOUR = 3600
DAY = 86400
MIDNIGHT = 1_793_577_600
"""Monday, 2026-11-02, 00:00 UTC."""
EMBEDDINGS = USAGE_ENDPOINTS["embeddings"]


def who(name: str | None = "a", key: str | None = None) -> Dims:
    """Dimensions of embeddings: the model, and perhaps a key."""
    return (None, None, key, name)


def source_state(
    endpoint: Endpoint = EMBEDDINGS,
    *,
    epoch: int = MIDNIGHT,
    complete: bool = True,
    id_: int = 1,
    organization: str = "default",
) -> SourceState:
    """A book that begins to count at `epoch`."""
    key = SourceKey(id_, organization, endpoint)
    progress = Progress(epoch, complete, epoch)
    return SourceState.of(key, progress, Groupings.always(endpoint.group_by))


@dataclass
class Shelf:
    """Implements ports.UsageWriter. With `full`, nothing more can be written."""

    readings: dict[tuple[int, int, int, Dims], Amounts] = field(default_factory=dict)
    suspected: dict[tuple[int, int, int, Dims], PendingDecrease] = field(default_factory=dict)
    folded: list[OverflowMember] = field(default_factory=list)
    held: list[HighWaterMark] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    commits: int = 0
    full: bool = False

    def source_state(
        self, organization: str, endpoint: Endpoint, epoch: int, group_by: tuple[str, ...]
    ) -> SourceState:
        return source_state(endpoint, epoch=epoch, organization=organization)

    def save_counted_from(self, source_state: SourceState, counted: Mapping[int, int]) -> None: ...

    def save_groupings(self, source_state: SourceState, groupings: Groupings) -> None: ...

    def rows(self, source_state: SourceState, width: int, starts: Sequence[int]) -> list[Row]:
        return [
            row for row in self._rows(source_state) if row.width == width and row.start in starts
        ]

    def rows_within(
        self, source_state: SourceState, widths: Iterable[int], start: int, end: int
    ) -> list[Row]:
        wanted = set(widths)
        return [
            row
            for row in self._rows(source_state)
            if row.width in wanted and start <= row.start < end
        ]

    def _rows(self, source_state: SourceState) -> Iterator[Row]:
        return (
            Row(width, start, dims, amounts)
            for (id_, width, start, dims), amounts in self.readings.items()
            if id_ == source_state.id
        )

    def pending_decreases(
        self, source_state: SourceState, width: int, start: int, end: int
    ) -> dict[tuple[int, int, Dims], PendingDecrease]:
        return {
            (wide, begin, dims): pending_decrease
            for (id_, wide, begin, dims), pending_decrease in self.suspected.items()
            if (id_, wide) == (source_state.id, width) and start <= begin < end
        }

    def commit(self, source_state: SourceState, commit: Commit) -> Created:
        self._refuse()
        first_id = 1000 * source_state.id + len(source_state.series) + 1
        ids = {one.dims: first_id + place for place, one in enumerate(commit.created)}
        for width, start, dims in commit.change.drops:
            del self.readings[source_state.id, width, start, dims]
        for row in commit.change.writes:
            self.readings[source_state.id, row.width, row.start, row.dims] = row.amounts
        for (width, start, dims), pending_decrease in commit.change.pending_decreases.items():
            self.suspected.pop((source_state.id, width, start, dims), None)
            if pending_decrease:
                self.suspected[source_state.id, width, start, dims] = pending_decrease
        if commit.compact_before is not None:
            self._compact(source_state, commit.compact_before)
        return Created(ids)

    def _compact(self, source_state: SourceState, before: int) -> None:
        for row in list(self._rows(source_state)):
            if row.width == MINUTE and source_state.progress.whole_days_from <= row.start < before:
                del self.readings[source_state.id, row.width, row.start, row.dims]
                key = (source_state.id, HOUR, floor(row.start, HOUR), row.dims)
                self.readings[key] = total(
                    self.readings.get(key, source_state.endpoint.zero), row.amounts
                )

    def mark_released(self, released: Iterable[StoredSeries]) -> None:
        self._refuse()

    def overflow_members(self) -> list[OverflowMember]:
        return list(self.folded)

    def high_water_marks(self) -> list[HighWaterMark]:
        return list(self.held)

    def add_overflow(
        self, members: Iterable[OverflowMember], marks: Iterable[HighWaterMark] = ()
    ) -> None:
        self._refuse()
        self.folded += members
        self.held += marks

    def names(self, organization: str) -> Names:
        return NO_NAMES

    def set_names(self, organization: str, names: Names) -> None: ...

    def note(self, key: str) -> str | None:
        return self.notes.get(key)

    def set_note(self, key: str, value: str) -> None:
        self._refuse()
        self.notes[key] = value

    def set_limits(self, organization: str, limits: Iterable[Limit]) -> None: ...

    def _refuse(self) -> None:
        if self.full:
            raise StateError("written the state file: the disk is full")
        self.commits += 1

    def counted(self, source_state: SourceState) -> dict[Dims, Amounts]:
        """The sum of all rows since the epoch."""
        sums: dict[Dims, Amounts] = {}
        for row in self._rows(source_state):
            if row.start >= source_state.progress.epoch:
                sums[row.dims] = total(sums.get(row.dims, source_state.endpoint.zero), row.amounts)
        return used(sums)


def used(sums: Mapping[Dims, Amounts]) -> dict[Dims, Amounts]:
    """Without attribute sets that used nothing."""
    return {dims: amounts for dims, amounts in sums.items() if any(amounts)}


def totals(source_state: SourceState) -> dict[Dims, Amounts]:
    """What the book says that OpenAI reports."""
    return used({dims: stored_series.total for dims, stored_series in source_state.series.items()})


def shown(source_state: SourceState) -> dict[Dims, Amounts]:
    """What the counters may show."""
    return {dims: stored_series.shown for dims, stored_series in source_state.series.items()}


def bucket(start: int, rows: Rows) -> Bucket:
    """A bucket of these rows. The order of the rows does not change its fingerprint."""
    in_order = sorted(rows.items(), key=repr)
    return Bucket(start, repr(in_order).encode(), rows)


def coarser(reading: Mapping[int, Rows], width: int) -> dict[int, dict[Dims, Amounts]]:
    """The same usage in wider buckets."""
    found: dict[int, dict[Dims, Amounts]] = {}
    for start, rows in reading.items():
        wide = found.setdefault(floor(start, width), {})
        for dims, amounts in rows.items():
            wide[dims] = total(wide[dims], amounts) if dims in wide else amounts
    return found


def read(
    shelf: UsageWriter,
    source_state: SourceState,
    width: Width,
    reading: Mapping[int, Rows],
    now: int,
    *,
    window: Window | None = None,
    coarse: bool = False,
    hours: Mapping[int, Rows] | None = None,
    fine_from: int = 0,
) -> recording.Recorded:
    """Absorb a reading as the poller does: where days disagree with their hours, `hours` are read
    in between.
    """
    step = Step(window or Window(min(reading), max(reading) + width), width, coarse)
    buckets = [bucket(start, rows) for start, rows in sorted(reading.items())]
    absorbed = recording.record_reading(
        shelf, source_state, step, buckets, now, fine_from=fine_from
    )
    if absorbed.refine:
        for day in absorbed.refine:
            inside = {start: rows for start, rows in (hours or {}).items() if start in day}
            recording.record_reading(
                shelf,
                source_state,
                Step(day, Width.HOUR, coarse=True),
                [bucket(*item) for item in sorted(inside.items())],
                now,
                fine_from=fine_from,
            )
        return recording.record_reading(
            shelf, source_state, step, buckets, now, fine_from=fine_from, refined=True
        )
    return absorbed
