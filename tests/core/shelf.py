"""A store made of dictionaries, and readings written by hand: what laws on the core are tried with."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from otel_openai_usage import pipeline
from otel_openai_usage.core.book import Book, Commit, Leaf
from otel_openai_usage.core.kinds import USAGE_KINDS, Kind
from otel_openai_usage.core.ledger import Row, Suspicion, total
from otel_openai_usage.core.model import (
    NO_NAMES,
    Amount,
    Amounts,
    Bucket,
    Dims,
    Limit,
    Names,
    Rows,
    Width,
    Window,
    floor,
)
from otel_openai_usage.core.ports import Store
from otel_openai_usage.core.shape import Floor, Folded
from otel_openai_usage.core.windows import Progress, Step
from otel_openai_usage.errors import StateError

MINUTE = 60
HOUR = 3600
DAY = 86400
MIDNIGHT = 1_793_577_600
"""Monday, 2026-11-02, 00:00 UTC."""
EMBEDDINGS = USAGE_KINDS["embeddings"]


def who(name: str | None = "a", key: str | None = None) -> Dims:
    """Dimensions of embeddings: the model, and perhaps a key."""
    return (None, None, key, name)


def book(
    kind: Kind = EMBEDDINGS,
    *,
    epoch: int = MIDNIGHT,
    complete: bool = True,
    id_: int = 1,
    organization: str = "default",
) -> Book:
    """A book that begins to count at `epoch`."""
    return Book(id_, organization, kind, Progress(epoch, complete, epoch), [(0, kind.group_by)])


@dataclass
class Shelf:
    """Implements ports.Store. With `full`, nothing more can be written."""

    readings: dict[tuple[int, int, int, Dims], Amounts] = field(default_factory=dict)
    suspected: dict[tuple[int, int, int, Dims], Suspicion] = field(default_factory=dict)
    folded: list[Folded] = field(default_factory=list)
    held: list[Floor] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    commits: int = 0
    full: bool = False

    def book(self, organization: str, kind: Kind, epoch: int, group_by: tuple[str, ...]) -> Book:
        return book(kind, epoch=epoch, organization=organization)

    def regroup(self, book: Book) -> None: ...

    def rows(self, book: Book, width: int, starts: Sequence[int]) -> list[Row]:
        return [row for row in self._rows(book) if row.width == width and row.start in starts]

    def rows_within(self, book: Book, widths: Iterable[int], start: int, end: int) -> list[Row]:
        wanted = set(widths)
        return [row for row in self._rows(book) if row.width in wanted and start <= row.start < end]

    def _rows(self, book: Book) -> Iterator[Row]:
        return (
            Row(width, start, dims, amounts)
            for (id_, width, start, dims), amounts in self.readings.items()
            if id_ == book.id
        )

    def suspicions(
        self, book: Book, width: int, start: int, end: int
    ) -> dict[tuple[int, int, Dims], Suspicion]:
        return {
            (wide, begin, dims): suspicion
            for (id_, wide, begin, dims), suspicion in self.suspected.items()
            if (id_, wide) == (book.id, width) and start <= begin < end
        }

    def commit(self, book: Book, commit: Commit) -> None:
        self._refuse()
        for leaf in commit.new:
            leaf.id = 1000 * book.id + len(book.leaves) + 1 + list(commit.new).index(leaf)
        for width, start, dims in commit.change.drops:
            del self.readings[book.id, width, start, dims]
        for row in commit.change.writes:
            self.readings[book.id, row.width, row.start, row.dims] = row.amounts
        for (width, start, dims), suspicion in commit.change.suspects.items():
            self.suspected.pop((book.id, width, start, dims), None)
            if suspicion:
                self.suspected[book.id, width, start, dims] = suspicion
        if commit.compact_before is not None:
            self._compact(book, commit.compact_before)

    def _compact(self, book: Book, before: int) -> None:
        for row in list(self._rows(book)):
            if row.width == MINUTE and book.progress.whole_days_from <= row.start < before:
                del self.readings[book.id, row.width, row.start, row.dims]
                key = (book.id, HOUR, floor(row.start, HOUR), row.dims)
                self.readings[key] = total(self.readings.get(key, book.kind.zero), row.amounts)

    def release(self, leaves: Iterable[Leaf]) -> None:
        self._refuse()

    def folds(self) -> list[Folded]:
        return list(self.folded)

    def floors(self) -> list[Floor]:
        return list(self.held)

    def fold(self, folds: Iterable[Folded], floors: Iterable[Floor] = ()) -> None:
        self._refuse()
        self.folded += folds
        self.held += floors

    def names(self, organization: str) -> Names:
        return NO_NAMES

    def keep_names(self, organization: str, names: Names) -> None: ...

    def note(self, key: str) -> str | None:
        return self.notes.get(key)

    def take_note(self, key: str, value: str) -> None:
        self._refuse()
        self.notes[key] = value

    def keep_limits(self, organization: str, limits: Iterable[Limit]) -> None: ...

    def _refuse(self) -> None:
        if self.full:
            raise StateError("written the state file: the disk is full")
        self.commits += 1

    def counted(self, book: Book) -> dict[Dims, Amounts]:
        """The sum of all rows since the epoch."""
        sums: dict[Dims, Amounts] = {}
        for row in self._rows(book):
            if row.start >= book.progress.epoch:
                sums[row.dims] = total(sums.get(row.dims, book.kind.zero), row.amounts)
        return used(sums)


def used(sums: Mapping[Dims, Amounts]) -> dict[Dims, Amounts]:
    """Without attribute sets that used nothing."""
    return {dims: amounts for dims, amounts in sums.items() if any(amounts)}


def totals(book: Book) -> dict[Dims, Amounts]:
    """What the book says that OpenAI reports."""
    return used({dims: leaf.total for dims, leaf in book.leaves.items()})


def shown(book: Book) -> dict[Dims, Amounts]:
    """What the counters may show."""
    return {dims: leaf.shown for dims, leaf in book.leaves.items()}


def parse(results: bytes) -> Rows:
    """The rows that `bucket` wrote."""
    return {tuple(dims): tuple(map(_amount, amounts)) for dims, amounts in json.loads(results)}


def _amount(value: int | str) -> Amount:
    return Decimal(value) if isinstance(value, str) else value


def bucket(start: int, rows: Rows) -> Bucket:
    """A bucket that says `rows`."""
    plain = [
        [dims, [amount if isinstance(amount, int) else str(amount) for amount in rows[dims]]]
        for dims in sorted(rows, key=repr)
    ]
    results = json.dumps(plain).encode()
    return Bucket(start, results, results)


def coarser(reading: Mapping[int, Rows], width: int) -> dict[int, dict[Dims, Amounts]]:
    """The same usage in wider buckets."""
    found: dict[int, dict[Dims, Amounts]] = {}
    for start, rows in reading.items():
        wide = found.setdefault(floor(start, width), {})
        for dims, amounts in rows.items():
            wide[dims] = total(wide[dims], amounts) if dims in wide else amounts
    return found


def read(
    shelf: Store,
    book: Book,
    width: Width,
    reading: Mapping[int, Rows],
    now: int,
    *,
    window: Window | None = None,
    coarse: bool = False,
    hours: Mapping[int, Rows] | None = None,
    fine_from: int = 0,
) -> pipeline.Absorbed:
    """Absorb a reading as the poller does: where days disagree with their hours, `hours` are read
    in between.
    """
    step = Step(window or Window(min(reading), max(reading) + width), width, coarse)
    buckets = [bucket(start, rows) for start, rows in sorted(reading.items())]
    absorbed = pipeline.absorb(shelf, book, parse, step, buckets, now, fine_from=fine_from)
    if absorbed.finer:
        for day in absorbed.finer:
            inside = {start: rows for start, rows in (hours or {}).items() if start in day}
            pipeline.absorb(
                shelf,
                book,
                parse,
                Step(day, Width.HOUR, coarse=True),
                [bucket(*item) for item in sorted(inside.items())],
                now,
                fine_from=fine_from,
            )
        return pipeline.absorb(
            shelf, book, parse, step, buckets, now, fine_from=fine_from, drilled=True
        )
    return absorbed
