"""All series of the counters, kept up to date with each stored series that changes.

`series_life` has the states of a series. `Naming`, `Capacity` and `PointLists` have the parts that
do not depend on them. An index that is built again from the same state comes out the same.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from otel_openai_usage.domain import gen_ai
from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Amount, Names
from otel_openai_usage.domain.series_marks import Attributes, HighWaterMark, Key, OverflowMember
from otel_openai_usage.domain.snapshot import AttributeValue, Point, Series
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.view.attributes import (
    AttributePolicy,
    attribute_key,
    estimate_attributes,
)
from otel_openai_usage.view.capacity import Capacity
from otel_openai_usage.view.naming import HighWaterMarks, Naming
from otel_openai_usage.view.points import PointLists
from otel_openai_usage.view.series import (
    AggregatedSeries,
    EstimatedSeries,
    GenAiSeries,
    Joining,
    Placement,
    Places,
    continue_all,
)
from otel_openai_usage.view.series_life import PlacementState, SeriesState
from otel_openai_usage.view.zero_first import Moment, ZeroFirst

SWEEP_EVERY = 3600
"""Seconds between two searches for series that did not change for too long."""

_ESTIMATED_COST = "openai.api.estimated_cost"
_METERED_COST = "openai.metered.cost"
_NANO = 1_000_000_000


class SeriesIndex:
    """The series of the counters of all sources.

    Call `add` for each stored series that was created or updated, then `releasable` and `release`,
    then `points`. `now` is in Unix seconds. `mono` is in seconds, of a clock that never steps.
    """

    def __init__(
        self,
        policy: AttributePolicy,
        overflow_members: Iterable[OverflowMember] = (),
        high_water_marks: Iterable[HighWaterMark] = (),
    ) -> None:
        self.policy = policy
        self.page_served = True
        """Whether a page was served on this state, by this process or an earlier one. Until then
        nobody can miss the 0 of a new series, so series show their value at once.
        """
        self.continued: set[int] = set()
        """Stored series, by id, whose names changed after they were shown."""
        self._naming = Naming(policy.name_wait, users=policy.user_names)
        self._capacity = Capacity(policy.max_series, overflow_members)
        self._marks = HighWaterMarks(high_water_marks)
        self._source_states: list[SourceState] = []
        self._clear()

    def _clear(self) -> None:
        self._series: defaultdict[str, dict[Key, AggregatedSeries]] = defaultdict(dict)
        # Only dormant series that can return with more than one member are remembered.
        self._dormant: dict[tuple[str, Key], AggregatedSeries] = {}
        self._placements: dict[int, Placement] = {}
        self._points = PointLists()
        self._zero_first = ZeroFirst(self.policy.zero_hold, skip_zero=self.policy.skip_zero)
        # Only these are looked at for the next snapshot, so a poll costs what it changes.
        self._changed: dict[AggregatedSeries, None] = {}
        self._restated: dict[AggregatedSeries, Amount] = {}
        self._fallen: dict[GenAiSeries, None] = {}
        self._swept = float("-inf")

    # --- what changes it: loading, readings, names

    def load(
        self,
        source_states: Iterable[SourceState],
        names: Mapping[str, Names],
        now: float,
        mono: float | None = None,
        opened: Collection[SourceState] = (),
    ) -> list[OverflowMember]:
        """Build all series again. Return what the store must remember before they are shown.

        `now` decides what did not change for too long, `mono` (else `now`) who waited for a name.
        No series of the sources in `opened` waits for its name: another replica showed it.
        """
        placed_before = {id_ for id_, place in self._placements.items() if place.series}
        self._clear()
        self._naming.clear_waiting()
        self._naming.by_organization = dict(names)
        self._source_states = list(source_states)
        pairs = self._counted()
        silent_since = now - self.policy.make_room
        silent = frozenset(series.id for _, series in pairs if series.changed < silent_since)
        self._capacity.reset(silent)

        def precedence(pair: tuple[SourceState, StoredSeries]) -> tuple[bool, bool, int]:
            _, stored_series = pair
            is_silent = stored_series.id in silent
            is_new = stored_series.id not in placed_before
            return (is_silent, is_new, stored_series.id)

        # What was shown before keeps its place when there are more than max_series.
        pairs.sort(key=precedence)
        for source_state, stored_series in pairs:
            # At the start nothing waits for its name. The store's series were shown before, and
            # the first scrape after a restart must have them.
            is_new = stored_series.id not in placed_before and source_state not in opened
            may_wait = bool(placed_before) and is_new
            self._add(source_state, stored_series, now, mono, may_wait=may_wait)
        self.forget(now)
        for instrument, live in self._series.items():
            self._make_room(instrument, now, self._capacity.excess(len(live)))
        return self._capacity.take_new_members()

    def remember(self, members: Iterable[OverflowMember], marks: Iterable[HighWaterMark]) -> None:
        """Use what the store has now: another replica may have written it."""
        self._capacity.remember(members)
        self._marks = HighWaterMarks(marks)

    def _counted(self) -> list[tuple[SourceState, StoredSeries]]:
        """Return all stored series of sources whose first reading is complete."""
        pairs = []
        for source_state in self._source_states:
            if source_state.progress.complete:
                pairs += [(source_state, series) for series in source_state.series.values()]
        return pairs

    def rename(
        self, names: Mapping[str, Names], now: float, mono: float | None = None
    ) -> tuple[list[OverflowMember], list[HighWaterMark]]:
        """Use new names. Return what the store must remember before they are shown.

        The index is built again only if a series has another name.
        """
        before = self._naming.by_organization
        self._naming.by_organization = dict(names)
        if not self._any_name_differs(before):
            return self.resume(now, mono), []
        old = self.places()
        placed = {id_ for id_, placement in self._placements.items() if placement.series}
        overflow_members = self.load(self._source_states, names, now, mono)
        new = continue_all(old, self.places())
        for place in new.keys() - old.keys():
            self._note_continued(new[place], placed)
        if not self.policy.names_without_ids:
            # With ids in the attributes, a rename moves no member to another series.
            return overflow_members, []
        return overflow_members, self._marks.update(old, new)

    def _note_continued(self, series: AggregatedSeries, placed: Collection[int]) -> None:
        """Note that a series has the totals of members that had another one before."""
        ids = {stored_series.id for stored_series, _ in series.members}
        moved = ids.intersection(placed)
        if moved:
            self.continued |= moved
            series.series = replace(series.series, continues=True)

    def _any_name_differs(self, before: Mapping[str, Names]) -> bool:
        return any(
            self._uses_name(series) and self._naming.differs(source_state, series, before)
            for source_state in self._source_states
            for series in source_state.series.values()
        )

    def _uses_name(self, stored_series: StoredSeries) -> bool:
        """Return whether the name of a stored series decides about a series, live or dormant."""
        placement = self._placements.get(stored_series.id)
        if placement is None:
            # A dormant series that is known by its name alone may return without this member.
            return self.policy.names_without_ids
        return bool(placement.series)

    def places(self) -> Places:
        """Return all series, live and dormant, by instrument and key."""
        found = dict(self._dormant)
        for instrument, live in self._series.items():
            found |= {(instrument, key): series for key, series in live.items()}
        return found

    def resume(self, now: float, mono: float | None = None) -> list[OverflowMember]:
        """Add the stored series whose wait for a name is over.

        Return what the store must remember before they are shown.
        """
        for source_state, stored_series in self._naming.waiting():
            self._add(source_state, stored_series, now, mono)
        return self._capacity.take_new_members()

    def add(
        self,
        source_state: SourceState,
        stored_series: StoredSeries,
        now: float,
        mono: float | None = None,
    ) -> list[OverflowMember]:
        """Add a stored series that was created or updated.

        Return what the store must remember before it is shown.
        """
        self._add(source_state, stored_series, now, mono)
        return self._capacity.take_new_members()

    # --- placing a stored series

    def _add(
        self,
        source_state: SourceState,
        stored_series: StoredSeries,
        now: float,
        mono: float | None,
        *,
        may_wait: bool = True,
    ) -> None:
        placement = self._placements.get(stored_series.id)
        if placement and placement.state is PlacementState.ACTIVE:
            self._join_late_estimate(Joining(source_state, stored_series, placement, now))
            self._mark_changed(placement.series)
            return
        # A level is a gauge. Usage from before counting began is in no counter.
        if source_state.endpoint.level or not stored_series.changed:
            return
        if placement is None:
            placement = Placement()
            self._placements[stored_series.id] = placement
        # A member of a live series is shown already, under the name that it had.
        may_wait = may_wait and placement.state is not PlacementState.PARTLY_DORMANT
        mono = now if mono is None else mono
        if may_wait and self._naming.must_wait(source_state, stored_series, mono):
            if placement.state is PlacementState.ABSENT:
                placement.move_to(PlacementState.WAITING_FOR_NAME)
            return
        self._naming.end_wait(stored_series)
        self._join_all(Joining(source_state, stored_series, placement, now))
        placement.move_to(PlacementState.ACTIVE)
        self._mark_changed(placement.series)

    def _join_all(self, joining: Joining) -> None:
        """Join a series for each measure, and one for the estimated cost."""
        raw = self._naming.raw_attributes(joining.source_state, joining.stored_series)
        measures = joining.source_state.endpoint.measures
        shows = self.policy.shows_under_our_names
        shown = [pair for pair in enumerate(measures) if shows(pair[1])]
        for number, (index, measure) in enumerate(shown):
            attributes = dict(raw)
            if measure.token_type:
                attributes["token_type"] = measure.token_type
            # It gets all its series of an instrument or none, so that a restart decides the same.
            rest = shown[number:]
            needed = sum(other.instrument == measure.instrument for _, other in rest)
            self._join(joining, measure.instrument, attributes, index=index, needed=needed)
        if self.policy.profile != "openai":
            self._join_gen_ai(joining, raw)
        if joining.stored_series.estimate is not None:
            self._join_estimate(joining, raw)

    def _join_gen_ai(self, joining: Joining, raw: Attributes) -> None:
        """Join a series for each part of the tokens, under the names of the GenAI conventions."""
        endpoint = joining.source_state.endpoint
        parts = gen_ai.parts(endpoint)
        if not parts:
            return
        common: Attributes = {**raw, gen_ai.PROVIDER_NAME: gen_ai.PROVIDER}
        common["operation"] = gen_ai.OPERATIONS[endpoint.name]
        for number, part in enumerate(parts):
            attributes: Attributes = {**common, gen_ai.MODALITY: part.modality}
            needed = sum(other.instrument == part.instrument for other in parts[number:])
            self._join(joining, part.instrument, attributes, needed=needed, part=part)

    def _join_late_estimate(self, joining: Joining) -> None:
        """Join the series of the estimated cost, if there was no price before."""
        has_estimate = joining.stored_series.estimate is not None
        if not has_estimate or joining.placement.has_estimate:
            return
        raw = self._naming.raw_attributes(joining.source_state, joining.stored_series)
        series = self._join_estimate(joining, raw)
        if not series.has_point and not series.high_water_mark:
            # Its usage may have been shown with its value, but its cost was not shown yet.
            series.begins_at_zero = True

    def _join_estimate(self, joining: Joining, raw: Attributes) -> AggregatedSeries:
        endpoint = joining.source_state.endpoint
        attributes = estimate_attributes(endpoint, raw)
        instrument = _METERED_COST if endpoint.name == METERED.name else _ESTIMATED_COST
        return self._join(joining, instrument, attributes)

    def _join(
        self,
        joining: Joining,
        instrument: str,
        raw: Attributes,
        *,
        index: int = 0,
        needed: int = 1,
        part: gen_ai.PlacedPart | None = None,
    ) -> AggregatedSeries:
        """Join the series with these attributes, or the overflow series. Return the series.

        `index` is of the measure. `needed` is how many series of the instrument will be joined,
        this one included. `part` is of the tokens, for an instrument of the GenAI conventions.
        """
        names = gen_ai.ATTRIBUTE_NAMES if part else {}
        if not part and "operation" not in INSTRUMENTS[instrument].attributes:
            raw.pop("operation", None)
        attributes = self.policy.attributes(raw, names)
        key = attribute_key(attributes)
        if self._overflows(joining, instrument, key, needed):
            attributes = self.policy.overflow(raw, names)
            key = attribute_key(attributes)
        series = self._series[instrument].get(key)
        if series is None and (instrument, key) in self._dormant:
            series = self._reactivate(instrument, key)
        if series is None:
            series = self._create(joining, instrument, key, attributes, index, part)
        if series not in joining.placement.series:
            series.members.append((joining.stored_series, index))
            joining.placement.series += (series,)
        return series

    def _overflows(self, joining: Joining, instrument: str, key: Key, needed: int) -> bool:
        """Return whether a stored series belongs to the overflow series, after deciding it."""
        id_ = joining.stored_series.id
        if self._capacity.is_overflow_member(instrument, id_):
            return True
        if key in self._series[instrument] or self._has_place(joining, instrument, needed):
            return False
        self._capacity.add_overflow_member(instrument, id_)
        return True

    def _create(
        self,
        joining: Joining,
        instrument: str,
        key: Key,
        attributes: Attributes,
        index: int,
        part: gen_ai.PlacedPart | None,
    ) -> AggregatedSeries:
        if part:
            return self._create_gen_ai(joining, key, attributes, part)
        is_estimate = instrument in (_ESTIMATED_COST, _METERED_COST)
        series_type = EstimatedSeries if is_estimate else AggregatedSeries
        is_counter = INSTRUMENTS[instrument].kind == "counter"
        source_state = joining.source_state
        start = source_state.progress.epoch
        if series_type is AggregatedSeries:
            start = source_state.starts_at(index)
        series = series_type(
            instrument=instrument,
            series=Series(
                attributes,
                start=start * _NANO if is_counter else 0,
                continues=joining.stored_series.id in self.continued,
            ),
            is_late=start > source_state.progress.epoch,
            floating=INSTRUMENTS[instrument].floating,
            from_zero=joining.source_state.endpoint.from_zero,
            high_water_mark=self._marks.of(instrument, key),
        )
        self._series[instrument][key] = series
        return series

    def _create_gen_ai(
        self, joining: Joining, key: Key, attributes: Attributes, part: gen_ai.PlacedPart
    ) -> AggregatedSeries:
        source_state = joining.source_state
        # What remains counts since the measure did of which it remains.
        start = max(source_state.starts_at(place) for place in part.plus)
        series = GenAiSeries(
            instrument=part.instrument,
            series=Series(
                attributes,
                start=start * _NANO,
                continues=joining.stored_series.id in self.continued,
            ),
            # Most models have one or two modalities, so the others are omitted while they are 0.
            is_late=True,
            floating=False,
            from_zero=source_state.endpoint.from_zero,
            high_water_mark=self._marks.of(part.instrument, key),
            part=part,
        )
        self._series[part.instrument][key] = series
        return series

    def _mark_changed(self, series: Iterable[AggregatedSeries]) -> None:
        self._changed.update(dict.fromkeys(series))

    # --- capacity and dormancy

    def _has_place(self, joining: Joining, instrument: str, needed: int) -> bool:
        """Return whether a stored series gets series of its own, after making room if possible."""
        live = len(self._series[instrument])
        if self._capacity.has_place(instrument, joining.stored_series.id, live, needed):
            return True
        if self._capacity.is_full(instrument, joining.now):
            return False
        if self._make_room(instrument, joining.now, self._capacity.batch(needed)):
            return True
        self._capacity.mark_full(instrument, joining.now)
        return False

    def _make_room(self, instrument: str, now: float, wanted: int) -> bool:
        """Make up to `wanted` series dormant, the longest silent first. False if none is silent."""
        if wanted <= 0:
            return True
        silent = self._silent(instrument, now - self.policy.make_room)
        silent.sort(key=lambda pair: pair[1].changed)
        longest = silent[:wanted]
        for _, series in longest:
            ids = [stored_series.id for stored_series, _ in series.members]
            self._capacity.reserve(instrument, ids)
        self._make_dormant(instrument, longest)
        return bool(longest)

    def forget(self, now: float) -> None:
        """Make the series dormant that did not change for `policy.forget`. Searches once an hour."""
        if 0 <= now - self._swept < SWEEP_EVERY:
            return
        self._swept = now
        for instrument in self._series:
            silent = self._silent(instrument, now - self.policy.forget)
            self._make_dormant(instrument, silent)

    def _silent(self, instrument: str, since: float) -> list[tuple[Key, AggregatedSeries]]:
        """Return the series that did not change since then and would return with their value."""
        return [
            (key, series)
            for key, series in self._series[instrument].items()
            if series.changed < since and series.may_become_dormant
        ]

    def _make_dormant(
        self, instrument: str, dormant: Iterable[tuple[Key, AggregatedSeries]]
    ) -> None:
        """Remove series from the snapshots."""
        dormant = list(dormant)
        if not dormant:
            return
        live = self._series[instrument]
        for key, series in dormant:
            series.move_to(SeriesState.DORMANT)
            del live[key]
            self._changed.pop(series, None)
            self._restated.pop(series, None)
            self._leave(series)
            # Others return as new series, with the total of their only member.
            if len(series.members) > 1 or self.policy.names_without_ids:
                self._dormant[instrument, key] = series
        self._points.keep_only(instrument, live.values())
        for _, series in dormant:
            series.position = -1

    def _leave(self, series: AggregatedSeries) -> None:
        """Remove a series from the placements of its members."""
        for stored_series, _ in series.members:
            placement = self._placements[stored_series.id]
            placement.series = tuple(other for other in placement.series if other is not series)
            if placement.state is PlacementState.WAITING_FOR_NAME:
                # It waits to join all its series again, this one included.
                continue
            if not placement.series:
                placement.move_to(PlacementState.ABSENT)
                del self._placements[stored_series.id]
            elif placement.state is PlacementState.ACTIVE:
                placement.move_to(PlacementState.PARTLY_DORMANT)

    def _reactivate(self, instrument: str, key: Key) -> AggregatedSeries:
        """Make a dormant series live, with all its members. Return it."""
        series = self._dormant.pop((instrument, key))
        series.move_to(SeriesState.UNPUBLISHED)
        # It was shown before, so a new member must not make it begin at 0.
        series.high_water_mark = series.value()
        self._series[instrument][key] = series
        self._changed[series] = None
        for stored_series, _ in series.members:
            placement = self._placements.setdefault(stored_series.id, Placement())
            placement.series += (series,)
            if placement.state is PlacementState.ABSENT:
                # Its other series stay dormant until it changes itself.
                placement.move_to(PlacementState.PARTLY_DORMANT)
        return series

    # --- zero first

    def releasable(self, mono: float, attempted: int | None) -> list[StoredSeries]:
        """Return the stored series that may show their value. Store that, then call `release`.

        `attempted` is the snapshot that OTLP last tried to send, None without OTLP.
        """
        unpublished = [series for series in self._changed if not series.may_show_value]
        moment = Moment(mono, attempted, self.page_served)
        return self._zero_first.releasable(unpublished, self._placements, moment)

    def release(self, stored: Iterable[StoredSeries]) -> None:
        """Show the values of what `releasable` returned last. The store has it."""
        self._mark_changed(self._zero_first.release())
        for stored_series in stored:
            stored_series.released = True
            placement = self._placements.get(stored_series.id)
            if placement:
                self._mark_changed(placement.series)

    @property
    def waits(self) -> bool:
        """Whether time alone will change something: a wait for a name, or a zero."""
        return self._naming.is_waiting or bool(self._zero_first)

    # --- what it shows

    def points(self, mono: float, version: int) -> dict[str, list[Point]]:
        """Return the points of every instrument, for the snapshot `version`.

        A list that did not change is the same object as in the last call.
        """
        for series in self._changed:
            self._publish(series, mono, version)
        self._changed.clear()
        return self._points.publish()

    def _publish(self, series: AggregatedSeries, mono: float, version: int) -> None:
        """Bring the state and the point of one series up to date."""
        value = series.value()
        restated = value - series.reported_sum()
        if restated:
            self._restated[series] = restated
        else:
            self._restated.pop(series, None)
        # A series that was published stays: an end would look like a gap.
        is_omitted = self.policy.skip_zero or series.is_late
        if not value and is_omitted and not series.has_point:
            self._set_state(series, SeriesState.OMITTED)
            series.begins_at_zero = True
        elif series.may_show_value:
            self._set_state(series, SeriesState.SHOWN)
            series.published(value)
            self._points.set(series, series.number(value))
            if isinstance(series, GenAiSeries) and series.has_fallen:
                self._fallen[series] = None
        else:
            self._set_state(series, SeriesState.ZERO_FIRST)
            if series.zero_since is None:
                series.zero_since = mono
                series.zero_version = version
            self._points.set(series, series.number(0))

    def take_marks(self) -> list[HighWaterMark]:
        """Return what the store must remember of the parts of tokens that fell, once.

        Without it a part that fell would show less after a restart.
        """
        marks = []
        for series in self._fallen:
            series.high_water_mark = series.highest
            key = attribute_key(dict(series.series.attributes))
            marks.append(HighWaterMark(series.instrument, key, series.highest))
        self._fallen.clear()
        return marks

    def _set_state(self, series: AggregatedSeries, state: SeriesState) -> None:
        if series.state is state:
            return
        series.move_to(state)
        if state is SeriesState.ZERO_FIRST:
            self._zero_first.add(series)
        else:
            self._zero_first.discard(series)

    def restated_pending(self) -> dict[str, list[tuple[Mapping[str, AttributeValue], int | float]]]:
        """Return the series that show more than OpenAI reports now, and by how much.

        By instrument, with the attributes of each series.
        """
        found: dict[str, list[tuple[Mapping[str, AttributeValue], int | float]]] = {}
        for series, amount in self._restated.items():
            row = (series.series.attributes, series.number(amount))
            found.setdefault(series.instrument, []).append(row)
        return found

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return by instrument how many series are live, and how many stored series overflow."""
        return {
            instrument: (len(live), self._capacity.overflow_count(instrument))
            for instrument, live in self._series.items()
        }
