"""Stored usage and costs from before counting began, as the series that the exporter would have
shown: for each series, what each bucket added.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

from otel_openai_usage.domain.instruments import INSTRUMENTS, Instrument
from otel_openai_usage.domain.model import Amount, Dims, Names, Width, floor
from otel_openai_usage.domain.pricing import add, dimensions_by_name
from otel_openai_usage.domain.series_marks import Attributes
from otel_openai_usage.domain.snapshot import AttributeValue
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.storage.ports import OpenQueries, Queries
from otel_openai_usage.view.attributes import AttributePolicy, estimate_attributes, named

Part: TypeAlias = tuple[int, int, Amount]
"""Start, end and amount of a stretch of time."""


@dataclass(slots=True)
class PastSeries:
    """One series, until `end`. `buckets` has the amount of each bucket, by start and width."""

    instrument: Instrument
    attributes: Mapping[str, AttributeValue]
    end: int
    buckets: dict[tuple[int, int], Amount] = field(default_factory=dict)

    def add(self, start: int, width: int, amount: Amount) -> None:
        """Add a bucket of one of the attribute sets that this series sums."""
        before = self.buckets.get((start, width), 0)
        self.buckets[start, width] = plus(before, amount)

    def parts(self) -> Iterator[Part]:
        """The parts from the first day with a bucket until the end, without a gap.

        A day that is stored in hours or minutes has hourly parts, any other day is one part. A
        counter never falls: after a credit it adds nothing until its earlier top is reached again.
        """
        if self._is_gauge:
            yield from self._stretches()
            return
        total: Amount = 0
        top: Amount = 0
        for start, end, amount in self._stretches():
            total = plus(total, amount)
            yield start, end, max(total - top, 0)
            top = max(total, top)

    @property
    def _is_gauge(self) -> bool:
        return self.instrument.kind == "gauge"

    def _stretches(self) -> Iterator[Part]:
        """The parts before a counter is held at its top."""
        fine_days = {floor(start, Width.DAY) for start, width in self.buckets if width < Width.DAY}
        amounts = self._amounts_by_stretch(fine_days)
        first_day = floor(min(amounts), Width.DAY)
        for day in range(first_day, self.end, Width.DAY):
            width = Width.HOUR if day in fine_days else Width.DAY
            day_end = min(day + Width.DAY, self.end)
            for start in range(day, day_end, width):
                # A gauge has no value where nothing was reported; a counter added 0.
                if start in amounts or not self._is_gauge:
                    yield start, min(start + width, self.end), amounts.get(start, 0)

    def _amounts_by_stretch(self, fine_days: set[int]) -> dict[int, Amount]:
        """The sum of the buckets of each hour or day; for a gauge, its last value."""
        amounts: dict[int, Amount] = {}
        for (bucket_start, _), amount in sorted(self.buckets.items()):
            is_fine = floor(bucket_start, Width.DAY) in fine_days
            start = floor(bucket_start, Width.HOUR if is_fine else Width.DAY)
            if self._is_gauge:
                amounts[start] = amount
            else:
                amounts[start] = plus(amounts.get(start, 0), amount)
        return amounts


def plus(one: Amount, other: Amount) -> Amount:
    """The exact sum."""
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    return add(Decimal(one), Decimal(other))


def series(
    open_queries: OpenQueries, organization: str, start: int, end: int, policy: AttributePolicy
) -> Iterator[PastSeries]:
    """Every series of what is stored of [start, end) before counting began, instrument by
    instrument. Raises StateError.
    """
    with open_queries() as queries:
        collector = _Collector(policy, queries.names(organization))
        for source_state in queries.source_states(organization):
            counting_begins = source_state.progress.epoch
            collector.collect(queries, source_state, start, min(end, counting_begins))
    # The formats write one instrument after the other.
    for name in INSTRUMENTS:
        yield from collector.of_instrument(name)


class _Collector:
    """Collects the series of one organization."""

    def __init__(self, policy: AttributePolicy, names: Names) -> None:
        self._policy = policy
        self._names = names
        self._series: dict[str, dict[frozenset[tuple[str, AttributeValue]], PastSeries]] = {}

    def of_instrument(self, name: str) -> list[PastSeries]:
        """The series of an instrument, in the order in which they were found."""
        return list(self._series.get(name, {}).values())

    def collect(self, queries: Queries, source_state: SourceState, start: int, end: int) -> None:
        """Add the rows and the estimates of a source. Raises StateError."""
        measures = [
            (index, measure)
            for index, measure in enumerate(source_state.endpoint.measures)
            if self._policy.shows(measure)
        ]
        # Many rows share a series, and naming one costs more than adding to it.
        known: dict[tuple[Dims, int], PastSeries] = {}
        for row in queries.rows(source_state, start, end):
            for index, measure in measures:
                found = known.get((row.dims, index))
                if found is None:
                    token_type: Attributes = {}
                    if measure.token_type:
                        token_type = {"token_type": measure.token_type}
                    found = self._find(source_state, measure.instrument, row.dims, token_type, end)
                    known[row.dims, index] = found
                found.add(row.start, row.width, row.amounts[index])
        for dims, day, cost in queries.estimates(source_state, start, floor(end, Width.DAY)):
            found = self._find(source_state, _ESTIMATED_COST, dims, {}, end)
            found.add(day, Width.DAY, cost)

    def _find(
        self, source_state: SourceState, name: str, dims: Dims, more: Attributes, end: int
    ) -> PastSeries:
        """The series of an attribute set, made if it is new."""
        instrument = INSTRUMENTS[name]
        raw = {
            "organization": source_state.organization,
            "operation": source_state.endpoint.name,
            **dimensions_by_name(source_state.endpoint, dims),
            **more,
        }
        attributes = named(raw, self._names, users=self._policy.user_names)
        if "operation" not in instrument.attributes:
            del attributes["operation"]
        if name == _ESTIMATED_COST:
            attributes = estimate_attributes(source_state.endpoint, attributes)
        shown = self._policy.attributes(attributes)
        key = frozenset(shown.items())
        return self._series.setdefault(name, {}).setdefault(key, PastSeries(instrument, shown, end))


_ESTIMATED_COST = "openai.api.estimated_cost"
