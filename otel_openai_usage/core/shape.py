"""From leaves to series: names joined, attributes renamed, dropped and folded, zeros shown first.

A Shape remembers what stands on the Board, so that a poll costs what it changes. Built anew from the same books, it
comes out the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

from otel_openai_usage.core.book import Book, Leaf
from otel_openai_usage.core.catalogue import INSTRUMENTS
from otel_openai_usage.core.estimate import CURRENCY
from otel_openai_usage.core.model import NO_NAMES, Amount, Names
from otel_openai_usage.core.snapshot import AttributeValue, Point, Series

Attributes: TypeAlias = dict[str, AttributeValue]

UNKNOWN = "unknown"
OVERFLOW = "otel.metric.overflow"
_KEPT_IN_OVERFLOW = ("organization", "operation", "token_type", "currency")
_NANO = 1_000_000_000
_NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class Look:
    """How series look. `zero_hold` and `name_wait` (how long a new series waits for its name) in seconds; `max_series` per instrument."""

    rename: Mapping[str, str] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()
    skip_zero: bool = False
    zero_hold: float = 60
    max_series: int = 100_000
    name_wait: float = 30

    def attributes(self, raw: Attributes) -> Attributes:
        """Renamed, and without what is dropped."""
        return {self.rename.get(key, key): value for key, value in raw.items() if key not in self.drop}

    def overflow(self, raw: Attributes) -> Attributes:
        """The attributes of the series that later ones fold into."""
        return {**self.attributes({key: raw[key] for key in _KEPT_IN_OVERFLOW if key in raw}), OVERFLOW: True}


@dataclass(slots=True, eq=False)
class Entry:
    """One series, and the leaves (with the index of the measure) that it adds up."""

    instrument: str
    series: Series
    floating: bool
    members: list[tuple[Leaf, int]] = field(default_factory=list)
    position: int = -1
    held_since: float | None = None
    held_version: int = 0
    skipped: bool = False
    floor: Amount = 0

    @property
    def released(self) -> bool:
        """Whether it need not be 0 (any more). One that was left out while it was 0 begins with 0, however old its leaf."""
        return not self.skipped and any(leaf.released for leaf, _ in self.members)

    def shown(self) -> Amount:
        """The sum of what the members may show, and not less than what it showed before a member got another name."""
        return max(self.floor, sum(leaf.shown[index] for leaf, index in self.members))

    def pending(self) -> Amount:
        """How much of it OpenAI has taken back, or belongs to another series now."""
        return self.shown() - sum(leaf.total[index] for leaf, index in self.members)

    def follow(self, old: "Entry") -> None:
        """Go on where the same series was before all were shaped anew."""
        self.held_since, self.held_version, self.skipped = old.held_since, old.held_version, old.skipped
        self.floor = old.shown() if old.released else 0

    def number(self, amount: Amount) -> int | float:
        """As the instrument shows it: money becomes a float here and nowhere earlier."""
        return float(amount) if self.floating else int(amount)


@dataclass(slots=True, eq=False)
class Estimated(Entry):
    """The estimated cost of its members."""

    def shown(self) -> Amount:
        """The sum of what the members may show, and not less than before."""
        return max(self.floor, sum((leaf.estimate_shown or _NOTHING for leaf, _ in self.members), _NOTHING))

    def pending(self) -> Amount:
        """How much of it was taken back."""
        return self.shown() - sum((leaf.estimate or _NOTHING for leaf, _ in self.members), _NOTHING)


def dimensions(book: Book, leaf: Leaf) -> dict[str, str]:
    """The leaf's dimensions by name, without nulls."""
    return {name: value for name, value in zip(book.kind.dimensions, leaf.dims, strict=True) if value is not None}


def named(attributes: Attributes, names: Names) -> Attributes:
    """With project_name and api_key_name; `unknown` where an id has no name."""
    for id_key, name_key, known in (("project_id", "project_name", names.projects), ("api_key_id", "api_key_name", names.api_keys)):
        if id_key in attributes:
            attributes[name_key] = known.get(str(attributes[id_key])) or UNKNOWN
    return attributes


def unnamed(dims: Mapping[str, str], names: Names) -> bool:
    """Whether an id of the attribute set has no name yet, and is not known to have none."""
    project, key = dims.get("project_id"), dims.get("api_key_id")
    return (project is not None and project not in names.projects) or (key is not None and key not in names.api_keys)


@dataclass(frozen=True, slots=True)
class Folded:
    """Leaves that from now on belong to an instrument's overflow series; to be remembered in the store."""

    instrument: str
    leaf: int


