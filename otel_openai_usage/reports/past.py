"""What lies before counting began, as the series that the exporter would have shown: by series,
what each bucket added.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from otel_openai_usage.domain.instruments import INSTRUMENTS, Instrument
from otel_openai_usage.domain.model import Amount, Dims, Names, Width, floor
from otel_openai_usage.domain.pricing import CURRENCY, dimensions_by_name
from otel_openai_usage.domain.series_marks import Attributes
from otel_openai_usage.domain.snapshot import AttributeValue
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.storage.sqlite.reader import Reader, reading
from otel_openai_usage.view.attributes import AttributePolicy, named


@dataclass(slots=True)
class Past:
    """One series, until `end`. `buckets` has what each added (of a gauge: its value), by start and
    width.
    """

    instrument: Instrument
    attributes: Mapping[str, AttributeValue]
    end: int
    buckets: dict[tuple[int, int], Amount] = field(default_factory=dict)

    def add(self, start: int, width: int, amount: Amount) -> None:
        """A bucket of one of the leaves of this series."""
        self.buckets[start, width] = self.buckets.get((start, width), 0) + amount

    def parts(self) -> Iterator[tuple[int, int, Amount]]:
        """Start, end and amount of stretches without a hole, from the first day that has something
        until the end.

        Hours where hours are known, else days; what an hour or a day adds is one amount. A counter
        never falls, in the past neither: after a credit it adds nothing until that is overtaken.
        """
        if self.instrument.kind == "gauge":
            yield from self._stretches()
            return
        total: Amount = 0
        top: Amount = 0
        for start, stop, amount in self._stretches():
            total += amount
            yield start, stop, max(total - top, 0)
            top = max(total, top)

    def _stretches(self) -> Iterator[tuple[int, int, Amount]]:
        end = self.end
        level = self.instrument.kind == "gauge"
        fine = {start - start % Width.DAY for start, width in self.buckets if width < Width.DAY}
        sums: dict[int, Amount] = {}
        for (start, _), amount in sorted(self.buckets.items()):
            width = Width.HOUR if start - start % Width.DAY in fine else Width.DAY
            at = start - start % width
            sums[at] = amount if level else sums.get(at, 0) + amount
        first = min(sums) - min(sums) % Width.DAY
        for day in range(first, end, Width.DAY):
            width = Width.HOUR if day in fine else Width.DAY
            for at in range(day, min(day + Width.DAY, end), width):
                if not level or at in sums:
                    yield at, min(at + width, end), sums.get(at, 0)


def series(
    path: Path, organization: str, start: int, end: int, policy: AttributePolicy
) -> Iterator[Past]:
    """Every series of what is stored of [start, end) before counting began, instrument by
    instrument. Raises StateError.
    """
    found: dict[str, dict[tuple[tuple[str, AttributeValue], ...], Past]] = {}
    with reading(path) as reader:
        names = reader.names(organization)
        for source_state in reader.source_states(organization):
            _add(
                found,
                reader,
                source_state,
                start,
                min(end, source_state.progress.epoch),
                names,
                policy,
            )
    for name in INSTRUMENTS:
        yield from found.get(name, {}).values()


def _add(
    found: dict[str, dict[tuple[tuple[str, AttributeValue], ...], Past]],
    reader: Reader,
    source_state: SourceState,
    start: int,
    end: int,
    names: Names,
    policy: AttributePolicy,
) -> None:
    def of(name: str, dims: Dims, more: Attributes) -> Past:
        raw = named(
            {
                "organization": source_state.organization,
                "operation": source_state.endpoint.name,
                **dimensions_by_name(source_state.endpoint, dims),
                **more,
            },
            names,
        )
        instrument = INSTRUMENTS[name]
        if "operation" not in instrument.attributes:
            del raw["operation"]
        if name == "openai.api.estimated_cost":
            raw.pop("user_id", None)
        attributes = policy.attributes(raw)
        return found.setdefault(name, {}).setdefault(
            tuple(sorted(attributes.items())), Past(instrument, attributes, end)
        )

    known: dict[tuple[Dims, int], Past] = {}
    for row in reader.rows(source_state, start, end):
        for index, measure in enumerate(source_state.endpoint.measures):
            if measure.instrument:
                if (row.dims, index) not in known:
                    known[row.dims, index] = of(
                        measure.instrument,
                        row.dims,
                        {"token_type": measure.token_type} if measure.token_type else {},
                    )
                known[row.dims, index].add(row.start, row.width, row.amounts[index])
    for dims, day, cost in reader.estimates(source_state, start, floor(end, Width.DAY)):
        of("openai.api.estimated_cost", dims, {"currency": CURRENCY}).add(day, Width.DAY, cost)
