"""The protocols where rooms meet."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from otel_openai_usage.domain.commits import Commit, Created
from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.groupings import Groupings
from otel_openai_usage.domain.metered import Event, EventCommit
from otel_openai_usage.domain.model import Dims, Limit, Names, Width, Window
from otel_openai_usage.domain.readings import Reading
from otel_openai_usage.domain.reconciliation import PendingDecrease, Row
from otel_openai_usage.domain.series_marks import HighWaterMark, OverflowMember
from otel_openai_usage.domain.source_state import SourceState, StoredSeries


class Source(Protocol):
    """A usage endpoint (or costs) of one organization."""

    @property
    def endpoint(self) -> Endpoint: ...

    async def read(
        self,
        window: Window,
        width: Width,
        group_by: Sequence[str],
        known_fingerprints: Mapping[int, bytes],
    ) -> Reading:
        """Read the whole window, or raise SourceError.

        `known_fingerprints` has fingerprints by bucket start: such a bucket is left out of the
        reading if it still has that fingerprint. A window is at most as many buckets as OpenAI
        answers in one call.
        """
        ...


class NameSource(Protocol):
    """Names of projects, API keys and users of one organization."""

    async def read(self, found: Callable[[Names], Awaitable[None]]) -> Names:
        """All names that can be listed. Raises SourceError (MissingScope when the key may not).
        `found` is told of each part as it comes.
        """
        ...

    async def lookup(
        self,
        projects: Sequence[str],
        api_keys: Sequence[tuple[str, str]],
        found: Callable[[Names], Awaitable[None]],
    ) -> Names:
        """Names of single ids: projects, and (project_id, api_key_id) pairs; None for what does not
        exist. `found` is told of each as it comes.
        """
        ...


class LimitSource(Protocol):
    """Spend limits of one organization."""

    async def read(self) -> list[Limit]:
        """The organization's limit and those of its projects, where there are any. Raises
        SourceError.
        """
        ...


class Store(Protocol):
    """What survives. Every method raises StateError."""

    def source_state(
        self, organization: str, endpoint: Endpoint, epoch: int, group_by: tuple[str, ...]
    ) -> SourceState:
        """The book of a source; a new one begins counting at `epoch`."""
        ...

    def regroup(self, source_state: SourceState, groupings: Groupings) -> None:
        """Write other groupings of a source."""
        ...

    def rows(self, source_state: SourceState, width: int, starts: Sequence[int]) -> list[Row]:
        """What is stored of these buckets, at this width alone."""
        ...

    def rows_within(
        self, source_state: SourceState, widths: Iterable[int], start: int, end: int
    ) -> list[Row]:
        """What is stored at these widths of buckets that begin in [start, end)."""
        ...

    def pending_decreases(
        self, source_state: SourceState, width: int, start: int, end: int
    ) -> dict[tuple[int, int, Dims], PendingDecrease]:
        """Lower readings of buckets that begin in [start, end) and wait for confirmation."""
        ...

    def commit(self, source_state: SourceState, commit: Commit) -> Created:
        """Write all of it in one transaction, or nothing. Return the ids of the created series.

        Neither argument is changed.
        """
        ...

    def release(self, stored_series_list: Iterable[StoredSeries]) -> None:
        """These have been shown as 0; from now on they are shown as they are."""
        ...

    def folds(self) -> list[OverflowMember]:
        """What was folded, in all time."""
        ...

    def fold(self, folds: Iterable[OverflowMember], floors: Iterable[HighWaterMark] = ()) -> None:
        """Remember what is folded, and what must not fall."""
        ...

    def floors(self) -> list[HighWaterMark]:
        """What must not fall, in all time."""
        ...

    def names(self, organization: str) -> Names:
        """The names known at the last stop."""
        ...

    def keep_names(self, organization: str, names: Names) -> None:
        """Keep the names that are known."""
        ...

    def note(self, key: str) -> str | None:
        """A small fact that was kept under that key."""
        ...

    def take_note(self, key: str, value: str) -> None:
        """Keep a small fact."""
        ...

    def keep_limits(self, organization: str, limits: Iterable[Limit]) -> None:
        """Keep the spend limits, in place of those of last time."""
        ...


class EventStore(Protocol):
    """What survives of metered events. Every method raises StateError."""

    def known_events(self, identities: Sequence[bytes], since: int) -> dict[bytes, bytes]:
        """The content of those of these events that were seen since then, by identity."""
        ...

    def record_events(
        self, events: Sequence[Event], commits: Sequence[EventCommit], now: int
    ) -> list[Created]:
        """Write the identities and what they add in one transaction, or nothing.

        Return the ids of the created series, for each of `commits`.
        """
        ...
