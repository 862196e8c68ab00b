"""From leaves to series: names joined, attributes renamed, dropped and folded, zeros shown first.

A Shape remembers what stands on the Board, so that a poll costs what it changes. Built anew from
the same books, it comes out the same.
"""

from collections.abc import Iterable, Mapping

from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.domain.model import NO_NAMES, Amount, Names
from otel_openai_usage.domain.pricing import CURRENCY
from otel_openai_usage.domain.series_marks import Attributes, HighWaterMark, Key, OverflowMember
from otel_openai_usage.domain.snapshot import AttributeValue, Point, Series
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.view.attributes import (
    AttributePolicy,
    attribute_key,
    dimensions,
    named,
    unnamed,
)
from otel_openai_usage.view.series import AggregatedSeries, EstimatedSeries

_NANO = 1_000_000_000
_SWEEP_EVERY = 3600
"""Seconds between two looks for what has been silent for too long."""
_AT_ONCE = 100
"""One of so many series makes room at a time, so that the longest silent need not be looked for
again for each new one.
"""


class SeriesIndex:
    """The series of all books' counters, kept up to date leaf by leaf."""

    def __init__(
        self,
        policy: AttributePolicy,
        folded: Iterable[OverflowMember] = (),
        floors: Iterable[HighWaterMark] = (),
    ) -> None:
        self.policy = policy
        self._floors = {(floor.instrument, floor.key): floor.amount for floor in floors}
        self._folded: dict[str, set[int]] = {}
        for fold in folded:
            self._folded.setdefault(fold.instrument, set()).add(fold.stored_series)
        self._names: dict[str, Names] = {}
        self._source_states: list[SourceState] = []
        self._wait_began: dict[int, float] = {}
        self.page_served = True
        """Whether a page was served on this state, by this process or an earlier one. Until then
        nobody can miss the 0 of a new series, so none is shown.
        """
        self._clear()

    def _clear(self) -> None:
        self._entries: dict[str, dict[Key, AggregatedSeries]] = {}
        self._asleep: dict[tuple[str, Key], AggregatedSeries] = {}
        self._away: set[int] = set()
        self._swept: float = float("-inf")
        self._full: dict[str, float] = {}
        self._owed: dict[str, set[int]] = {}
        self._of_leaf: dict[int, list[AggregatedSeries]] = {}
        self._points: dict[str, list[Point]] = {}
        self._dirty: dict[AggregatedSeries, None] = {}
        self._held: dict[AggregatedSeries, None] = {}
        self._ripe: list[AggregatedSeries] = []
        self._pending: dict[AggregatedSeries, Amount] = {}
        self._waiting: dict[int, tuple[SourceState, StoredSeries]] = {}

    def load(
        self,
        source_states: Iterable[SourceState],
        names: Mapping[str, Names],
        now: float,
        mono: float | None = None,
    ) -> list[OverflowMember]:
        """Shape all books from the beginning; what had to be folded on the way.

        `now` decides what has been silent for too long, `mono` (else `now`) how long a name was
        waited for.
        """
        shown = self._of_leaf
        self._clear()
        self._source_states = list(source_states)
        self._names = dict(names)
        stored_series_list = [
            (source_state, stored_series)
            for source_state in self._source_states
            if source_state.progress.complete
            for stored_series in source_state.series.values()
        ]
        silent = {
            stored_series.id
            for _, stored_series in stored_series_list
            if stored_series.changed < now - self.policy.make_room
        }
        stored_series_list.sort(
            key=lambda pair: (pair[1].id in silent, pair[1].id not in shown, pair[1].id)
        )  # first come stay
        self._owed = {name: set(silent) for name in INSTRUMENTS}
        # At the start nothing waits for its name: what the store has was shown before, and a scrape
        # must not miss it.
        folds = []
        for source_state, stored_series in stored_series_list:
            waits = bool(shown) and stored_series.id not in shown
            folds += self.add(source_state, stored_series, now, mono, waits=waits)
        self.forget(now)
        for name, entries in self._entries.items():
            self._make_room(name, now, len(entries) - self.policy.max_series)
        return folds

    def renamed(
        self, names: Mapping[str, Names], now: float, mono: float | None = None
    ) -> tuple[list[OverflowMember], list[HighWaterMark]]:
        """Take new names. Entries are shaped anew only if a name in use changed. What must be
        remembered before it is shown.
        """
        before = self._names
        self._names = dict(names)
        if not any(
            self._differs(source_state, before.get(source_state.organization, NO_NAMES))
            for source_state in self._source_states
        ):
            return self.resume(now, mono), []
        old = self._every()
        held = self._held
        folds = self.load(self._source_states, names, now, mono)
        new = self._every()
        for place in old.keys() & new.keys():
            new[place].follow(old[place])
            if old[place] in held:
                self._held[new[place]] = None
        return folds, self._lowered(old, new) if self.policy.names_without_ids else []

    def _every(self) -> dict[tuple[str, Key], AggregatedSeries]:
        """All series, the forgotten ones that may return with others' parts included."""
        return {
            (name, key): entry
            for name, entries in self._entries.items()
            for key, entry in entries.items()
        } | self._asleep

    def _lowered(
        self,
        old: Mapping[tuple[str, Key], AggregatedSeries],
        new: Mapping[tuple[str, Key], AggregatedSeries],
    ) -> list[HighWaterMark]:
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
                floors.append(HighWaterMark(*place, shown))
        return floors

    def _differs(self, source_state: SourceState, before: Names) -> bool:
        after = self._names.get(source_state.organization, NO_NAMES)
        return any(
            named(dict(dims), before) != named(dict(dims), after)
            for stored_series in source_state.series.values()
            if self._concerns(stored_series) and (dims := dimensions(source_state, stored_series))
        )

    def _concerns(self, stored_series: StoredSeries) -> bool:
        """Whether a name of it is in use. One that is forgotten left a series that may return
        without it, if its name alone tells it.
        """
        return stored_series.id in self._of_leaf or (
            self.policy.names_without_ids and stored_series.id not in self._waiting
        )

    def resume(self, now: float, mono: float | None = None) -> list[OverflowMember]:
        """Shape the leaves whose name has come, or has been waited for long enough."""
        waiting = self._waiting
        self._waiting = {}
        return [
            fold
            for source_state, stored_series in waiting.values()
            for fold in self.add(source_state, stored_series, now, mono)
        ]

    def add(
        self,
        source_state: SourceState,
        stored_series: StoredSeries,
        now: float,
        mono: float | None = None,
        *,
        waits: bool = True,
    ) -> list[OverflowMember]:
        """Take in a leaf that is new, or has moved; unless `waits`, also without its name."""
        if stored_series.id in self._of_leaf and stored_series.id not in self._away:
            folds = self._price(source_state, stored_series, now)
            self._dirty.update(dict.fromkeys(self._of_leaf[stored_series.id]))
            return folds
        if not stored_series.changed or source_state.endpoint.level:
            return []
        dims = dimensions(source_state, stored_series)
        names = self._names.get(source_state.organization, NO_NAMES)
        # What was shown before does not wait, whatever it was called then.
        began = self._wait_began.setdefault(stored_series.id, now if mono is None else mono)
        waited = (now if mono is None else mono) - began
        patient = waits and not stored_series.released and waited < self.policy.name_wait
        if patient and unnamed(dims, names):
            self._waiting[stored_series.id] = (source_state, stored_series)
            return []
        self._wait_began.pop(stored_series.id, None)
        raw = named(
            {
                "organization": source_state.organization,
                "operation": source_state.endpoint.name,
                **dims,
            },
            names,
        )
        folds = []
        for index, measure in enumerate(source_state.endpoint.measures):
            if measure.instrument:
                typed = {**raw, "token_type": measure.token_type} if measure.token_type else raw
                need = sum(
                    other.instrument == measure.instrument
                    for other in source_state.endpoint.measures[index:]
                )
                folds += self._join(
                    self._entry(
                        measure.instrument, typed, source_state, stored_series, now, need=need
                    ),
                    stored_series,
                    index,
                )
        if stored_series.estimate is not None:
            folds += self._join(
                self._estimated(raw, source_state, stored_series, now), stored_series, 0
            )
        self._away.discard(stored_series.id)
        self._dirty.update(dict.fromkeys(self._of_leaf[stored_series.id]))
        return folds

    def _join(
        self,
        found: tuple[AggregatedSeries, list[OverflowMember]],
        stored_series: StoredSeries,
        index: int,
    ) -> list[OverflowMember]:
        """Have the leaf in the entry, where it may be already."""
        entry, folds = found
        entries = self._of_leaf.setdefault(stored_series.id, [])
        if entry not in entries:
            entry.members.append((stored_series, index))
            entries.append(entry)
        return folds

    def _price(
        self, source_state: SourceState, stored_series: StoredSeries, now: float
    ) -> list[OverflowMember]:
        """Show the estimated cost of a leaf that had no price before."""
        entries = self._of_leaf[stored_series.id]
        if stored_series.estimate is None or any(
            isinstance(entry, EstimatedSeries) for entry in entries
        ):
            return []
        names = self._names.get(source_state.organization, NO_NAMES)
        raw = named(
            {
                "organization": source_state.organization,
                "operation": source_state.endpoint.name,
                **dimensions(source_state, stored_series),
            },
            names,
        )
        entry, folds = self._estimated(raw, source_state, stored_series, now)
        if entry.position < 0 and not entry.floor:
            entry.skipped = True  # its leaf may be shown, it not yet
        return folds + self._join((entry, []), stored_series, 0)

    def _estimated(
        self, raw: Attributes, source_state: SourceState, stored_series: StoredSeries, now: float
    ) -> tuple[AggregatedSeries, list[OverflowMember]]:
        priced: Attributes = {key: value for key, value in raw.items() if key != "user_id"}
        return self._entry(
            "openai.api.estimated_cost",
            {**priced, "currency": CURRENCY},
            source_state,
            stored_series,
            now,
            EstimatedSeries,
        )

    def _entry(
        self,
        name: str,
        raw: Attributes,
        source_state: SourceState,
        stored_series: StoredSeries,
        now: float,
        of: type[AggregatedSeries] = AggregatedSeries,
        *,
        need: int = 1,
    ) -> tuple[AggregatedSeries, list[OverflowMember]]:
        instrument = INSTRUMENTS[name]
        known = self._entries.setdefault(name, {})
        if "operation" not in instrument.attributes:
            raw = {key: value for key, value in raw.items() if key != "operation"}
        attributes = self.policy.attributes(raw)
        folded = self._folded.setdefault(name, set())
        folds = []
        key = attribute_key(attributes)
        if stored_series.id in folded or (
            key not in known and not self._has_room(name, stored_series, now, need)
        ):
            if stored_series.id not in folded:
                folds.append(OverflowMember(name, stored_series.id))
                folded.add(stored_series.id)
            attributes = self.policy.overflow(raw)
            key = attribute_key(attributes)
        entry = known.get(key) or self._woken(name, key)
        if entry is None:
            start = source_state.progress.epoch * _NANO if instrument.kind == "counter" else 0
            entry = known[key] = of(
                name,
                Series(attributes, start),
                instrument.floating,
                floor=self._floors.get((name, key), 0),
                from_zero=source_state.endpoint.from_zero,
            )
        return entry, folds

    def _woken(self, name: str, key: Key) -> AggregatedSeries | None:
        """The series of that key, if it was forgotten and may add up more than one leaf."""
        entry = self._asleep.pop((name, key), None)
        if entry:
            entry.floor = entry.shown()  # it was shown: whatever joins it, it does not begin with 0
            self._entries[name][key] = entry
            self._dirty[entry] = None
            for stored_series, _ in entry.members:
                if stored_series.id not in self._of_leaf:
                    self._away.add(stored_series.id)  # its other series are still forgotten
                self._of_leaf.setdefault(stored_series.id, []).append(entry)
        return entry

    def forget(self, now: float) -> None:
        """Let go of the series that have been silent for too long. Looks for them once an hour."""
        if not 0 <= now - self._swept < _SWEEP_EVERY:
            self._swept = now
            for name in self._entries:
                self._purge(name, self._silent(name, now - self.policy.forget))

    def _has_room(self, name: str, stored_series: StoredSeries, now: float, need: int) -> bool:
        """Whether a leaf may have `need` series of its own: all of them or none, so that it looks
        the same after a restart.

        One that had them and made room for others may, even where there is none.
        """
        if len(
            self._entries[name]
        ) + need <= self.policy.max_series or stored_series.id in self._owed.get(name, ()):
            return True
        if 0 <= now - self._full.get(name, float("-inf")) < _SWEEP_EVERY:
            return False
        if self._make_room(name, now, max(need, self.policy.max_series // _AT_ONCE)):
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
            self._silent(name, now - self.policy.make_room), key=lambda pair: pair[1].changed
        )[:wanted]
        self._owed.setdefault(name, set()).update(
            stored_series.id for _, entry in silent for stored_series, _ in entry.members
        )
        self._purge(name, silent)
        return bool(silent)

    def _silent(self, name: str, since: float) -> list[tuple[Key, AggregatedSeries]]:
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

    def _purge(self, name: str, silent: Iterable[tuple[Key, AggregatedSeries]]) -> None:
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
            if len(entry.members) > 1 or self.policy.names_without_ids:
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

    def _leave(self, entry: AggregatedSeries) -> None:
        for stored_series, _ in entry.members:
            entries = self._of_leaf[stored_series.id]
            entries.remove(entry)
            if entries:
                self._away.add(stored_series.id)
            else:
                del self._of_leaf[stored_series.id]
                self._away.discard(stored_series.id)

    def due(self, mono: float, attempted: int | None) -> list[StoredSeries]:
        """The leaves that need not be shown as 0 any more; to be marked released in the store
        first.

        All series of such a leaf have been shown as 0 for long enough: a leaf that joined a series
        late is in others for a shorter time than in that one.
        """
        zero = {**self._held, **{entry: None for entry in self._dirty if not entry.released}}
        passed = {entry for entry in zero if self._zero_passed(entry, mono, attempted)}
        waiting = zero.keys() - passed
        due: dict[int, StoredSeries] = {}
        self._ripe = []
        for entry in passed:
            ripe = [
                stored_series
                for stored_series, _ in entry.members
                if not stored_series.released
                and waiting.isdisjoint(self._of_leaf[stored_series.id])
            ]
            due.update((stored_series.id, stored_series) for stored_series in ripe)
            if ripe or any(stored_series.released for stored_series, _ in entry.members):
                self._ripe.append(entry)
        return list(due.values())

    def _zero_passed(self, entry: AggregatedSeries, mono: float, attempted: int | None) -> bool:
        """Whether the series was shown as 0 for long enough, or need not be."""
        if not self.page_served and not entry.from_zero:
            return not self.policy.skip_zero or bool(entry.shown())
        return (
            entry.held_since is not None
            and mono - entry.held_since >= self.policy.zero_hold
            and (attempted is None or attempted >= entry.held_version)
        )

    def released(self, stored_series_list: Iterable[StoredSeries]) -> None:
        """The store has it: show what these leaves, those last due, are."""
        for entry in self._ripe:
            entry.skipped = False
            self._dirty[entry] = None
        self._ripe = []
        for stored_series in stored_series_list:
            stored_series.released = True
            self._dirty.update(dict.fromkeys(self._of_leaf.get(stored_series.id, ())))

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

    def _show(
        self, entry: AggregatedSeries, points: list[Point], mono: float, version: int
    ) -> None:
        if pending := entry.pending():
            self._pending[entry] = pending
        else:
            self._pending.pop(entry, None)
        amount = entry.shown()
        if not amount and self.policy.skip_zero and entry.position < 0:
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
