"""The two ports of the storage: `Writer` and `Queries`.

The engine and the ingest write through a `Writer`. The dashboard, the reports, `verify` and `check`
read through `Queries`, also while another process writes. Nothing above this package knows which
database is behind them. Only `composition/stores.py` and the commands `state …` do.

To add a store, create one folder beside `sqlite/` with both ports and its `Backend`, and add one
line to `composition/stores.py`. A store must do this:

* Commit a transaction completely or not at all. A commit that returned survives a power cut.
* Store money exactly, with all its decimal digits. Counts need 64 bits.
* Create the tables by frozen migrations, then add the columns that today's endpoints need (a
  measure may have any name, so quote identifiers).
* Refuse a second writer with StateInUse, and a state of a newer version with StateTooNew.
* Let `Queries` read one consistent state while the writer commits.
* Know how far it is, so that a restored backup or a lost write is reported as a loss at the next
  start. A store that cannot lose writes has no losses.

Every method raises StateError, whose message says what was done, what happened and what to do.
Times are Unix seconds.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol, TypeAlias

from otel_openai_usage.domain.budgets import CostLine
from otel_openai_usage.domain.commits import Commit, Created
from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.groupings import Groupings
from otel_openai_usage.domain.identity import Identity, Owner
from otel_openai_usage.domain.metered import AddedUsage, Event, EventCommit, Queued, Share
from otel_openai_usage.domain.model import Amounts, Dims, Limit, Names, Width, Window
from otel_openai_usage.domain.month_costs import DayCosts
from otel_openai_usage.domain.ownership import Claim
from otel_openai_usage.domain.reconciliation import PendingDecrease, Row
from otel_openai_usage.domain.retention import Maintained, Retention
from otel_openai_usage.domain.series_marks import HighWaterMark, OverflowMember
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.domain.unusual import HourlyCost
from otel_openai_usage.storage.results import (
    CostRow,
    Look,
    MeteredTokens,
    Opening,
    Record,
    StoredLoss,
    StoredSource,
    UsageRow,
)

ToUsage: TypeAlias = Callable[[Sequence[Event]], Mapping[str, AddedUsage]]
"""What events add, by organization."""


class UsageWriter(Protocol):
    """The sources: how far each was read, its rows and totals."""

    def source_state(
        self, organization: str, endpoint: Endpoint, epoch: int, group_by: tuple[str, ...]
    ) -> SourceState:
        """The state of a source with all its series. A new source begins counting at `epoch`."""
        ...

    def save_counted_from(self, source_state: SourceState, counted: Mapping[int, int]) -> None:
        """Store from when the measures of a source count, by place; see `SourceState`."""
        ...

    def save_groupings(self, source_state: SourceState, groupings: Groupings) -> None:
        """Replace the stored groupings of a source. `source_state` is not changed."""
        ...

    def rows(self, source_state: SourceState, width: int, starts: Sequence[int]) -> list[Row]:
        """The rows of one width whose bucket begins at one of `starts`."""
        ...

    def rows_within(
        self, source_state: SourceState, widths: Iterable[int], start: int, end: int
    ) -> list[Row]:
        """The rows of these widths whose bucket begins in [start, end)."""
        ...

    def pending_decreases(
        self, source_state: SourceState, width: int, start: int, end: int
    ) -> dict[tuple[int, int, Dims], PendingDecrease]:
        """The unconfirmed lower readings of buckets that begin in [start, end)."""
        ...

    def commit(self, source_state: SourceState, commit: Commit) -> Created:
        """Store all of a commit or nothing. Returns the ids of the created series.

        Neither argument is changed.
        """
        ...

    def mark_released(self, released: Iterable[StoredSeries]) -> None:
        """These series were exported as 0 first; from now on their totals are exported."""
        ...


class HistoryWriter(Protocol):
    """What happens to old rows."""

    def backfilled(self, source_state: SourceState) -> list[Window]:
        """The windows before counting began that a backfill read."""
        ...

    def mark_backfilled(self, source_state: SourceState, window: Window) -> None:
        """A backfill read this window."""
        ...

    def apply_retention(self, source_state: SourceState, keep: Retention) -> Maintained | None:
        """Downsample or purge one day. None if nothing is that old."""
        ...

    def estimated_and_billed(
        self, organization: str, start: int, end: int
    ) -> Mapping[int, tuple[Decimal, Decimal]]:
        """Estimated and billed cost in US dollars of the UTC days in [start, end) with both."""
        ...

    def day_costs(self, organization: str, start: int, end: int, estimated_from: int) -> DayCosts:
        """Billed costs of the UTC days in [start, end), and estimated ones of those from
        `estimated_from` on, by project.
        """
        ...

    def hourly_costs(self, organization: str, start: int, end: int) -> list[HourlyCost]:
        """Estimated costs of the hours in [start, end), as far as they are kept."""
        ...

    def cost_lines(
        self, organization: str, start: int, end: int, estimated_from: int, by: Sequence[str]
    ) -> tuple[list[CostLine], list[CostLine]]:
        """Billed costs of the UTC days in [start, end), and estimated ones from `estimated_from`
        on, in US dollars, by the attributes in `by` that each has (`LINE_ATTRIBUTES`).
        """
        ...


class OverflowWriter(Protocol):
    """Series beyond the limit of an instrument, which are exported as one."""

    def overflow_members(self) -> list[OverflowMember]:
        """The series that were ever part of an overflow series."""
        ...

    def high_water_marks(self) -> list[HighWaterMark]:
        """The highest exported values below which no series may fall."""
        ...

    def add_overflow(
        self, members: Iterable[OverflowMember], marks: Iterable[HighWaterMark] = ()
    ) -> None:
        """Store members of overflow series, and high-water marks."""
        ...


class EventWriter(Protocol):
    """Metered events."""

    def event_attributes(self) -> list[str]:
        """The attributes of recorded events beyond those of every event."""
        ...

    def known_events(self, identities: Sequence[bytes], since: int) -> dict[bytes, bytes]:
        """The content of those of these events that were recorded since `since`, by identity."""
        ...

    def record_events(
        self, new_events: Sequence[Event], commits: Sequence[EventCommit], now: int
    ) -> list[Created]:
        """Store the identities of events and what they add, all of it or nothing.

        Returns the ids of the created series, for each of `commits`.
        """
        ...

    def purge_events(self, slice_number: int, before: int) -> int:
        """Delete the event identities of one of 256 slices that were seen before `before`.

        Returns their number.
        """
        ...

    def shares(self, day: int) -> list[Share]:
        """The tokens used on a UTC day, and those that events explain, by model."""
        ...


class OrganizationWriter(Protocol):
    """What is known of an organization: names, spend limits, whose data it is."""

    def names(self, organization: str) -> Names:
        """The stored names of projects, API keys and users."""
        ...

    def set_names(self, organization: str, known: Names) -> None:
        """Replace the stored names."""
        ...

    def set_limits(self, organization: str, limits: Iterable[Limit]) -> None:
        """Replace the stored spend limits."""
        ...

    def owner(self, organization: str) -> Owner:
        """The OpenAI organization whose data is stored under this name."""
        ...

    def set_owner(self, organization: str, seen: Identity, marks: tuple[str, ...]) -> None:
        """Store what answers say of the organization, and the fingerprints of its keys."""
        ...


class Notes(Protocol):
    """Small facts by key that survive a restart and have no table."""

    def note(self, key: str) -> str | None:
        """The value of a note, None if there is none."""
        ...

    def set_note(self, key: str, value: str) -> None:
        """Set a note."""
        ...

    def hash_key(self) -> bytes:
        """The key of `attributes.hash`, made if there is none."""
        ...

    def forget(self, is_meant: Callable[[str], bool]) -> int:
        """Move all that is stored of customers to `(forgotten)`. How many there were.

        `is_meant` says of each customer whether it is one of them. Every sum stays what it is.
        """
        ...


class SharedState(Protocol):
    """What a store has that several replicas may write at the same time.

    `beat`, `claim`, `release` and `leave` may be called in any thread.
    """

    @property
    def seconds(self) -> float:
        """How long a replica may be silent before another takes over."""
        ...

    @property
    def lost_commits(self) -> int:
        """How many commits of this replica the database lost."""
        ...

    def beat(self) -> Look:
        """Say that this replica lives, and read all rows."""
        ...

    def claim(self, claim: Claim) -> int | None:
        """Take a lease. Its new token, None if it is not as it was seen."""
        ...

    def release(self, scope: str, token: int) -> None:
        """Give a lease away."""
        ...

    def leave(self) -> None:
        """Give all leases away, so that others need not wait."""
        ...

    def sources_of(self, organization: str) -> Sequence[SourceState]:
        """The sources of an organization that another replica owns, without their series."""
        ...

    def hold(self, tokens: Mapping[str, int]) -> None:
        """From now on transactions check these tokens, by scope, and no others."""
        ...

    def queue_events(
        self, events: Sequence[Event], endpoint: Endpoint, since: int, now: int, to_usage: ToUsage
    ) -> Queued:
        """Store events that were not seen since `since`, in the hours in which they count."""
        ...

    def waiting_organizations(self) -> Collection[str]:
        """The organizations with events that are not counted yet."""
        ...

    def count_queued(
        self, source_state: SourceState, decide: Callable[[AddedUsage], EventCommit]
    ) -> tuple[EventCommit, Created] | None:
        """Count stored events of the source's organization. None if there are none."""
        ...