class Shape:
    """The series of all books' counters, kept up to date leaf by leaf."""

    def __init__(self, look: Look, folded: Iterable[Folded] = ()) -> None:
        self.look = look
        self.folded = set(folded)
        self._names: dict[str, Names] = {}
        self._books: list[Book] = []
        self._clear()

    def _clear(self) -> None:
        self._entries: dict[str, dict[tuple[tuple[str, AttributeValue], ...], Entry]] = {}
        self._of_leaf: dict[int, list[Entry]] = {}
        self._points: dict[str, list[Point]] = {}
        self._dirty: dict[Entry, None] = {}
        self._held: dict[Entry, None] = {}
        self._ripe: list[Entry] = []
        self._pending: dict[Entry, Amount] = {}
        self._waiting: dict[int, tuple[Book, Leaf]] = {}

    def load(self, books: Iterable[Book], names: Mapping[str, Names], now: float) -> list[Folded]:
        """Shape all books from the beginning; what had to be folded on the way."""
        shown = self._of_leaf
        self._clear()
        self._books, self._names = list(books), dict(names)
        leaves = [(book, leaf) for book in self._books if book.progress.complete for leaf in book.leaves.values()]
        leaves.sort(key=lambda pair: (pair[1].id not in shown, pair[1].id))  # first come stay
        return [fold for book, leaf in leaves for fold in self.add(book, leaf, now)]

    def renamed(self, names: Mapping[str, Names], now: float) -> list[Folded]:
        """Take new names. Entries are shaped anew only if a name in use changed."""
        before, self._names = self._names, dict(names)
        if not any(self._differs(book, before.get(book.organization, NO_NAMES)) for book in self._books):
            return self.resume(now)
        old, held = self._entries, self._held
        folds = self.load(self._books, names, now)
        for instrument, entries in self._entries.items():
            for key in entries.keys() & old.get(instrument, {}).keys():
                entries[key].follow(old[instrument][key])
                if old[instrument][key] in held:
                    self._held[entries[key]] = None
        return folds

    def _differs(self, book: Book, before: Names) -> bool:
        after = self._names.get(book.organization, NO_NAMES)
        return any(
            named(dict(dims), before) != named(dict(dims), after)
            for leaf in book.leaves.values()
            if leaf.id in self._of_leaf and (dims := dimensions(book, leaf))
        )

    def resume(self, now: float) -> list[Folded]:
        """Shape the leaves whose name has come, or has been waited for long enough."""
        waiting, self._waiting = self._waiting, {}
        return [fold for book, leaf in waiting.values() for fold in self.add(book, leaf, now)]

    def add(self, book: Book, leaf: Leaf, now: float) -> list[Folded]:
        """Take in a leaf that is new, or has moved."""
        if leaf.id in self._of_leaf:
            folds = self._price(book, leaf)
            self._dirty.update(dict.fromkeys(self._of_leaf[leaf.id]))
            return folds
        if not leaf.changed or book.kind.level:
            return []
        dims, names = dimensions(book, leaf), self._names.get(book.organization, NO_NAMES)
        if now - leaf.first_seen < self.look.name_wait and unnamed(dims, names):
            self._waiting[leaf.id] = (book, leaf)
            return []
        raw = named({"organization": book.organization, "operation": book.kind.name, **dims}, names)
        entries, folds = [], []
        for index, measure in enumerate(book.kind.measures):
            if measure.instrument:
                typed = {**raw, "token_type": measure.token_type} if measure.token_type else raw
                entry, fold = self._entry(measure.instrument, typed, book, leaf)
                entry.members.append((leaf, index))
                entries.append(entry)
                folds += fold
        if leaf.estimate is not None:
            entry, fold = self._estimated(raw, book, leaf)
            entries.append(entry)
            folds += fold
        self._of_leaf[leaf.id] = entries
        self._dirty.update(dict.fromkeys(entries))
        return folds

    def _price(self, book: Book, leaf: Leaf) -> list[Folded]:
        """Show the estimated cost of a leaf that had no price before."""
        entries = self._of_leaf[leaf.id]
        if leaf.estimate is None or any(isinstance(entry, Estimated) for entry in entries):
            return []
        names = self._names.get(book.organization, NO_NAMES)
        raw = named({"organization": book.organization, "operation": book.kind.name, **dimensions(book, leaf)}, names)
        entry, folds = self._estimated(raw, book, leaf)
        if entry.position < 0:
            entry.skipped = True  # its leaf may be shown, it not yet
        entries.append(entry)
        return folds

    def _estimated(self, raw: Attributes, book: Book, leaf: Leaf) -> tuple[Entry, list[Folded]]:
        priced: Attributes = {key: value for key, value in raw.items() if key != "user_id"}
        entry, folds = self._entry("openai.api.estimated_cost", {**priced, "currency": CURRENCY}, book, leaf, Estimated)
        entry.members.append((leaf, 0))
        return entry, folds

    def _entry(
        self, name: str, raw: Attributes, book: Book, leaf: Leaf, of: type[Entry] = Entry
    ) -> tuple[Entry, list[Folded]]:
        instrument, known = INSTRUMENTS[name], self._entries.setdefault(name, {})
        if "operation" not in instrument.attributes:
            raw = {key: value for key, value in raw.items() if key != "operation"}
        attributes = self.look.attributes(raw)
        fold, folds = Folded(name, leaf.id), []
        key = tuple(sorted(attributes.items()))
        if fold in self.folded or (key not in known and len(known) >= self.look.max_series):
            if fold not in self.folded:
                folds.append(fold)
                self.folded.add(fold)
            attributes = self.look.overflow(raw)
            key = tuple(sorted(attributes.items()))
        entry = known.get(key)
        if entry is None:
            start = book.progress.epoch * _NANO if instrument.kind == "counter" else 0
            entry = known[key] = of(name, Series(attributes, start), instrument.floating)
        return entry, folds

    def due(self, mono: float, attempted: int | None) -> list[Leaf]:
        """The leaves whose series have been shown as 0 for long enough; to be marked released in the store first."""
        self._ripe = [
            entry
            for entry in self._held
            if entry.held_since is not None
            and mono - entry.held_since >= self.look.zero_hold
            and (attempted is None or attempted >= entry.held_version)
        ]
        return [leaf for entry in self._ripe for leaf, _ in entry.members]

    def released(self, leaves: Iterable[Leaf]) -> None:
        """The store has it: show what these leaves, those last due, are."""
        for entry in self._ripe:
            entry.skipped = False
        for leaf in leaves:
            leaf.released = True
            self._dirty.update(dict.fromkeys(self._of_leaf.get(leaf.id, ())))

    @property
    def changed(self) -> bool:
        """Whether a build would come out differently from the last."""
        return bool(self._dirty)

    @property
    def waits(self) -> bool:
        """Whether time alone will change something: a name waited for, a zero held."""
        return bool(self._waiting or self._held)

    def points(self, mono: float, version: int) -> dict[str, list[Point]]:
        """The points of every instrument. A list that did not change is the same object as before."""
        fresh: set[str] = set()
        for entry in self._dirty:
            if entry.instrument not in fresh:
                fresh.add(entry.instrument)
                self._points[entry.instrument] = list(self._points.get(entry.instrument, ()))
            self._show(entry, self._points[entry.instrument], mono, version)
        self._dirty.clear()
        return dict(self._points)

    def _show(self, entry: Entry, points: list[Point], mono: float, version: int) -> None:
        if pending := entry.pending():
            self._pending[entry] = pending
        else:
            self._pending.pop(entry, None)
        amount = entry.shown()
        if not amount and self.look.skip_zero and entry.position < 0:
            entry.skipped = True
            return
        if entry.released:
            self._held.pop(entry, None)
        else:
            self._held[entry] = None
            if entry.held_since is None:
                entry.held_since, entry.held_version = mono, version
        point = Point(entry.series, entry.number(amount if entry.released else 0))
        if entry.position < 0:
            entry.position = len(points)
            points.append(point)
        else:
            points[entry.position] = point

    def restated_pending(self) -> dict[str, list[tuple[Mapping[str, AttributeValue], int | float]]]:
        """By instrument, the series that show more than OpenAI reports now, and how much more."""
        found: dict[str, list[tuple[Mapping[str, AttributeValue], int | float]]] = {}
        for entry, amount in self._pending.items():
            found.setdefault(entry.instrument, []).append((entry.series.attributes, entry.number(amount)))
        return found

    def counts(self) -> dict[str, tuple[int, int]]:
        """By instrument, how many series live and how many leaves are folded."""
        folded: dict[str, int] = {}
        for fold in self.folded:
            folded[fold.instrument] = folded.get(fold.instrument, 0) + 1
        return {name: (len(entries), folded.get(name, 0)) for name, entries in self._entries.items()}
