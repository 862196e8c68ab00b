"""One exported series, and the stored series that it adds up."""

from dataclasses import dataclass, field
from decimal import Decimal

from otel_openai_usage.domain.model import Amount
from otel_openai_usage.domain.snapshot import Series
from otel_openai_usage.domain.source_state import StoredSeries

_NOTHING = Decimal(0)


@dataclass(slots=True, eq=False)
class AggregatedSeries:
    """One series, and the leaves (with the index of the measure) that it adds up."""

    instrument: str
    series: Series
    floating: bool
    members: list[tuple[StoredSeries, int]] = field(default_factory=list)
    position: int = -1
    held_since: float | None = None
    held_version: int = 0
    skipped: bool = False
    floor: Amount = 0
    from_zero: bool = False

    @property
    def changed(self) -> int:
        """When any of it last moved, Unix seconds."""
        return max((stored_series.changed for stored_series, _ in self.members), default=0)

    @property
    def released(self) -> bool:
        """Whether it need not be 0 (any more). One that was left out while it was 0 begins with 0,
        however old its leaf.
        """
        return not self.skipped and (
            self.floor > 0 or any(stored_series.released for stored_series, _ in self.members)
        )

    def kept(self) -> Amount:
        """The sum of what the members may show."""
        return sum(stored_series.shown[index] for stored_series, index in self.members)

    def shown(self) -> Amount:
        """That, and not less than what it showed before a member got another name."""
        return max(self.floor, self.kept())

    def pending(self) -> Amount:
        """How much of it OpenAI has taken back, or belongs to another series now."""
        return self.shown() - sum(
            stored_series.total[index] for stored_series, index in self.members
        )

    def follow(self, old: "AggregatedSeries") -> None:
        """Go on where the same series was before all were shaped anew."""
        self.held_since = old.held_since
        self.held_version = old.held_version
        self.skipped = old.skipped
        self.floor = old.shown() if old.released else 0

    def number(self, amount: Amount) -> int | float:
        """As the instrument shows it: money becomes a float here and nowhere earlier."""
        return float(amount) if self.floating else int(amount)


@dataclass(slots=True, eq=False)
class EstimatedSeries(AggregatedSeries):
    """The estimated cost of its members."""

    def kept(self) -> Amount:
        """The sum of what the members may show."""
        return sum(
            (stored_series.estimate_shown or _NOTHING for stored_series, _ in self.members),
            _NOTHING,
        )

    def pending(self) -> Amount:
        """How much of it was taken back."""
        return self.shown() - sum(
            (stored_series.estimate or _NOTHING for stored_series, _ in self.members), _NOTHING
        )
