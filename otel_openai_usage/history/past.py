"""What lies before counting began, as the series that the exporter would have shown: by series,
what each bucket added.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from otel_openai_usage.core.book import Book
from otel_openai_usage.core.catalogue import INSTRUMENTS, Instrument
from otel_openai_usage.core.estimate import CURRENCY, by_name
from otel_openai_usage.core.model import Amount, Dims, Names, Width, floor
from otel_openai_usage.core.shape import Attributes, Look, named
from otel_openai_usage.core.snapshot import AttributeValue
from otel_openai_usage.state.reader import Reader, reading


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


def series(path: Path, organization: str, start: int, end: int, look: Look) -> Iterator[Past]:
    """Every series of what is stored of [start, end) before counting began, instrument by
    instrument. Raises StateError.
    """
    found: dict[str, dict[tuple[tuple[str, AttributeValue], ...], Past]] = {}
    with reading(path) as reader:
        names = reader.names(organization)
        for book in reader.books(organization):
            _add(found, reader, book, start, min(end, book.progress.epoch), names, look)
    for name in INSTRUMENTS:
        yield from found.get(name, {}).values()


def _add(
    found: dict[str, dict[tuple[tuple[str, AttributeValue], ...], Past]],
    reader: Reader,
    book: Book,
    start: int,
    end: int,
    names: Names,
    look: Look,
) -> None:
    def of(name: str, dims: Dims, more: Attributes) -> Past:
        raw = named(
            {
                "organization": book.organization,
                "operation": book.kind.name,
                **by_name(book.kind, dims),
                **more,
            },
            names,
        )
        instrument = INSTRUMENTS[name]
        if "operation" not in instrument.attributes:
            del raw["operation"]
        if name == "openai.api.estimated_cost":
            raw.pop("user_id", None)
        attributes = look.attributes(raw)
        return found.setdefault(name, {}).setdefault(
            tuple(sorted(attributes.items())), Past(instrument, attributes, end)
        )

    known: dict[tuple[Dims, int], Past] = {}
    for row in reader.rows(book, start, end):
        for index, measure in enumerate(book.kind.measures):
            if measure.instrument:
                if (row.dims, index) not in known:
                    known[row.dims, index] = of(
                        measure.instrument,
                        row.dims,
                        {"token_type": measure.token_type} if measure.token_type else {},
                    )
                known[row.dims, index].add(row.start, row.width, row.amounts[index])
    for dims, day, cost in reader.estimates(book, start, floor(end, Width.DAY)):
        of("openai.api.estimated_cost", dims, {"currency": CURRENCY}).add(day, Width.DAY, cost)
