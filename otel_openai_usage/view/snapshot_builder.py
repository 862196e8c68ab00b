"""Builds the snapshot: the series of the counters, and the gauges beside them."""

from collections.abc import Iterable, Mapping, Sequence

from otel_openai_usage.domain.budgets import Balance, BudgetState
from otel_openai_usage.domain.commits import Delta
from otel_openai_usage.domain.legacy_day import COUNTERS, Shown
from otel_openai_usage.domain.metered import Share
from otel_openai_usage.domain.model import NO_NAMES, KeyTimes, Limit, Names, RateLimit
from otel_openai_usage.domain.month_costs import MonthCosts
from otel_openai_usage.domain.series_marks import HighWaterMark, OverflowMember
from otel_openai_usage.domain.snapshot import Point, Snapshot
from otel_openai_usage.domain.source_state import SourceState, Status
from otel_openai_usage.domain.unusual import Score
from otel_openai_usage.view import management_gauges
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.gauges import (
    BALANCE,
    BALANCE_ENDS,
    BUDGET,
    BUDGET_FORECAST,
    BUDGET_SPENT,
    COVERAGE,
    UNMETERED,
    GaugeRow,
    GaugeTable,
    balances,
    budgets,
    coverage,
    daily_cost,
    days_shown,
    legacy_counters,
    levels,
    month_cost,
    month_forecast,
    spend_limits,
    unusual_costs,
)
from otel_openai_usage.view.series import continue_all
from otel_openai_usage.view.series_index import SeriesIndex

RESTATED = "otel_openai_usage.restated_pending"

_LEVEL = "openai.api.vector_store.usage"
_DAILY_COST = "openai.api.daily_cost"
_SPEND_LIMIT = "openai.api.spend_limit"
_SPEND_LIMIT_ENFORCING = "openai.api.spend_limit_enforcing"
_MONTH = "openai.api.cost_month"
_LAST_MONTH = "openai.api.cost_last_month"
_FORECAST = "openai.api.cost_month_forecast"
_UNUSUAL = "openai.api.cost_unusual"
_UP = "openai.api.up"
_LAST_SUCCESS = "openai.api.last_success"
_NEWEST_BUCKET = "openai.api.newest_bucket"
_LEGACY = "legacy"
_LEGACY_UP = "chatgpt_api_usage.up"
_GAUGES = (
    UNMETERED,
    COVERAGE,
    _LEVEL,
    RESTATED,
    _LEGACY_UP,
    *COUNTERS,
    _DAILY_COST,
    _SPEND_LIMIT,
    _SPEND_LIMIT_ENFORCING,
    *management_gauges.INSTRUMENTS,
    _MONTH,
    _LAST_MONTH,
    _FORECAST,
    BUDGET,
    BUDGET_SPENT,
    BUDGET_FORECAST,
    BALANCE,
    BALANCE_ENDS,
    _UNUSUAL,
    _UP,
    _LAST_SUCCESS,
    _NEWEST_BUCKET,
)
_NANO = 1_000_000_000


