"""All series of the counters, kept up to date with each stored series that changes.

`series_life` has the states of a series. `Naming`, `Capacity` and `PointLists` have the parts that
do not depend on them. An index that is built again from the same state comes out the same.
"""

from collections.abc import Iterable, Mapping

from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.domain.model import Amount, Names
from otel_openai_usage.domain.pricing import CURRENCY
from otel_openai_usage.domain.series_marks import Attributes, HighWaterMark, Key, OverflowMember
from otel_openai_usage.domain.snapshot import AttributeValue, Point, Series
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.view.attributes import AttributePolicy, attribute_key
from otel_openai_usage.view.capacity import Capacity
from otel_openai_usage.view.naming import HighWaterMarks, Naming
from otel_openai_usage.view.points import PointLists
from otel_openai_usage.view.series import AggregatedSeries, EstimatedSeries, Placement
from otel_openai_usage.view.series_life import PlacementState, SeriesState

SWEEP_EVERY = 3600
"""Seconds between two searches for series that did not change for too long."""

_ESTIMATED_COST = "openai.api.estimated_cost"
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
        self._naming = Naming(policy.name_wait)
        self._capacity = Capacity(policy.max_series, overflow_members)
        self._marks = HighWaterMarks(high_water_marks)
        self._source_states: list[SourceState] = []
        self._clear()

    def _clear(self) -> None:
        self._series: dict[str, dict[Key, AggregatedSeries]] = {}
        # Only dormant series that can return with more than one member are remembered.
        self._dormant: dict[tuple[str, Key], AggregatedSeries] = {}
        self._placements: dict[int, Placement] = {}
        self._points = PointLists()
        # Work lists, so that a poll costs what it changes. Dicts, because they keep the order.
        self._changed: dict[AggregatedSeries, None] = {}
        self._zero_first: dict[AggregatedSeries, None] = {}
        self._releasable: list[AggregatedSeries] = []
        self._restated: dict[AggregatedSeries, Amount] = {}
        self._swept = float("-inf")

    # --- what changes it: loading, readings, names

    def load(
        self,
        source_states: Iterable[SourceState],
        names: Mapping[str, Names],
        now: float,
        mono: float | None = None,
    ) -> list[OverflowMember]:
        """Build all series again. Return what the store must remember before they are shown.

        `now` decides what did not change for too long, `mono` (else `now`) who waited for a name.
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
            id_ = pair[1].id
            return (id_ in silent, id_ not in placed_before, id_)

        # What was shown before keeps its place: the first come stay.
        pairs.sort(key=precedence)
        for source_state, stored_series in pairs:
            # At the start nothing waits for its name. The store's series were shown before, and
            # the first scrape after a restart must have them.
            may_wait = bool(placed_before) and stored_series.id not in placed_before
            self._add(source_state, stored_series, now, mono, may_wait=may_wait)
        self.forget(now)
        for instrument, live in self._series.items():
            self._make_room(instrument, now, self._capacity.excess(len(live)))
        return self._capacity.take_new_members()

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
        old = self._live_and_dormant()
        overflow_members = self.load(self._source_states, names, now, mono)
        new = self._live_and_dormant()
        for place in old.keys() & new.keys():
            new[place].continue_from(old[place])
        if not self.policy.names_without_ids:
            return overflow_members, []  # an id keeps its members in their series
        return overflow_members, self._marks.update(old, new)

    def _any_name_differs(self, before: Mapping[str, Names]) -> bool:
        return any(
            self._uses_name(stored_series)
            and self._naming.differs(source_state, stored_series, before)
            for source_state in self._source_states
            for stored_series in source_state.series.values()
        )

    def _uses_name(self, stored_series: StoredSeries) -> bool:
        """Return whether the name of a stored series decides about a series, live or dormant."""
        placement = self._placements.get(stored_series.id)
        if placement is None:
            # A dormant series that is known by its name alone may return without this member.
            return self.policy.names_without_ids
        return bool(placement.series)

    def _live_and_dormant(self) -> dict[tuple[str, Key], AggregatedSeries]:
        found = {
            (instrument, key): series
            for instrument, live in self._series.items()
            for key, series in live.items()
        }
        return found | self._dormant

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
            self._add_first_estimate(placement, source_state, stored_series, now)
            self._mark_changed(placement.series)
            return
        # A level is a gauge. Usage from before counting began is in no counter.
        if source_state.endpoint.level or not stored_series.changed:
            return
        if placement is None:
            placement = Placement()
            self._placements[stored_series.id] = placement
        if placement.state is PlacementState.PARTLY_DORMANT or not may_wait:
            self._naming.end_wait(stored_series)
        elif self._naming.must_wait(source_state, stored_series, now if mono is None else mono):
            if placement.state is PlacementState.ABSENT:
                placement.move_to(PlacementState.WAITING_FOR_NAME)
            return
        self._join_all(placement, source_state, stored_series, now)
        placement.move_to(PlacementState.ACTIVE)
        self._mark_changed(placement.series)

    def _join_all(
        self,
        placement: Placement,
        source_state: SourceState,
        stored_series: StoredSeries,
        now: float,
    ) -> None:
        """Make the stored series a member of a series for each measure, and for its estimate."""
        raw = self._naming.raw_attributes(source_state, stored_series)
        measures = source_state.endpoint.measures
        for index, measure in enumerate(measures):
            if not measure.instrument:
                continue
            # All series of one instrument or none: a restart then comes to the same decision.
            needed = sum(other.instrument == measure.instrument for other in measures[index:])
            attributes = {**raw, "token_type": measure.token_type} if measure.token_type else raw
            key, attributes = self._find_key(
                measure.instrument, attributes, stored_series, now, needed=needed
            )
            series = self._live_series(measure.instrument, key)
            if series is None:
                series = self._create(
                    AggregatedSeries, measure.instrument, key, attributes, source_state
                )
            _join(placement, series, stored_series, index)
        if stored_series.estimate is not None:
            _join(
                placement,
                self._estimated_cost(raw, source_state, stored_series, now),
                stored_series,
            )

    def _add_first_estimate(
        self,
        placement: Placement,
        source_state: SourceState,
        stored_series: StoredSeries,
        now: float,
    ) -> None:
        """Add the estimated cost of a stored series that had no price when it was placed."""
        if stored_series.estimate is None or placement.has_estimate:
            return
        raw = self._naming.raw_attributes(source_state, stored_series)
        series = self._estimated_cost(raw, source_state, stored_series, now)
        if not series.has_point and not series.high_water_mark:
            # The usage was shown with its value, its cost was not shown yet.
            series.begins_at_zero = True
        _join(placement, series, stored_series)

    def _estimated_cost(
        self, raw: Attributes, source_state: SourceState, stored_series: StoredSeries, now: float
    ) -> AggregatedSeries:
        """Return the series of the estimated cost of a stored series."""
        attributes: Attributes = {**raw, "currency": CURRENCY}
        attributes.pop("user_id", None)
        key, attributes = self._find_key(_ESTIMATED_COST, attributes, stored_series, now, needed=1)
        series = self._live_series(_ESTIMATED_COST, key)
        if series is None:
            series = self._create(EstimatedSeries, _ESTIMATED_COST, key, attributes, source_state)
        return series

    def _find_key(
        self,
        instrument: str,
        raw: Attributes,
        stored_series: StoredSeries,
        now: float,
        *,
        needed: int,
    ) -> tuple[Key, Attributes]:
        """Return the series to join: its own, or the overflow series if the instrument is full."""
        if "operation" not in INSTRUMENTS[instrument].attributes:
            raw = {name: value for name, value in raw.items() if name != "operation"}
        attributes = self.policy.attributes(raw)
        key = attribute_key(attributes)
        overflows = self._capacity.is_overflow_member(instrument, stored_series.id)
        if not overflows and key not in self._series.setdefault(instrument, {}):
            overflows = not self._has_place(instrument, stored_series, now, needed)
            if overflows:
                self._capacity.add_overflow_member(instrument, stored_series.id)
        if overflows:
            attributes = self.policy.overflow(raw)
            key = attribute_key(attributes)
        return key, attributes

    def _live_series(self, instrument: str, key: Key) -> AggregatedSeries | None:
        """Return the live series, after making it live again if it is dormant."""
        series = self._series.setdefault(instrument, {}).get(key)
        if series is None and (instrument, key) in self._dormant:
            series = self._reactivate(instrument, key)
        return series

    def _create(
        self,
        series_type: type[AggregatedSeries],
        instrument: str,
        key: Key,
        attributes: Attributes,
        source_state: SourceState,
    ) -> AggregatedSeries:
        is_counter = INSTRUMENTS[instrument].kind == "counter"
        series = series_type(
            instrument=instrument,
            series=Series(attributes, source_state.progress.epoch * _NANO if is_counter else 0),
            floating=INSTRUMENTS[instrument].floating,
            from_zero=source_state.endpoint.from_zero,
            high_water_mark=self._marks.of(instrument, key),
        )
        self._series[instrument][key] = series
        return series

    def _mark_changed(self, series: Iterable[AggregatedSeries]) -> None:
        self._changed.update(dict.fromkeys(series))

    # --- capacity and dormancy

    def _has_place(
        self, instrument: str, stored_series: StoredSeries, now: float, needed: int
    ) -> bool:
        """Return whether a stored series gets series of its own, after making room if possible."""
        live = len(self._series[instrument])
        if self._capacity.has_place(instrument, stored_series.id, live, needed):
            return True
        if self._capacity.is_full(instrument, now):
            return False
        if self._make_room(instrument, now, self._capacity.batch(needed)):
            return True
        self._capacity.mark_full(instrument, now)
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
        silent = []
        for key, series in self._series[instrument].items():
            if series.changed >= since or series.state not in _MAY_BECOME_DORMANT:
                continue
            # After a rename, a series that is 0 first is not published again yet.
            is_still_zero = series.zero_since is not None and not series.may_show_value
            would_return_lower = series.high_water_mark > series.member_sum()
            if not (is_still_zero or would_return_lower or series.begins_at_zero):
                silent.append((key, series))
        return silent

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
        # It was shown before. Whoever joins it, it does not begin at 0.
        series.high_water_mark = series.value()
        self._series[instrument][key] = series
        self._changed[series] = None
        for stored_series, _ in series.members:
            placement = self._placements.setdefault(stored_series.id, Placement())
            placement.series += (series,)
            if placement.state is PlacementState.ABSENT:
                placement.move_to(PlacementState.PARTLY_DORMANT)  # its other series stay dormant
        return series

    # --- zero first

    def releasable(self, mono: float, attempted: int | None) -> list[StoredSeries]:
        """Return the stored series that may show their value. Store that, then call `release`.

        All series of such a stored series were 0 for long enough. A stored series that joined a sum
        late is in its other series for a shorter time than the sum was 0. `attempted` is the
        snapshot that OTLP last tried to send, None without OTLP.
        """
        unpublished = {series: None for series in self._changed if not series.may_show_value}
        ready = []
        not_ready = set()
        for series in self._zero_first | unpublished:
            if self._zero_is_over(series, mono, attempted):
                ready.append(series)
            else:
                not_ready.add(series)
        self._releasable = []
        found: dict[int, StoredSeries] = {}
        for series in ready:
            unreleased = [member for member, _ in series.members if not member.released]
            members = [
                member
                for member in unreleased
                if not_ready.isdisjoint(self._placements[member.id].series)
            ]
            found.update((member.id, member) for member in members)
            if members or len(unreleased) < len(series.members):
                self._releasable.append(series)
        return list(found.values())

    def _zero_is_over(self, series: AggregatedSeries, mono: float, attempted: int | None) -> bool:
        """Return whether a series was 0 for long enough, or need not be 0 at all."""
        nobody_misses_the_zero = not self.page_served and not series.from_zero
        if nobody_misses_the_zero:
            return not self.policy.skip_zero or bool(series.value())
        if series.zero_since is None:
            return False
        hold_is_over = mono - series.zero_since >= self.policy.zero_hold
        otlp_tried_to_send_it = attempted is None or attempted >= series.zero_version
        return hold_is_over and otlp_tried_to_send_it

    def release(self, stored: Iterable[StoredSeries]) -> None:
        """Show the values of what `releasable` returned last. The store has it."""
        for series in self._releasable:
            series.begins_at_zero = False
        self._mark_changed(self._releasable)
        self._releasable = []
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
        if not value and self.policy.skip_zero and not series.has_point:
            self._set_state(series, SeriesState.OMITTED)
            series.begins_at_zero = True
        elif series.may_show_value:
            self._set_state(series, SeriesState.SHOWN)
            self._points.set(series, series.number(value))
        else:
            self._set_state(series, SeriesState.ZERO_FIRST)
            if series.zero_since is None:
                series.zero_since = mono
                series.zero_version = version
            self._points.set(series, series.number(0))

    def _set_state(self, series: AggregatedSeries, state: SeriesState) -> None:
        if series.state is state:
            return
        series.move_to(state)
        if state is SeriesState.ZERO_FIRST:
            self._zero_first[series] = None
        else:
            self._zero_first.pop(series, None)

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


_MAY_BECOME_DORMANT = (SeriesState.UNPUBLISHED, SeriesState.SHOWN)


def _join(
    placement: Placement, series: AggregatedSeries, stored_series: StoredSeries, index: int = 0
) -> None:
    """Make a stored series a member of a series, unless it is one."""
    if series not in placement.series:
        series.members.append((stored_series, index))
        placement.series += (series,)