class Writer(
    UsageWriter, HistoryWriter, OverflowWriter, EventWriter, OrganizationWriter, Notes, Protocol
):
    """The one writer of a store. Used from one thread, except `checkpoint`.

    The parts are for functions that need only one of them.
    """

    @property
    def path(self) -> str:
        """The location of the store, for log lines."""
        ...

    @property
    def instance_id(self) -> str:
        """The store's own id, which never changes."""
        ...

    @property
    def opening(self) -> Opening:
        """What the store was when it was opened."""
        ...

    @property
    def shared(self) -> SharedState | None:
        """What several replicas need, None if one process has the store for itself."""
        ...

    @property
    def losses(self) -> Sequence[StoredLoss]:
        """The losses that nobody accepted."""
        ...

    @property
    def lost_seconds(self) -> int:
        """How much time is missing or in doubt because of unaccepted losses."""
        ...

    @property
    def needs_reread(self) -> bool:
        """Whether the time of a loss must still be marked as unread."""
        ...

    def set_reread(self) -> None:
        """The time of every loss was marked as unread."""
        ...

    @property
    def acceptance_requested(self) -> bool:
        """Whether `state accept` asked this process to accept the losses."""
        ...

    def accept(self) -> tuple[list[StoredLoss], Mapping[int, tuple[Amounts, Amounts]]]:
        """Accept every reported loss. Totals that are not the sum of their rows are set to it.

        Returns the accepted losses, and total and shown of the changed series by id.
        """
        ...

    @property
    def is_up(self) -> bool:
        """Whether the store could be reached at the last attempt. May be called in any thread."""
        ...

    def why_unwritable(self) -> str | None:
        """Why nothing can be stored now, in a sentence; None if writing works."""
        ...

    def size(self) -> int:
        """Bytes of the store on disk."""
        ...

    def checkpoint(self) -> None:
        """Long maintenance that does not stop the writer. May be called in any thread."""
        ...

    def sync(self) -> None:
        """Short maintenance after `checkpoint`, in the writer's thread."""
        ...

    def fill(self, source: Any, progress: Callable[[int], None], *, replace: bool = False) -> None:
        """Copy a whole state into this store, completely or not at all.

        `source` is what `Queries.whole` of any store gave; `progress` is called with the number of
        copied rows. A store that has data is refused, unless `replace` is true. Close the store
        afterwards.
        """
        ...

    def close(self) -> None:
        """Close the store."""
        ...

    def abandon(self) -> None:
        """Close the store as a killed process does: nothing more is written."""
        ...