class SnapshotBuilder:
    """Takes what changed, and builds the next snapshot.

    `cost_days` is how many UTC days the daily cost has. `organization_ids` are configured, by
    organization; an id that a source read comes first. `now` is in Unix seconds. `mono` is in
    seconds, of a clock that never steps.
    """

    def __init__(
        self,
        policy: AttributePolicy,
        overflow_members: Iterable[OverflowMember] = (),
        high_water_marks: Iterable[HighWaterMark] = (),
        *,
        cost_days: int = 2,
        organization_ids: Mapping[str, str] | None = None,
    ) -> None:
        self.series_index = SeriesIndex(policy, overflow_members, high_water_marks)
        self._policy = policy
        self._cost_days = cost_days
        self._organization_ids = dict(organization_ids or {})
        self._source_states: list[SourceState] = []
        self._names: dict[str, Names] = {}
        self._limits: dict[str, Sequence[Limit]] = {}
        self._months: dict[str, MonthCosts] = {}
        self._unusual: Mapping[str, Sequence[Score]] = {}
        self._budgets: Sequence[BudgetState] = ()
        self._balances: Sequence[Balance] = ()
        self._rates: dict[str, Sequence[RateLimit]] = {}
        self._keys: dict[str, Sequence[KeyTimes]] = {}
        self.left_out: dict[str, int] = {}
        """By instrument, how many series of the last snapshot could not be told apart."""
        self._statuses: list[Status] = []
        self._shares: Sequence[Share] = ()
        self._legacy: Shown | None = None
        self._tables = {name: GaugeTable() for name in _GAUGES}
        self._published: dict[str, Sequence[Point]] = {}
        self._version = 0

    def load(
        self,
        source_states: Iterable[SourceState],
        names: Mapping[str, Names],
        now: float,
        mono: float | None = None,
    ) -> list[OverflowMember]:
        """Build everything from the stored state. Return what the store must remember first."""
        self._source_states = list(source_states)
        self._names = dict(names)
        return self.series_index.load(self._source_states, self._names, now, mono)

    def replace(
        self,
        source_states: Iterable[SourceState],
        names: Mapping[str, Names],
        now: float,
        mono: float | None = None,
    ) -> list[OverflowMember]:
        """Show these sources from now on, and no names, limits and statuses of other organizations.

        `names` are of organizations that are new. Return what the store must remember first.
        """
        known = self._source_states
        self._source_states = list(source_states)
        self._names |= names
        opened = frozenset(self._source_states).difference(known)
        places = self.series_index.places()
        overflow_members = self.series_index.load(
            self._source_states, self._names, now, mono, opened
        )
        continue_all(places, self.series_index.places())
        return overflow_members

    def leave_out(self, organization: str) -> None:
        """Show nothing of an organization beside its sources."""
        self._names.pop(organization, None)
        self._limits.pop(organization, None)
        self._rates.pop(organization, None)
        self._keys.pop(organization, None)
        self._months.pop(organization, None)
        self._statuses = [
            status
            for status in self._statuses
            if status.organization != organization or status.source == _LEGACY
        ]

    def leave_out_legacy(self) -> None:
        """Show nothing of the legacy source."""
        self._legacy = None
        self._statuses = [status for status in self._statuses if status.source != _LEGACY]

    def apply(self, delta: Delta, now: float, mono: float | None = None) -> list[OverflowMember]:
        """Show what a commit created or updated. Return what the store must remember first.

        A source is shown after its first reading is complete, as a whole.
        """
        overflow_members: list[OverflowMember] = []
        if delta.source_state.progress.complete:
            for stored_series in delta.series:
                overflow_members += self.series_index.add(
                    delta.source_state, stored_series, now, mono
                )
        return overflow_members

    def apply_names(
        self, organization: str, names: Names, now: float, mono: float | None = None
    ) -> tuple[list[OverflowMember], list[HighWaterMark]]:
        """Show the names of an organization. Return what the store must remember first."""
        self._names[organization] = names
        return self.series_index.rename(self._names, now, mono)

    def names_of(self, organization: str) -> Names:
        """Return the names that are shown."""
        return self._names.get(organization, NO_NAMES)

    def apply_limits(self, organization: str, limits: Sequence[Limit]) -> None:
        """Show the spend limits of an organization."""
        self._limits[organization] = limits

    def apply_rates(self, organization: str, rates: Sequence[RateLimit]) -> None:
        """Show the rate limits of an organization's projects."""
        self._rates[organization] = rates

    def apply_keys(self, organization: str, keys: Sequence[KeyTimes]) -> None:
        """Show the times of an organization's API keys."""
        self._keys[organization] = keys

    def limits_of(self, organization: str) -> Sequence[Limit] | None:
        """Return the spend limits that are shown, None before the first ones."""
        return self._limits.get(organization)

    def apply_month(self, organization: str, costs: MonthCosts) -> None:
        """Show what this month and the last one cost."""
        self._months[organization] = costs

    def apply_budgets(self, states: Sequence[BudgetState], balances: Sequence[Balance]) -> None:
        """Show these budgets and balances."""
        self._budgets = states
        self._balances = balances

    def apply_unusual(self, scores: Mapping[str, Sequence[Score]]) -> None:
        """Show how unusual today's cost is, by organization."""
        self._unusual = scores

    def apply_shares(self, shares: Sequence[Share]) -> None:
        """Show how much of the day's usage events explain."""
        self._shares = shares

    def apply_legacy(self, shown: Shown | None) -> None:
        """Show these sums of the legacy counters."""
        self._legacy = shown

    def add_status(self, status: Status) -> None:
        """Show a status from now on. Its owner updates it; each snapshot has it as it is then."""
        self._statuses.append(status)

    def snapshot(self, now: float, mono: float) -> Snapshot | None:
        """Return the next snapshot, or None if it would equal the last one."""
        points: dict[str, Sequence[Point]] = {}
        points.update(self.series_index.points(mono, self._version + 1))
        for name, rows in self._gauge_rows(int(now)).items():
            points[name] = self._tables[name].update(rows, self._start(name))
        if self._is_published(points):
            return None
        self._published = points
        self._version += 1
        return Snapshot(self._version, int(now * _NANO), points)

    def _is_published(self, points: Mapping[str, Sequence[Point]]) -> bool:
        """Return whether the last snapshot had the same lists. Equal lists are the same object."""
        if points.keys() != self._published.keys():
            return False
        return all(points[name] is self._published[name] for name in points)

    def _start(self, name: str) -> int:
        """Return when the counting of a row began, in Unix nanoseconds; 0 for a gauge."""
        if self._legacy and name in COUNTERS:
            return self._legacy.day * _NANO
        return 0

    def _gauge_rows(self, now: int) -> dict[str, list[GaugeRow]]:
        rows: dict[str, list[GaugeRow]] = {name: [] for name in _GAUGES}
        for source_state in self._source_states:
            self._add_source(rows, source_state, now)
            self._add_status(rows, source_state.status)
        for organization, limits in self._limits.items():
            names = self.names_of(organization)
            amounts, enforcing = spend_limits(organization, limits, names, self._policy)
            rows[_SPEND_LIMIT] += amounts
            rows[_SPEND_LIMIT_ENFORCING] += enforcing
        for organization, months in self._months.items():
            names = self.names_of(organization)
            rows[_MONTH] += month_cost(organization, months.this_month or (), names, self._policy)
            rows[_LAST_MONTH] += month_cost(
                organization, months.last_month or (), names, self._policy
            )
            rows[_FORECAST] += month_forecast(organization, months.forecasts, names, self._policy)
        for organization, scores in self._unusual.items():
            names = self.names_of(organization)
            rows[_UNUSUAL] += unusual_costs(organization, scores, names, self._policy)
        rows.update(budgets(self._budgets, self._policy))
        rows.update(balances(self._balances, self._policy))
        self._add_management(rows)
        for status in self._statuses:
            self._add_status(rows, status)
        rows.update(coverage(self._shares, self._policy))
        self._add_restated(rows)
        if self._legacy:
            rows.update(legacy_counters(self._legacy, self._policy))
        return rows

    def _add_source(
        self, rows: dict[str, list[GaugeRow]], source_state: SourceState, now: int
    ) -> None:
        """Add the gauges of one source: its level, or its cost by day."""
        names = self.names_of(source_state.organization)
        if source_state.endpoint.level:
            rows[_LEVEL] += levels(source_state, names, self._policy, now)
        if not source_state.days:
            return
        days = {}
        for day in days_shown(now, self._cost_days):
            if day in source_state.days:
                days[day] = source_state.days[day]
        organization_id = source_state.organization_id
        if not organization_id:
            organization_id = self._organization_ids.get(source_state.organization)
        rows[_DAILY_COST] += daily_cost(
            source_state, days, names, self._policy, organization_id, now
        )

    def _add_management(self, rows: dict[str, list[GaugeRow]]) -> None:
        """Add the gauges of keys and rate limits."""
        for organization, rates in self._rates.items():
            names = self.names_of(organization)
            found = management_gauges.rate_limits(organization, rates, names, self._policy)
            rows[management_gauges.RATE_LIMIT] += found
        for organization, keys in self._keys.items():
            names = self.names_of(organization)
            times = management_gauges.key_times(organization, keys, names, self._policy)
            for name, some in times.items():
                rows[name] += some
        for name in management_gauges.INSTRUMENTS:
            rows[name], self.left_out[name] = management_gauges.alone(rows[name])

    def _add_restated(self, rows: dict[str, list[GaugeRow]]) -> None:
        for instrument, pending in self.series_index.restated_pending().items():
            for attributes, amount in pending:
                row = ({"instrument": instrument, **attributes}, float(amount))
                rows[RESTATED].append(row)

    def _add_status(self, rows: dict[str, list[GaugeRow]], status: Status) -> None:
        raw = {"organization": status.organization, "source": status.source}
        attributes = self._policy.attributes({**raw})
        if status.up is not None:
            rows[_UP].append((attributes, int(status.up)))
            if status.source == _LEGACY:
                rows[_LEGACY_UP].append(({}, int(status.up)))
        if status.last_success:
            rows[_LAST_SUCCESS].append((attributes, float(status.last_success)))
        if status.newest_bucket:
            rows[_NEWEST_BUCKET].append((attributes, float(status.newest_bucket)))
