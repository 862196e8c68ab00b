"""A series, what it adds up, and what it is called."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain

from otel_openai_usage.domain.model import Amount, Names
from otel_openai_usage.domain.series_marks import Attributes, Key
from otel_openai_usage.domain.snapshot import Series
from otel_openai_usage.domain.source_state import SourceState, StoredSeries

"""What tells series of an instrument apart: names and values of their attributes, in turn. Flat,
for there are many.
"""

UNKNOWN = "unknown"
OVERFLOW = "otel.metric.overflow"
_NAMES = (("project_id", "project_name"), ("api_key_id", "api_key_name"))
_KEPT_IN_OVERFLOW = ("organization", "operation", "token_type", "currency")
_NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class AttributePolicy:
    """How series look. `max_series` per instrument, times in seconds.

    `name_wait` is how long a new series waits for its name. A series is forgotten when nothing that
    it adds up has moved for `forget`, or for `make_room` where its instrument is full; it returns
    with its kept total.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()
    skip_zero: bool = False
    zero_hold: float = 60
    max_series: int = 100_000
    name_wait: float = 30
    forget: float = float("inf")
    make_room: float = float("inf")

    @property
    def names_alone(self) -> bool:
        """Whether a name is shown without its id, so that series of one name are one, and a new
        name takes something of it away.
        """
        return any(id_ in self.drop and name not in self.drop for id_, name in _NAMES)

    def attributes(self, raw: Attributes) -> Attributes:
        """Renamed, and without what is dropped."""
        return {
            self.rename.get(key, key): value for key, value in raw.items() if key not in self.drop
        }

    def overflow(self, raw: Attributes) -> Attributes:
        """The attributes of the series that later ones fold into."""
        return {
            **self.attributes({key: raw[key] for key in _KEPT_IN_OVERFLOW if key in raw}),
            OVERFLOW: True,
        }


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


def dimensions(source_state: SourceState, stored_series: StoredSeries) -> dict[str, str]:
    """The leaf's dimensions by name, without nulls."""
    return {
        name: value
        for name, value in zip(source_state.endpoint.dimensions, stored_series.dims, strict=True)
        if value is not None
    }


def named(attributes: Attributes, names: Names) -> Attributes:
    """With project_name and api_key_name; `unknown` where an id has no name."""
    for (id_key, name_key), known in zip(_NAMES, (names.projects, names.api_keys), strict=True):
        if id_key in attributes:
            attributes[name_key] = known.get(str(attributes[id_key])) or UNKNOWN
    return attributes


def unnamed(dims: Mapping[str, str], names: Names) -> bool:
    """Whether an id of the attribute set has no name yet, and is not known to have none."""
    project = dims.get("project_id")
    key = dims.get("api_key_id")
    return (project is not None and project not in names.projects) or (
        key is not None and key not in names.api_keys
    )


def flat(attributes: Attributes) -> Key:
    """The key of these attributes."""
    return tuple(chain.from_iterable(sorted(attributes.items())))
