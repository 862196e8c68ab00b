"""Everything that is shown, gathered into one Snapshot."""

from collections.abc import Iterable, Mapping, Sequence

from otel_openai_usage.domain.legacy_day import COUNTERS, Shown
from otel_openai_usage.domain.metered import Share
from otel_openai_usage.domain.model import NO_NAMES, Limit, Names
from otel_openai_usage.domain.series_marks import Attributes, HighWaterMark, OverflowMember
from otel_openai_usage.domain.snapshot import Point, Snapshot
from otel_openai_usage.domain.source_state import SourceState, Status, StoredSeries
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.gauges import (
    COVERAGE,
    UNMETERED,
    GaugeTable,
    coverage,
    daily_cost,
    days_shown,
    legacy_counters,
    levels,
    spend_limits,
)
from otel_openai_usage.view.series_index import SeriesIndex


class SnapshotBuilder:
    """The shape of the books, and the small tables beside it. `ids` are organization ids from the
    configuration.
    """

    def __init__(
        self,
        policy: AttributePolicy,
        folded: Iterable[OverflowMember] = (),
        floors: Iterable[HighWaterMark] = (),
        *,
        cost_days: int = 2,
        ids: Mapping[str, str] | None = None,
    ) -> None:
        self.series_index = SeriesIndex(policy, folded, floors)
        self.names: dict[str, Names] = {}
        self.limits: dict[str, Sequence[Limit]] = {}
        self.shares: Sequence[Share] = ()
        self.statuses: list[Status] = []
        self.legacy: Shown | None = None
        self._source_states: list[SourceState] = []
        self._cost_days = cost_days
        self._ids = dict(ids or {})
        self._tables = {name: GaugeTable() for name in _TABLES}
        self._shown: dict[str, Sequence[Point]] = {}
        self._version = 0

    def load(
        self,
        source_states: Iterable[SourceState],
        names: Mapping[str, Names],
        now: float,
        mono: float | None = None,
    ) -> list[OverflowMember]:
        """Begin anew with these books and names. What must be folded on the way is returned, to be
        kept first. `now` and `mono` as for Shape.
        """
        self._source_states = list(source_states)
        self.names = dict(names)
        return self.series_index.load(self._source_states, self.names, now, mono)

    def apply(
        self,
        source_state: SourceState,
        stored_series_list: Iterable[StoredSeries],
        now: float,
        mono: float | None = None,
    ) -> list[OverflowMember]:
        """A reading made or moved these leaves."""
        return (
            [
                fold
                for stored_series in stored_series_list
                for fold in self.series_index.add(source_state, stored_series, now, mono)
            ]
            if source_state.progress.complete
            else []
        )

    def named(
        self, organization: str, names: Names, now: float, mono: float | None = None
    ) -> tuple[list[OverflowMember], list[HighWaterMark]]:
        """Names were read."""
        self.names[organization] = names
        return self.series_index.rename(self.names, now, mono)

    def snapshot(self, now: float, mono: float) -> Snapshot | None:
        """What is to be shown now; None if that is what already is. `mono` is a clock that never
        steps, in seconds.
        """
        points: dict[str, Sequence[Point]] = dict(self.series_index.points(mono, self._version + 1))
        for name, rows in self._rows(int(now)).items():
            points[name] = self._tables[name].update(
                rows, self.legacy.day * _NANO if self.legacy and name in COUNTERS else 0
            )
        if points.keys() == self._shown.keys() and all(
            points[name] is self._shown[name] for name in points
        ):
            return None
        self._shown = points
        self._version = self._version + 1
        return Snapshot(self._version, int(now * 1_000_000_000), points)

    def _rows(self, now: int) -> dict[str, list[tuple[Attributes, int | float]]]:
        rows: dict[str, list[tuple[Attributes, int | float]]] = {name: [] for name in _TABLES}
        days = days_shown(now, self._cost_days)
        policy = self.series_index.policy
        for source_state in self._source_states:
            names = self.names.get(source_state.organization, NO_NAMES)
            if source_state.days:
                shown = {day: source_state.days[day] for day in days if day in source_state.days}
                id_ = source_state.organization_id or self._ids.get(source_state.organization)
                rows["openai.api.daily_cost"] += daily_cost(
                    source_state, shown, names, policy, id_, now
                )
            if source_state.endpoint.level:
                rows[LEVEL] += levels(source_state, names, policy, now)
        for organization, limits in self.limits.items():
            amounts, enforcing = spend_limits(
                organization, limits, self.names.get(organization, NO_NAMES), policy
            )
            rows["openai.api.spend_limit"] += amounts
            rows["openai.api.spend_limit_enforcing"] += enforcing
        rows |= coverage(self.shares, policy)
        self._add_statuses(rows)
        for instrument, pending in self.series_index.restated_pending().items():
            rows[RESTATED] += [
                ({"instrument": instrument, **attributes}, float(value))
                for attributes, value in pending
            ]
        if self.legacy:
            rows |= legacy_counters(self.legacy, policy)
        return rows

    def _add_statuses(self, rows: dict[str, list[tuple[Attributes, int | float]]]) -> None:
        for status in (
            *(source_state.status for source_state in self._source_states),
            *self.statuses,
        ):
            who = self.series_index.policy.attributes(
                {"organization": status.organization, "source": status.source}
            )
            if status.up is not None:
                rows["openai.api.up"].append((who, int(status.up)))
                if status.source == "legacy":
                    rows[LEGACY_UP].append(({}, int(status.up)))
            if status.last_success:
                rows["openai.api.last_success"].append((who, float(status.last_success)))
            if status.newest_bucket:
                rows["openai.api.newest_bucket"].append((who, float(status.newest_bucket)))


_NANO = 1_000_000_000
LEGACY_UP = "chatgpt_api_usage.up"
RESTATED = "otel_openai_usage.restated_pending"
LEVEL = "openai.api.vector_store.usage"
_TABLES = (
    UNMETERED,
    COVERAGE,
    LEVEL,
    RESTATED,
    LEGACY_UP,
    *COUNTERS,
    "openai.api.daily_cost",
    "openai.api.spend_limit",
    "openai.api.spend_limit_enforcing",
    "openai.api.up",
    "openai.api.last_success",
    "openai.api.newest_bucket",
)