class Queries(Protocol):
    """Reads a store while another process may be writing it."""

    def version(self) -> int:
        """A number that changes whenever the store was written."""
        ...

    def whole(self) -> AbstractContextManager[Any]:
        """The whole content as it is now, for `Writer.fill`."""
        ...

    @property
    def instance_id(self) -> str:
        """The store's own id."""
        ...

    def sources(self) -> list[StoredSource]:
        """Every source, in the order of creation."""
        ...

    def span(self, organization: str | None = None) -> tuple[int, int] | None:
        """The starts of the first and the last row, of one organization or of all."""
        ...

    def names(self, organization: str) -> Names:
        """The stored names of projects, API keys and users."""
        ...

    def limits(self, organization: str) -> list[Limit]:
        """The spend limits that OpenAI reported last."""
        ...

    def quantity_units(self) -> dict[tuple[str, str], set[str]]:
        """The units in which OpenAI counts line items, by organization and line item."""
        ...

    def owner(self, organization: str) -> Owner:
        """The OpenAI organization whose data is stored under this name."""
        ...

    def hash_key(self) -> bytes:
        """The key of `attributes.hash`. Raises StateError if no exporter made one yet."""
        ...

    # --- exact sums of usage and costs, for reports

    def usage(
        self,
        start: int,
        end: int,
        *,
        by: Sequence[str] = (),
        record: Record = "usage",
        widths: Collection[int] = tuple(Width),
    ) -> list[UsageRow]:
        """The usage in [start, end): one row for each UTC day and group, ordered by time.

        `by` is a subset of `USAGE_DIMENSIONS`. [start, end) may be less than a day, but the
        estimate is always that of the whole day. Only rows of these bucket widths are added up:
        a row of a day belongs to none of its hours.
        """
        ...

    def costs(self, start: int, end: int, *, by: Sequence[str] = ()) -> list[CostRow]:
        """The costs that OpenAI billed for the UTC days in [start, end), ordered by time.

        There is one row for each day, group and currency. `by` is a subset of `COST_DIMENSIONS`.
        """
        ...

    def metered_tokens(self, organization: str, day: int) -> Iterator[MeteredTokens]:
        """Yield the metered tokens of the UTC day that begins at `day`, by attribute set, the
        largest first.
        """
        ...

    def cost_lines(
        self, organization: str, start: int, end: int, estimated_from: int, by: Sequence[str]
    ) -> tuple[list[CostLine], list[CostLine]]:
        """Billed costs of the UTC days in [start, end), and estimated ones from `estimated_from`
        on, by attributes; for budgets.
        """
        ...

    # --- whole days as plain numbers, for the dashboard

    def attribute_sets(self, source: StoredSource) -> Mapping[int, Mapping[str, str | None]]:
        """The attribute sets of a source by id."""
        ...

    def daily_sums(self, source: StoredSource, since: int) -> Iterable[Sequence[float]]:
        """Yield (attribute set, day, the endpoint's measures) from the day `since` on.

        A day may come in several parts, which the caller adds up. Money is float.
        """
        ...

    def daily_estimates(self, source: StoredSource, since: int) -> Iterable[Sequence[float]]:
        """Yield (attribute set, day, estimated cost) from the day `since` on, where priced."""
        ...

    # --- exact rows of the polled sources, for `verify` and the backfill

    def source_states(self, organization: str) -> list[SourceState]:
        """The state of each polled source of an organization."""
        ...

    def rows(self, source_state: SourceState, start: int, end: int) -> list[Row]:
        """The rows of every width whose bucket begins in [start, end)."""
        ...

    def sums_by_dims(self, source_state: SourceState, start: int, end: int) -> dict[Dims, Amounts]:
        """The sum of the rows in [start, end) by attribute set, without those that are zero."""
        ...

    def estimates(
        self, source_state: SourceState, start: int, end: int
    ) -> Iterator[tuple[Dims, int, Decimal]]:
        """Yield attribute set, day and estimated cost of the UTC days in [start, end)."""
        ...

    def backfilled(self, source_state: SourceState) -> list[Window]:
        """The windows before counting began that a backfill read."""
        ...

    def totals_disagreeing(self) -> str | None:
        """A sentence about totals that are not the sum of their rows, None if all are."""
        ...


