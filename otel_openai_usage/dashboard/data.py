"""The data of one organization that the dashboard shows: its days as cubes, names, limits, and how
fresh they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from otel_openai_usage.dashboard import budget_states
from otel_openai_usage.dashboard.allocated import allocated
from otel_openai_usage.dashboard.budget_states import NO_BUDGETS, BudgetPlan
from otel_openai_usage.dashboard.cube import DAY, Builder, Column, Cube
from otel_openai_usage.dashboard.items import split
from otel_openai_usage.domain.budgets import BudgetState
from otel_openai_usage.domain.endpoints import COSTS, LEGACY, USAGE_ENDPOINTS, Endpoint
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Limit, Names, floor
from otel_openai_usage.domain.pseudonyms import NO_PSEUDONYMS, Pseudonyms
from otel_openai_usage.domain.source_state import Status
from otel_openai_usage.storage.ports import Queries
from otel_openai_usage.storage.results import StoredSource

DIMENSIONS = ("project", "model", "key", "user", "operation", "customer")
COST_DIMENSIONS = ("project", "model", "key", "user", "charged", "currency")
_FIELDS = {"project": "project_id", "key": "api_key_id", "user": "user_id", "customer": "subject"}
_FLOATING = ("cost", "quantity", "estimate")
_WITHOUT_ID = {"key": "no API key", "user": "no user", "project": "no project"}
_DEFAULT_CURRENCY = "usd"
_Attributes: TypeAlias = Mapping[str, str | None]


@dataclass(frozen=True, eq=False)
class Data:
    """Everything shown of one organization. `first` is the oldest day; `now` when it was read.

    `usage` is what OpenAI reports, `metered` what applications reported of their responses: two
    sources for one fact, never added. Where OpenAI's usage is not read, legacy rows stand in for
    it, and without these the metered usage.
    """

    organization: str
    usage: Cube
    metered: Cube
    costs: Cube
    names: Names
    limits: Sequence[Limit]
    statuses: Sequence[Status]
    first: int | None
    now: float
    legacy: bool = False
    budgets: Sequence[BudgetState] = ()
    currencies: tuple[str, ...] = field(default=(_DEFAULT_CURRENCY,))

    @property
    def only_metered(self) -> bool:
        """Whether all usage is what applications reported."""
        return self.usage is self.metered and bool(self.metered.amounts)

    @property
    def currency(self) -> str:
        """The currency of most of the bill. The page names the others, and never adds them."""
        return self.currencies[0]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show yet."""
        return not (self.usage.amounts or self.costs.amounts)

    @cached_property
    def costs_by_customer(self) -> Cube:
        """What was billed, divided among the customers whose events explain it.

        Without events nobody is a customer.
        """
        if "requests" not in self.metered.amounts or "cost" not in self.costs.amounts:
            return self.costs
        usage = self.usage
        if self.only_metered:
            usage = replace(usage, amounts={})
        return allocated(self.costs, usage, self.metered)

    @cached_property
    def billed_until(self) -> int | None:
        """The end of the newest day with a cost, even if more of that day will be billed."""
        return _until(self.costs, "cost")

    @cached_property
    def used_until(self) -> int | None:
        """The end of the newest day with a request."""
        return _until(self.usage, "requests")

    @property
    def settled(self) -> int:
        """Days before this one are over and billed."""
        today = floor(int(self.now), DAY)
        return min(today, self.billed_until or today)

    def label(self, dimension: str, value: str | None) -> str:
        """The name of a value of a dimension."""
        if value is None:
            return _WITHOUT_ID.get(dimension, "other")
        return self._names_of(dimension).get(value) or value or "no name"

    def _names_of(self, dimension: str) -> Mapping[str, str | None]:
        """Names by id; empty for a dimension whose values are names already."""
        if dimension == "project":
            return self.names.projects
        if dimension == "key":
            return self.names.api_keys
        if dimension == "user":
            return self.names.users
        return {}

    @cached_property
    def options(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """The values to filter by, as (value, name) in order of their names, by dimension."""
        return {dimension: self._options_of(dimension) for dimension in DIMENSIONS}

    def _options_of(self, dimension: str) -> Sequence[tuple[str, str]]:
        values: set[str | None] = set()
        for cube in (self.usage, self.metered, self.costs):
            if dimension in cube.columns:
                values.update(cube.columns[dimension].values)
        values.discard(None)
        options = [(value, self.label(dimension, value)) for value in values if value is not None]
        return sorted(options, key=lambda option: option[1].casefold())

    def bills(self, dimension: str, costs: Cube | None = None) -> bool:
        """Whether the bill knows a dimension. `costs` is the bill by customer, if that is asked."""
        column = (costs or self.costs).columns.get(dimension)
        if column is None:
            return False
        # A line item without a model still has a label of its own.
        return dimension == "model" or any(value is not None for value in column.values)


def _until(cube: Cube, measure: str) -> int | None:
    """The end of the newest day that is not 0; None without any."""
    if measure not in cube.amounts:
        return None
    has_amount = cube.amounts[measure].any(axis=0)
    days = np.flatnonzero(has_amount)
    if not len(days):
        return None
    return cube.start + (int(days[-1]) + 1) * DAY


def read(
    queries: Queries,
    organization: str,
    now: float,
    years: float = 2.0,
    *,
    pseudonyms: Pseudonyms = NO_PSEUDONYMS,
    plan: BudgetPlan = NO_BUDGETS,
) -> Data:
    """Everything of the last years. Raises StateError."""
    today = floor(int(now), DAY)
    earliest = today - int(years * 365) * DAY
    span = queries.span(organization)
    first = None if span is None else max(floor(span[0], DAY), earliest)
    sources = {
        source.endpoint.name: source
        for source in queries.sources()
        if source.organization == organization
    }
    reader = _CubeReader(
        queries,
        sources=sources,
        start=today if first is None else first,
        today=today,
        pseudonyms=pseudonyms,
    )
    usage = reader.usage(USAGE_ENDPOINTS)
    is_legacy = not usage.amounts and LEGACY.name in reader.sources
    if is_legacy:
        usage = reader.usage({LEGACY.name: LEGACY})
    metered = reader.usage({METERED.name: METERED})
    # What applications reported is better than an empty page.
    if not usage.amounts:
        usage = metered
    costs, currencies = reader.costs()
    limits = queries.limits(organization)
    return Data(
        budgets=budget_states.read(queries, organization, limits, plan, now, first),
        organization=organization,
        usage=usage,
        metered=metered,
        costs=costs,
        names=queries.names(organization),
        limits=limits,
        statuses=[_status(source) for source in sources.values()],
        first=first,
        now=now,
        legacy=is_legacy,
        currencies=currencies,
    )


def _status(source: StoredSource) -> Status:
    return Status(
        source.organization,
        source.endpoint.name,
        up=None,
        last_success=source.last_success,
        newest_bucket=source.newest_bucket,
    )


class _CubeReader:
    """Reads the days from `start` to `today` of one organization's sources. Raises StateError."""

    def __init__(
        self,
        queries: Queries,
        *,
        sources: Mapping[str, StoredSource],
        start: int,
        today: int,
        pseudonyms: Pseudonyms = NO_PSEUDONYMS,
    ) -> None:
        self._pseudonyms = pseudonyms
        self.sources = sources
        self._queries = queries
        self._start = start
        self._days = (today - start) // DAY + 1

    def usage(self, endpoints: Mapping[str, Endpoint]) -> Cube:
        """The usage of these endpoints, with estimates and unpriced tokens where it was priced."""
        builder = Builder(DIMENSIONS, self._start, self._days, _FLOATING)
        for name, endpoint in endpoints.items():
            # A level, such as bytes of vector stores, is not usage and cannot be added up.
            if name in self.sources and not endpoint.level:
                self._add_usage(builder, endpoint)
        return _with_unpriced(builder.build())

    def _add_usage(self, builder: Builder, endpoint: Endpoint) -> None:
        source = self.sources[endpoint.name]
        stored = self._attribute_sets(source)
        # The operation of an event is one of its attributes.
        operation = None if endpoint is METERED else endpoint.name
        attribute_sets = {id_: _usage_attributes(each, operation) for id_, each in stored.items()}
        rows = self._queries.daily_sums(source, self._start)
        measures = [measure.name for measure in endpoint.measures]
        indexes = builder.add(attribute_sets, rows, measures)
        builder.add_rows(indexes, self._estimates(source), ("estimate", "priced"))

    def _attribute_sets(self, source: StoredSource) -> Mapping[int, _Attributes]:
        """The attribute sets of a source by id, as they are shown."""
        stored = self._queries.attribute_sets(source)
        if not self._pseudonyms.hashed:
            return stored
        return {id_: self._shown(each) for id_, each in stored.items()}

    def _shown(self, stored: _Attributes) -> _Attributes:
        of = self._pseudonyms.of
        return {name: None if value is None else of(name, value) for name, value in stored.items()}

    def _estimates(self, source: StoredSource) -> Iterator[Sequence[float]]:
        """(attribute set, day, estimated cost, 1 for a price)."""
        for row in self._queries.daily_estimates(source, self._start):
            yield (*row, 1)

    def costs(self) -> tuple[Cube, tuple[str, ...]]:
        """What was billed in the main currency, and all currencies, the main one first."""
        builder = Builder(COST_DIMENSIONS, self._start, self._days, _FLOATING)
        source = self.sources.get(COSTS.name)
        if source is not None:
            stored = self._attribute_sets(source)
            attribute_sets = {id_: _cost_attributes(each) for id_, each in stored.items()}
            rows = self._queries.daily_sums(source, self._start)
            measures = [measure.name for measure in COSTS.measures]
            builder.add(attribute_sets, rows, measures)
        cube = builder.build()
        if "cost" not in cube.amounts:
            return cube, (_DEFAULT_CURRENCY,)
        currencies = _currencies(cube)
        # Amounts in several currencies cannot be added.
        return _only_currency(cube, currencies[0]), currencies


def _with_unpriced(cube: Cube) -> Cube:
    """The cube with the tokens of days that have no price, if any has one."""
    priced = cube.amounts.get("priced")
    if priced is None:
        return cube
    tokens = np.zeros(priced.shape, dtype=np.int64)
    for name in ("input", "output"):
        if name in cube.amounts:
            tokens += cube.amounts[name].astype(np.int64)
    unpriced = np.where(priced > 0, 0, tokens)
    return replace(cube, amounts={**cube.amounts, "unpriced": unpriced})


def _usage_attributes(stored: _Attributes, endpoint_name: str | None) -> _Attributes:
    """The dashboard's dimensions of a stored attribute set of usage."""
    attributes = _ids(stored)
    operation = stored.get("operation") or endpoint_name
    model = stored.get("model")
    if operation in _TOOLS:
        # A tool call is a line of its own on the bill, whichever model made it.
        return {**attributes, "operation": operation, "model": _TOOLS[operation]}
    if not model and operation:
        # Usage without a model, such as that of sessions, goes by its operation.
        model = operation.replace("_", " ")
    return {**attributes, "operation": operation, "model": model or None}


_TOOLS = {
    "code_interpreter_sessions": "code interpreter sessions",
    "file_search_calls": "file search tool calls",
    "web_search_calls": "web search tool calls",
}
"""The endpoints whose usage has a price of its own, and OpenAI's line items for them."""


def _cost_attributes(stored: _Attributes) -> _Attributes:
    """The dashboard's dimensions of a stored attribute set of costs."""
    item = split(stored.get("line_item"))
    currency = stored.get("currency") or _DEFAULT_CURRENCY
    return {
        **_ids(stored),
        "model": item.label,
        "charged": item.charged,
        "currency": currency,
    }


def _ids(stored: _Attributes) -> dict[str, str | None]:
    return {name: stored.get(field_) for name, field_ in _FIELDS.items()}


def _currencies(cube: Cube) -> tuple[str, ...]:
    """The currencies of the bill, the one with the highest sum first."""
    column = cube.columns["currency"]
    costs = cube.amounts["cost"].sum(axis=1, keepdims=True)
    sums = column.summed(costs, None)[:, 0]
    ranked = sums.argsort()[::-1]
    return tuple(column.values[index] or _DEFAULT_CURRENCY for index in ranked)


def _only_currency(cube: Cube, currency: str) -> Cube:
    """The part of the cube in one currency."""
    mask = cube.columns["currency"].among([currency])
    columns = {name: Column(each.values, each.codes[mask]) for name, each in cube.columns.items()}
    amounts = {name: rows[mask] for name, rows in cube.amounts.items()}
    return Cube(cube.start, cube.days, columns, amounts)
