"""From leaves to series: names joined, attributes renamed, dropped and folded, zeros shown first.

A Shape remembers what stands on the Board, so that a poll costs what it changes. Built anew from
the same books, it comes out the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from otel_openai_usage.core.book import Book, Leaf
from otel_openai_usage.core.catalogue import INSTRUMENTS
from otel_openai_usage.core.entry import (
    Attributes,
    Entry,
    Estimated,
    Floor,
    Key,
    Look,
    dimensions,
    flat,
    named,
    unnamed,
)
from otel_openai_usage.core.estimate import CURRENCY
from otel_openai_usage.core.model import NO_NAMES, Amount, Names
from otel_openai_usage.core.snapshot import AttributeValue, Point, Series

__all__ = ["Attributes", "Floor", "Folded", "Look", "Shape", "dimensions", "named", "unnamed"]

_NANO = 1_000_000_000
_SWEEP_EVERY = 3600
"""Seconds between two looks for what has been silent for too long."""
_AT_ONCE = 100
"""One of so many series makes room at a time, so that the longest silent need not be looked for
again for each new one.
"""


@dataclass(frozen=True, slots=True)
class Folded:
    """Leaves that from now on belong to an instrument's overflow series; to be remembered in the
    store.
    """

    instrument: str
    leaf: int


class Shape:
    """The series of all books' counters, kept up to date leaf by leaf."""

    def __init__(
        self, look: Look, folded: Iterable[Folded] = (), floors: Iterable[Floor] = ()
    ) -> None:
        self.look = look
        self._floors = {(floor.instrument, floor.key): floor.amount for floor in floors}
        self._folded: dict[str, set[int]] = {}
        for fold in folded:
            self._folded.setdefault(fold.instrument, set()).add(fold.leaf)
        self._names: dict[str, Names] = {}
        self._books: list[Book] = []
        self._wait_began: dict[int, float] = {}
        self.page_served = True
        """Whether a page was served on this state, by this process or an earlier one. Until then
        nobody can miss the 0 of a new series, so none is shown.
        """
        self._clear()

    def _clear(self) -> None:
        self._entries: dict[str, dict[Key, Entry]] = {}
        self._asleep: dict[tuple[str, Key], Entry] = {}
        self._away: set[int] = set()
        self._swept: float = float("-inf")
        self._full: dict[str, float] = {}
        self._owed: dict[str, set[int]] = {}
        self._of_leaf: dict[int, list[Entry]] = {}
        self._points: dict[str, list[Point]] = {}
        self._dirty: dict[Entry, None] = {}
        self._held: dict[Entry, None] = {}
        self._ripe: list[Entry] = []
        self._pending: dict[Entry, Amount] = {}
        self._waiting: dict[int, tuple[Book, Leaf]] = {}

    def load(
        self,
        books: Iterable[Book],
        names: Mapping[str, Names],
        now: float,
        mono: float | None = None,
    ) -> list[Folded]:
        """Shape all books from the beginning; what had to be folded on the way.

        `now` decides what has been silent for too long, `mono` (else `now`) how long a name was
        waited for.
        """
        shown = self._of_leaf
        self._clear()
        self._books = list(books)
        self._names = dict(names)
        leaves = [
            (book, leaf)
            for book in self._books
            if book.progress.complete
            for leaf in book.leaves.values()
        ]
        silent = {leaf.id for _, leaf in leaves if leaf.changed < now - self.look.make_room}
        leaves.sort(
            key=lambda pair: (pair[1].id in silent, pair[1].id not in shown, pair[1].id)
        )  # first come stay
        self._owed = {name: set(silent) for name in INSTRUMENTS}
        # At the start nothing waits for its name: what the store has was shown before, and a scrape
        # must not miss it.
        folds = []
        for book, leaf in leaves:
            waits = bool(shown) and leaf.id not in shown
            folds += self.add(book, leaf, now, mono, waits=waits)
        self.forget(now)
        for name, entries in self._entries.items():
            self._make_room(name, now, len(entries) - self.look.max_series)
        return folds

    def renamed(
        self, names: Mapping[str, Names], now: float, mono: float | None = None
    ) -> tuple[list[Folded], list[Floor]]:
        """Take new names. Entries are shaped anew only if a name in use changed. What must be
        remembered before it is shown.
        """
        before = self._names
        self._names = dict(names)
        if not any(
            self._differs(book, before.get(book.organization, NO_NAMES)) for book in self._books
        ):
            return self.resume(now, mono), []
        old = self._every()
        held = self._held
        folds = self.load(self._books, names, now, mono)
        new = self._every()
        for place in old.keys() & new.keys():
            new[place].follow(old[place])
            if old[place] in held:
                self._held[new[place]] = None
        return folds, self._lowered(old, new) if self.look.names_alone else []

    def _every(self) -> dict[tuple[str, Key], Entry]:
        """All series, the forgotten ones that may return with others' parts included."""
        return {
            (name, key): entry
            for name, entries in self._entries.items()
            for key, entry in entries.items()
        } | self._asleep

    def _lowered(
        self, old: Mapping[tuple[str, Key], Entry], new: Mapping[tuple[str, Key], Entry]
    ) -> list[Floor]:
        """Hold the series that would show less than they did; also those that nothing bears the
        name of now, should they return.
        """
        floors = []
        for place, entry in old.items():
            shown = entry.shown() if entry.released else 0
            if shown > (new[place].kept() if place in new else 0) and shown != self._floors.get(
                place
            ):
                self._floors[place] = shown
                floors.append(Floor(*place, shown))
        return floors

    def _differs(self, book: Book, before: Names) -> bool:
        after = self._names.get(book.organization, NO_NAMES)
        return any(
            named(dict(dims), before) != named(dict(dims), after)
            for leaf in book.leaves.values()
            if self._concerns(leaf) and (dims := dimensions(book, leaf))
        )

    def _concerns(self, leaf: Leaf) -> bool:
        """Whether a name of it is in use. One that is forgotten left a series that may return
        without it, if its name alone tells it.
        """
        return leaf.id in self._of_leaf or (self.look.names_alone and leaf.id not in self._waiting)

    def resume(self, now: float, mono: float | None = None) -> list[Folded]:
        """Shape the leaves whose name has come, or has been waited for long enough."""
        waiting = self._waiting
        self._waiting = {}
        return [fold for book, leaf in waiting.values() for fold in self.add(book, leaf, now, mono)]

    def add(
        self,
        book: Book,
        leaf: Leaf,
        now: float,
        mono: float | None = None,
        *,
        waits: bool = True,
    ) -> list[Folded]:
        """Take in a leaf that is new, or has moved; unless `waits`, also without its name."""
        if leaf.id in self._of_leaf and leaf.id not in self._away:
            folds = self._price(book, leaf, now)
            self._dirty.update(dict.fromkeys(self._of_leaf[leaf.id]))
            return folds
        if not leaf.changed or book.kind.level:
            return []
        dims = dimensions(book, leaf)
        names = self._names.get(book.organization, NO_NAMES)
        # What was shown before does not wait, whatever it was called then.
        began = self._wait_began.setdefault(leaf.id, now if mono is None else mono)
        waited = (now if mono is None else mono) - began
        patient = waits and not leaf.released and waited < self.look.name_wait
        if patient and unnamed(dims, names):
            self._waiting[leaf.id] = (book, leaf)
            return []
        self._wait_began.pop(leaf.id, None)
        raw = named({"organization": book.organization, "operation": book.kind.name, **dims}, names)
        folds = []
        for index, measure in enumerate(book.kind.measures):
            if measure.instrument:
                typed = {**raw, "token_type": measure.token_type} if measure.token_type else raw
                need = sum(
                    other.instrument == measure.instrument for other in book.kind.measures[index:]
                )
                folds += self._join(
                    self._entry(measure.instrument, typed, book, leaf, now, need=need), leaf, index
                )
        if leaf.estimate is not None:
            folds += self._join(self._estimated(raw, book, leaf, now), leaf, 0)
        self._away.discard(leaf.id)
        self._dirty.update(dict.fromkeys(self._of_leaf[leaf.id]))
        return folds

    def _join(self, found: tuple[Entry, list[Folded]], leaf: Leaf, index: int) -> list[Folded]:
        """Have the leaf in the entry, where it may be already."""
        entry, folds = found
        entries = self._of_leaf.setdefault(leaf.id, [])
        if entry not in entries:
            entry.members.append((leaf, index))
            entries.append(entry)
        return folds

    def _price(self, book: Book, leaf: Leaf, now: float) -> list[Folded]:
        """Show the estimated cost of a leaf that had no price before."""
        entries = self._of_leaf[leaf.id]
        if leaf.estimate is None or any(isinstance(entry, Estimated) for entry in entries):
            return []
        names = self._names.get(book.organization, NO_NAMES)
        raw = named(
            {
                "organization": book.organization,
                "operation": book.kind.name,
                **dimensions(book, leaf),
            },
            names,
        )
        entry, folds = self._estimated(raw, book, leaf, now)
        if entry.position < 0 and not entry.floor:
            entry.skipped = True  # its leaf may be shown, it not yet
        return folds + self._join((entry, []), leaf, 0)

    def _estimated(
        self, raw: Attributes, book: Book, leaf: Leaf, now: float
    ) -> tuple[Entry, list[Folded]]:
        priced: Attributes = {key: value for key, value in raw.items() if key != "user_id"}
        return self._entry(
            "openai.api.estimated_cost",
            {**priced, "currency": CURRENCY},
            book,
            leaf,
            now,
            Estimated,
        )

    def _entry(
        self,
        name: str,
        raw: Attributes,
        book: Book,
        leaf: Leaf,
        now: float,
        of: type[Entry] = Entry,
        *,
        need: int = 1,
    ) -> tuple[Entry, list[Folded]]:
        instrument = INSTRUMENTS[name]
        known = self._entries.setdefault(name, {})
        if "operation" not in instrument.attributes:
            raw = {key: value for key, value in raw.items() if key != "operation"}
        attributes = self.look.attributes(raw)
        folded = self._folded.setdefault(name, set())
        folds = []
        key = flat(attributes)
        if leaf.id in folded or (key not in known and not self._has_room(name, leaf, now, need)):
            if leaf.id not in folded:
                folds.append(Folded(name, leaf.id))
                folded.add(leaf.id)
            attributes = self.look.overflow(raw)
            key = flat(attributes)
        entry = known.get(key) or self._woken(name, key)
        if entry is None:
            start = book.progress.epoch * _NANO if instrument.kind == "counter" else 0
            entry = known[key] = of(
                name,
                Series(attributes, start),
                instrument.floating,
                floor=self._floors.get((name, key), 0),
                from_zero=book.kind.from_zero,
            )
        return entry, folds

    def _woken(self, name: str, key: Key) -> Entry | None:
        """The series of that key, if it was forgotten and may add up more than one leaf."""
        entry = self._asleep.pop((name, key), None)
        if entry:
            entry.floor = entry.shown()  # it was shown: whatever joins it, it does not begin with 0
            self._entries[name][key] = entry
            self._dirty[entry] = None
            for leaf, _ in entry.members:
                if leaf.id not in self._of_leaf:
                    self._away.add(leaf.id)  # its other series are still forgotten
                self._of_leaf.setdefault(leaf.id, []).append(entry)
        return entry

    def forget(self, now: float) -> None:
        """Let go of the series that have been silent for too long. Looks for them once an hour."""
        if not 0 <= now - self._swept < _SWEEP_EVERY:
            self._swept = now
            for name in self._entries:
                self._let_go(name, self._silent(name, now - self.look.forget))

    def _has_room(self, name: str, leaf: Leaf, now: float, need: int) -> bool:
        """Whether a leaf may have `need` series of its own: all of them or none, so that it looks
        the same after a restart.

        One that had them and made room for others may, even where there is none.
        """
        if len(self._entries[name]) + need <= self.look.max_series or leaf.id in self._owed.get(
            name, ()
        ):
            return True
        if 0 <= now - self._full.get(name, float("-inf")) < _SWEEP_EVERY:
            return False
        if self._make_room(name, now, max(need, self.look.max_series // _AT_ONCE)):
            return True
        self._full[name] = now
        return False

    def _make_room(self, name: str, now: float, wanted: int) -> bool:
        """Let go of those that have been silent for longest. False if none has been for long
        enough.
        """
        if wanted <= 0:
            return True
        silent = sorted(
            self._silent(name, now - self.look.make_room), key=lambda pair: pair[1].changed
        )[:wanted]
        self._owed.setdefault(name, set()).update(
            leaf.id for _, entry in silent for leaf, _ in entry.members
        )
        self._let_go(name, silent)
        return bool(silent)

    def _silent(self, name: str, since: float) -> list[tuple[Key, Entry]]:
        """The series of an instrument of which nothing has moved since then, but for those that a
        return would let fall.
        """
        return [
            (key, entry)
            for key, entry in self._entries[name].items()
            if entry.changed < since
            and entry.floor <= entry.kept()
            and not entry.skipped
            and entry not in self._held
        ]

    def _let_go(self, name: str, silent: Iterable[tuple[Key, Entry]]) -> None:
        gone = {entry: key for key, entry in silent}
        if not gone:
            return
        entries = self._entries[name]
        points = self._points.get(name, [])
        for entry, key in gone.items():
            del entries[key]
            self._dirty.pop(entry, None)
            self._pending.pop(entry, None)
            self._leave(entry)
            if len(entry.members) > 1 or self.look.names_alone:
                self._asleep[name, key] = entry
        kept = sorted(
            (entry for entry in entries.values() if entry.position >= 0),
            key=lambda entry: entry.position,
        )
        self._points[name] = [points[entry.position] for entry in kept]
        for position, entry in enumerate(kept):
            entry.position = position
        for entry in gone:
            entry.position = -1

    def _leave(self, entry: Entry) -> None:
        for leaf, _ in entry.members:
            entries = self._of_leaf[leaf.id]
            entries.remove(entry)
            if entries:
                self._away.add(leaf.id)
            else:
                del self._of_leaf[leaf.id]
                self._away.discard(leaf.id)

    def due(self, mono: float, attempted: int | None) -> list[Leaf]:
        """The leaves that need not be shown as 0 any more; to be marked released in the store
        first.

        All series of such a leaf have been shown as 0 for long enough: a leaf that joined a series
        late is in others for a shorter time than in that one.
        """
        zero = {**self._held, **{entry: None for entry in self._dirty if not entry.released}}
        passed = {entry for entry in zero if self._zero_passed(entry, mono, attempted)}
        waiting = zero.keys() - passed
        due: dict[int, Leaf] = {}
        self._ripe = []
        for entry in passed:
            ripe = [
                leaf
                for leaf, _ in entry.members
                if not leaf.released and waiting.isdisjoint(self._of_leaf[leaf.id])
            ]
            due.update((leaf.id, leaf) for leaf in ripe)
            if ripe or any(leaf.released for leaf, _ in entry.members):
                self._ripe.append(entry)
        return list(due.values())

    def _zero_passed(self, entry: Entry, mono: float, attempted: int | None) -> bool:
        """Whether the series was shown as 0 for long enough, or need not be."""
        if not self.page_served and not entry.from_zero:
            return not self.look.skip_zero or bool(entry.shown())
        return (
            entry.held_since is not None
            and mono - entry.held_since >= self.look.zero_hold
            and (attempted is None or attempted >= entry.held_version)
        )

    def released(self, leaves: Iterable[Leaf]) -> None:
        """The store has it: show what these leaves, those last due, are."""
        for entry in self._ripe:
            entry.skipped = False
            self._dirty[entry] = None
        self._ripe = []
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
                entry.held_since = mono
                entry.held_version = version
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
            found.setdefault(entry.instrument, []).append(
                (entry.series.attributes, entry.number(amount))
            )
        return found

    def counts(self) -> dict[str, tuple[int, int]]:
        """By instrument, how many series live and how many leaves are folded."""
        return {
            name: (len(entries), len(self._folded.get(name, ())))
            for name, entries in self._entries.items()
        }