OpenQueries: TypeAlias = Callable[[], AbstractContextManager[Queries]]
"""Opens the store for reading."""


class OpenWriter(Protocol):
    """Opens a store for writing. Raises StateError, also if another process writes it.

    `now` returns Unix seconds. With `strict` a store with losses is refused.
    """

    def __call__(
        self, location: Any, /, *, now: Callable[[], float] = ..., strict: bool = False
    ) -> Writer: ...


class StoreInfo(Protocol):
    """A store as the command `check` sees it."""

    @property
    def doubts(self) -> list[str]:
        """What is wrong, in sentences."""
        ...

    @property
    def counting_since(self) -> int | None:
        """When counting began, None if it did not."""
        ...

    @property
    def running(self) -> bool:
        """Whether an exporter has the store open."""
        ...

    @property
    def lines(self) -> list[tuple[str, str]]:
        """What `state info` prints: pairs of heading and text."""
        ...


@dataclass(frozen=True, slots=True)
class Backend:
    """The functions that open or describe a store, one constant for each kind of store.

    Their argument is the kind's own location: a path, or a DatabaseLocation. `inspect` says in a
    sentence what is there, and raises StateError if `run` could not use it. `describe` raises
    StateError if there is no store. `open_shared` opens the store for several replicas, if the kind
    can be shared; else as `open_writer`. `warnings` says what is allowed but not safe,
    `is_empty` whether there is no store yet.
    """

    open_writer: OpenWriter
    open_shared: OpenWriter
    open_queries: Callable[[Any], AbstractContextManager[Queries]]
    inspect: Callable[[Any], str]
    describe: Callable[[Any], StoreInfo]
    warnings: Callable[[Any], list[str]]
    is_empty: Callable[[Any], bool]
