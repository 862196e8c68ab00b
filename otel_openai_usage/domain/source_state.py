"""What is known of one source between two commits: the store's own content, kept in memory.

Written only by the pipeline, in its one thread, after a commit; read by nobody else.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Amounts, Dims, Width, Window, floor
from otel_openai_usage.domain.windows import Progress


@dataclass(slots=True, eq=False)
class StoredSeries:
    """One attribute set of a source: OpenAI's total since the epoch, and the highest that it ever
    was.

    `released` tells that it need not be shown as 0 first. `changed` is when it last moved; 0 if it
    has only rows from before the epoch, so that no counter speaks of it. For a level `total` and
    `shown` are the newest value, and `changed` is its bucket. `estimate` is what it costs by the
    price list, None while nothing of it has a price.
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


@dataclass(slots=True)
class Status:
    """How a source is doing. `up` is None until it was tried; times are Unix seconds."""

    organization: str
    source: str
    up: bool | None = None
    last_success: int | None = None
    newest_bucket: int | None = None


@dataclass(slots=True, eq=False)
class SourceState:
    """Everything kept of one source of one organization. Times are Unix seconds.

    Rows of buckets that began before `purged_before` were deleted because of their age. Their usage
    stays in the totals, so such buckets are never booked again.
    """

    id: int
    organization: str
    endpoint: Endpoint
    progress: Progress
    groupings: list[tuple[int, tuple[str, ...]]]
    series: dict[Dims, StoredSeries] = field(default_factory=dict)
    by_id: dict[int, StoredSeries] = field(default_factory=dict)
    days: dict[int, dict[Dims, Amounts]] = field(default_factory=dict)
    fingerprints: dict[tuple[int, int], bytes] = field(default_factory=dict)
    last_success: int | None = None
    newest_bucket: int | None = None
    organization_id: str | None = None
    kept_at: int = 0
    compacted: int = 0
    purged_before: int = 0
    up: bool | None = None

    @property
    def status(self) -> Status:
        """How this source is doing."""
        return Status(
            self.organization, self.endpoint.source, self.up, self.last_success, self.newest_bucket
        )

    def group_by(self, start: int) -> tuple[str, ...]:
        """The grouping that the buckets from `start` on are read with, for ever."""
        chosen = self.groupings[0][1]
        for since, grouping in self.groupings:
            if since <= start:
                chosen = grouping
        return chosen

    def regroup(self, wanted: tuple[str, ...], midnight: int) -> bool:
        """Let a changed grouping apply from `midnight` on, or at once if nothing was read yet. True
        if that changed the groupings.
        """
        before = list(self.groupings)
        if not self.series and not self.progress.complete:
            self.groupings = [(0, wanted)]
            return before != self.groupings
        self.groupings = [
            (since, grouping) for since, grouping in self.groupings if since < midnight
        ]
        if self.groupings[-1][1] != wanted:
            self.groupings.append((midnight, wanted))
        return before != self.groupings

    def known_fingerprints(self, window: Window, width: Width) -> dict[int, bytes]:
        """The fingerprints of the window's buckets whose rows are stored, by bucket start."""
        known = {}
        for start in range(window.start, window.end, width):
            fingerprint = self.fingerprints.get((width, start))
            if fingerprint is not None:
                known[start] = fingerprint
        return known

    def forget_fingerprints(self, start: int, end: int) -> None:
        """The rows of [start, end) are no longer what a reading left: decode the next one anew."""
        for key in [key for key in self.fingerprints if start <= key[1] < end]:
            del self.fingerprints[key]

    def leave_out(self, dimensions: Iterable[str], start: int, end: int) -> bool:
        """Let the buckets from `start` to `end` (UTC midnights) be read without some dimensions.
        True if that changed the groupings.
        """
        before = list(self.groupings)
        less = set(dimensions)
        edges = sorted({since for since, _ in before} | {start, end})
        after: list[tuple[int, tuple[str, ...]]] = []
        for edge in edges:
            grouping = self.group_by(edge)
            if start <= edge < end:
                grouping = tuple(name for name in grouping if name not in less)
            if not after or after[-1][1] != grouping:
                after.append((edge, grouping))
        self.groupings = after
        return after != before

    def next_midnight(self, now: int) -> int:
        """The first UTC midnight after `now` and after every bucket that may have been read.

        `now` alone does not do: the machine's clock may be days behind, and a bucket keeps the
        grouping that it was first read with.
        """
        read_until = max(self.progress.horizon or 0, self.newest_bucket or 0)
        return max(floor(now, Width.DAY) + Width.DAY, -(-read_until // Width.DAY) * Width.DAY)

    def add_series(self, stored_series: StoredSeries) -> None:
        """Add a series that the store has created."""
        self.series[stored_series.dims] = stored_series
        self.by_id[stored_series.id] = stored_series

    def update_series(self, after: StoredSeries) -> StoredSeries:
        """Copy what may change into the known series, and return it: its identity is kept."""
        known = self.series[after.dims]
        known.total = after.total
        known.shown = after.shown
        known.changed = after.changed
        known.estimate = after.estimate
        known.estimate_shown = after.estimate_shown
        return known

    @property
    def cuts(self) -> tuple[int, ...]:
        """The instants at which the grouping changes."""
        return tuple(since for since, _ in self.groupings[1:])
