"""One exported series, the stored series that it adds up, and where a stored series is placed."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

from otel_openai_usage.domain.gen_ai import PlacedPart
from otel_openai_usage.domain.model import Amount
from otel_openai_usage.domain.series_marks import Key
from otel_openai_usage.domain.snapshot import Series
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.view.series_life import (
    PlacementState,
    SeriesState,
    check_placement,
    check_series,
)

_NOTHING = Decimal(0)
_NO_PART = PlacedPart("", "", (), ())


@dataclass(slots=True, eq=False)
class AggregatedSeries:
    """One series of an instrument. It adds up one measure of each member.

    * `members`: stored series, each with the index of its measure.
    * `position`: where its point is in the instrument's list; -1 if it has none.
    * `zero_since`, `zero_version`: the monotonic time and the snapshot in which it was first 0.
    * `begins_at_zero`: it must be 0 first although a member may show its value. It was omitted
      while it was 0, or its first price came later than its usage.
    * `high_water_mark`: it never shows less, whatever its members add up to.
    * `from_zero`: it is 0 first also before a page was served.
    * `is_late`: its measure counts later than its source, because an older version did not store
      it. It is omitted until it is above 0: before it begins, it has no value.
    """

    instrument: str
    series: Series
    floating: bool
    from_zero: bool = False
    high_water_mark: Amount = 0
    state: SeriesState = SeriesState.UNPUBLISHED
    members: list[tuple[StoredSeries, int]] = field(default_factory=list)
    position: int = -1
    zero_since: float | None = None
    zero_version: int = 0
    begins_at_zero: bool = False
    is_late: bool = False

    def move_to(self, state: SeriesState) -> None:
        """Change the state. Raises ValueError if the table of series_life does not have it."""
        check_series(self.state, state)
        self.state = state

    @property
    def has_point(self) -> bool:
        """Whether the instrument's list of points has it."""
        return self.position >= 0

    @property
    def changed(self) -> int:
        """When a member last changed, in Unix seconds."""
        return max((stored_series.changed for stored_series, _ in self.members), default=0)

    @property
    def may_show_value(self) -> bool:
        """Whether it need not be 0 first."""
        if self.begins_at_zero:
            return False
        if self.high_water_mark > 0:
            return True
        return any(stored_series.released for stored_series, _ in self.members)

    @property
    def may_become_dormant(self) -> bool:
        """Whether it would return with no less than it shows now."""
        if self.state not in (SeriesState.UNPUBLISHED, SeriesState.SHOWN):
            return False
        if self.begins_at_zero or self.high_water_mark > self.member_sum():
            return False
        # After a rename, a series that is 0 first is unpublished again.
        is_zero_first = self.zero_since is not None and not self.may_show_value
        return not is_zero_first

    def member_sum(self) -> Amount:
        """Return what the members add up to. Never falls while the members stay the same."""
        return sum(stored_series.shown[index] for stored_series, index in self.members)

    def reported_sum(self) -> Amount:
        """Return what OpenAI reports for the members now. Can fall."""
        return sum(stored_series.total[index] for stored_series, index in self.members)

    def value(self) -> Amount:
        """Return the value to show after the zero."""
        return max(self.high_water_mark, self.member_sum())

    def continue_from(self, old: "AggregatedSeries") -> None:
        """Take over what the series with the same attributes had before an index was rebuilt."""
        self.zero_since = old.zero_since
        self.zero_version = old.zero_version
        self.begins_at_zero = old.begins_at_zero
        self.high_water_mark = old.value() if old.may_show_value else 0

    def published(self, value: Amount) -> None:
        """Note that a snapshot will have this value."""

    def number(self, amount: Amount) -> int | float:
        """Return the amount as the instrument exports it. Only here money becomes a float."""
        return float(amount) if self.floating else int(amount)


@dataclass(slots=True, eq=False)
class EstimatedSeries(AggregatedSeries):
    """The estimated cost of its members. The index of the measure means nothing here."""

    def member_sum(self) -> Amount:
        """Return what the members add up to. Never falls while the members stay the same."""
        estimates = (stored_series.estimate_shown for stored_series, _ in self.members)
        return sum((estimate or _NOTHING for estimate in estimates), _NOTHING)

    def reported_sum(self) -> Amount:
        """Return the price of what OpenAI reports for the members now. Can fall."""
        estimates = (stored_series.estimate for stored_series, _ in self.members)
        return sum((estimate or _NOTHING for estimate in estimates), _NOTHING)


@dataclass(slots=True, eq=False)
class GenAiSeries(AggregatedSeries):
    """One part of its members' tokens, by the names of the GenAI conventions.

    The part of unknown modality is what remains, so it falls where OpenAI tells a modality later.
    Then it stays at what was published, and `has_fallen` says that the store must know.
    """

    part: PlacedPart = _NO_PART
    highest: Amount = 0

    def member_sum(self) -> Amount:
        """Return what the members add up to. Can fall if the part is what remains."""
        of = self.part.of
        return sum(of(stored_series.shown) for stored_series, _ in self.members)

    def reported_sum(self) -> Amount:
        """Return what OpenAI reports for the members now. Can fall."""
        of = self.part.of
        return sum(of(stored_series.total) for stored_series, _ in self.members)

    def value(self) -> Amount:
        """Return the value to show after the zero."""
        return max(self.high_water_mark, self.highest, self.member_sum())

    def published(self, value: Amount) -> None:
        """Note that a snapshot will have this value."""
        self.highest = value

    @property
    def has_fallen(self) -> bool:
        """Whether the members add up to less than was published, and no mark says so."""
        return self.highest > max(self.high_water_mark, self.member_sum())


@dataclass(slots=True, eq=False)
class Placement:
    """The state of a stored series in the index, and the series that it is a member of now."""

    state: PlacementState = PlacementState.ABSENT
    series: tuple[AggregatedSeries, ...] = ()

    def move_to(self, state: PlacementState) -> None:
        """Change the state. Raises ValueError if the table of series_life does not have it."""
        check_placement(self.state, state)
        self.state = state

    @property
    def has_estimate(self) -> bool:
        """Whether one of the series is its estimated cost."""
        return any(isinstance(series, EstimatedSeries) for series in self.series)


Places: TypeAlias = dict[tuple[str, Key], AggregatedSeries]
"""Series by instrument and key."""


@dataclass(frozen=True, slots=True)
class Joining:
    """A stored series that joins its series, at the time `now`."""

    source_state: SourceState
    stored_series: StoredSeries
    placement: Placement
    now: float


def continue_all(old: Places, new: Places) -> Places:
    """Let series go on as they were before their index was built again. Return the new ones."""
    for place in old.keys() & new.keys():
        new[place].continue_from(old[place])
    return new
