"""What is known of one source between two commits: the store's content, kept in memory.

Each part has one writer. All of them run in the recorder's one thread:

* key          nobody: it never changes
* progress     `engine.polling`, and `commits.apply` after a commit
* groupings    `engine.polling`, after the store has them
* series       `commits.apply`, after a commit; `state accept` corrects totals
* counted_from `engine.polling`, after the store has it
* fingerprints `engine.recording`, after a commit; `engine.maintenance` discards some
* status       `engine.loop`, `engine.polling` and `engine.recording`, a field each
* days         `engine.usage_poll`
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.fingerprints import Fingerprints
from otel_openai_usage.domain.groupings import Groupings
from otel_openai_usage.domain.model import Amounts, Dims, Width, ceil, floor
from otel_openai_usage.domain.windows import Progress


@dataclass(slots=True, eq=False)
class StoredSeries:
    """One attribute set of a source. `total` is OpenAI's total since the epoch, and `shown` the
    highest total so far: a counter shows this, so it never falls.

    `released` says that the series was exported as 0, or need not be. `changed` is the time of the
    last change, in Unix seconds; it is 0 if all rows are from before the epoch, so that no counter
    shows the series. For a level `total` and `shown` are the newest value, and `changed` is the
    start of its bucket. `estimate` is the estimated cost, None while no part of it has a price.
    """

    id: int
    dims: Dims
    total: Amounts
    shown: Amounts
    released: bool
    first_seen: int
    changed: int
    estimate: Decimal | None = None
    estimate_shown: Decimal | None = None


class SeriesTable(dict[Dims, StoredSeries]):
    """The series of a source by attribute set, and in `by_id` by the store's id."""

    def __init__(self) -> None:
        super().__init__()
        self.by_id: dict[int, StoredSeries] = {}

    def add(self, stored_series: StoredSeries) -> None:
        """Add a series that the store has."""
        self[stored_series.dims] = stored_series
        self.by_id[stored_series.id] = stored_series

    def replace_values(self, after: StoredSeries) -> StoredSeries:
        """Copy the new values into the known series, to which the view refers. Return it."""
        known = self[after.dims]
        known.total = after.total
        known.shown = after.shown
        known.changed = after.changed
        known.estimate = after.estimate
        known.estimate_shown = after.estimate_shown
        return known


@dataclass(slots=True)
class Status:
    """How a source is doing. `up` is None until the first poll.

    `last_success` and `newest_bucket` (the end of the newest bucket with rows) are Unix seconds.
    """

    organization: str
    source: str
    up: bool | None = None
    last_success: int | None = None
    newest_bucket: int | None = None


@dataclass(frozen=True, slots=True)
class SourceKey:
    """Which source it is: an endpoint of an organization. `id` is the store's."""

    id: int
    organization: str
    endpoint: Endpoint


NEVER = 1 << 62
"""The time from which a measure counts if it has none yet."""


@dataclass(slots=True, eq=False)
class SourceState:
    """The state of one source. Times are Unix seconds.

    `counted_from` has the measures that an older version did not store, by their place: they count
    from this UTC midnight on, and are 0 in the rows before it.

    `days` has the costs of the last days, by the start of the day. `organization_id` is OpenAI's
    id of the organization, where an answer named it. `written_at` is when the progress was last
    written. Rows of buckets that began before `purged_before` were deleted because of their age;
    their usage stays in the totals, so such buckets are never recorded again.
    """

    key: SourceKey
    progress: Progress
    groupings: Groupings
    status: Status
    series: SeriesTable = field(default_factory=SeriesTable)
    fingerprints: Fingerprints = field(default_factory=Fingerprints)
    days: dict[int, dict[Dims, Amounts]] = field(default_factory=dict)
    organization_id: str | None = None
    written_at: int = 0
    purged_before: int = 0
    counted_from: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, key: SourceKey, progress: Progress, groupings: Groupings) -> "SourceState":
        """The state of a source that has no series yet."""
        return cls(key, progress, groupings, Status(key.organization, key.endpoint.source))

    @property
    def id(self) -> int:
        """The store's id of the source."""
        return self.key.id

    @property
    def organization(self) -> str:
        """The name that the configuration gives the organization."""
        return self.key.organization

    @property
    def endpoint(self) -> Endpoint:
        """The row of the endpoint that is read."""
        return self.key.endpoint

    def starts_at(self, place: int) -> int:
        """When a measure began to count."""
        return max(self.progress.epoch, self.counted_from.get(place, 0))

    def counted(self, start: int, amounts: Amounts) -> Amounts:
        """The amounts of a bucket without the measures that do not count yet."""
        return tuple(
            [
                0 if start < self.counted_from.get(place, 0) else amount
                for place, amount in enumerate(amounts)
            ]
        )


def next_unread_midnight(source_state: SourceState, now: int) -> int:
    """The first UTC midnight after `now` and after every bucket that may have been read.

    Another grouping and new measures apply from then on. `now` alone is not enough: the machine's
    clock may be days behind, and a bucket keeps what it was first read with.
    """
    horizon = source_state.progress.horizon or 0
    newest = source_state.status.newest_bucket or 0
    read_until = max(horizon, newest)
    return max(floor(now, Width.DAY) + Width.DAY, ceil(read_until, Width.DAY))
