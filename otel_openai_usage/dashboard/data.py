"""What the dashboard knows of one organization: its days as cubes, names, limits, and how fresh all
that is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from otel_openai_usage.dashboard.cube import DAY, Builder, Cube
from otel_openai_usage.dashboard.items import split
from otel_openai_usage.domain.endpoints import COSTS, STORED, USAGE_ENDPOINTS, Endpoint
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Limit, Names, floor
from otel_openai_usage.domain.source_state import Status

DIMENSIONS = ("project", "model", "key", "user", "operation", "customer")
COST_DIMENSIONS = ("project", "model", "key", "user", "charged", "currency")
_FIELDS = {"project": "project_id", "key": "api_key_id", "user": "user_id", "customer": "subject"}
_MONEY = ("cost", "quantity", "estimate")


class Past(Protocol):
    """The store, as far as the dashboard reads it. Every method raises StateError."""

    def sources(self, organization: str) -> Mapping[str, int]:
        """The ids of an organization's sources, by kind."""
        ...

    def statuses(self, organization: str) -> Sequence[Status]:
        """How far each source has come."""
        ...

    def first(self, organization: str) -> int | None:
        """The start of the oldest row."""
        ...

    def stored_series_list(
        self, source: int, endpoint: Endpoint
    ) -> Mapping[int, Mapping[str, str | None]]:
        """The attribute sets of a source, by id."""
        ...

    def rows(self, source: int, endpoint: Endpoint, since: int) -> Iterable[Sequence[float]]:
        """(attribute set, day, the kind's measures) from a day on; a day may come in several parts."""
        ...

    def estimates(self, source: int, since: int) -> Iterable[Sequence[float]]:
        """(attribute set, day, estimated cost) from a day on, where there is a price."""
        ...

    def names(self, organization: str) -> Names:
        """The names that are known."""
        ...

    def limits(self, organization: str) -> Sequence[Limit]:
        """The spend limits that OpenAI said last."""
        ...


@dataclass(frozen=True, eq=False)
class Data:
    """Everything shown of one organization. `first` is the oldest day; `now` when it was read.

    `usage` is OpenAI's own word, `metered` what applications told of their responses: two tellers
    of one fact, never added. Where OpenAI's own is not read, legacy rows stand in for it, and else
    what was metered.
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
    currencies: tuple[str, ...] = field(default=("usd",))

    @property
    def told(self) -> bool:
        """Whether there is nothing but what applications told."""
        return self.usage is self.metered and bool(self.metered.amounts)

    @property
    def currency(self) -> str:
        """The currency of the bill; others are told of, never added."""
        return self.currencies[0]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show yet."""
        return not (self.usage.amounts or self.costs.amounts)

    @cached_property
    def billed_until(self) -> int | None:
        """The end of the newest day that was billed, as far as it was yet."""
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
        """How a value of a dimension is called."""
        if value is None:
            return {"key": "no API key", "user": "no user", "project": "no project"}.get(
                dimension, "other"
            )
        known = {
            "project": self.names.projects,
            "key": self.names.api_keys,
            "user": self.names.users,
        }.get(dimension, {})
        return known.get(value) or value or "no name"

    @cached_property
    def options(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """What can be filtered by, as (value, name), by name."""
        found: dict[str, set[str | None]] = {name: set() for name in DIMENSIONS}
        for cube in (self.usage, self.metered, self.costs):
            for name in found.keys() & cube.columns.keys():
                found[name].update(cube.columns[name].values)
        named = {
            name: [(value, self.label(name, value)) for value in values if value is not None]
            for name, values in found.items()
        }
        return {
            name: sorted(options, key=lambda option: option[1].casefold())
            for name, options in named.items()
        }

    def bills(self, dimension: str) -> bool:
        """Whether the bill tells a dimension."""
        column = self.costs.columns.get(dimension)
        return column is not None and (
            dimension == "model" or any(value is not None for value in column.values)
        )


def _until(cube: Cube, measure: str) -> int | None:
    if measure not in cube.amounts:
        return None
    days = np.flatnonzero(cube.amounts[measure].any(axis=0))
    return cube.start + (int(days[-1]) + 1) * DAY if len(days) else None


def read(past: Past, organization: str, now: float, years: float = 2.0) -> Data:
    """Everything of the last two years. Raises StateError."""
    today = floor(int(now), DAY)
    oldest = past.first(organization)
    sources = past.sources(organization)
    first = None if oldest is None else max(floor(oldest, DAY), today - int(years * 365) * DAY)
    start = today if first is None else first
    days = (today - start) // DAY + 1
    usage = _usage(past, sources, start, days, USAGE_ENDPOINTS)
    legacy = not usage.amounts and "legacy" in sources
    if legacy:
        usage = _usage(past, sources, start, days, {"legacy": STORED["legacy"]})
    metered = _usage(past, sources, start, days, {"metered": METERED})
    usage = usage if usage.amounts else metered
    costs, currencies = _costs(past, sources, start, days)
    known = past.names(organization), past.limits(organization), list(past.statuses(organization))
    return Data(organization, usage, metered, costs, *known, first, now, legacy, currencies)


def _usage(
    past: Past, sources: Mapping[str, int], start: int, days: int, endpoints: Mapping[str, Endpoint]
) -> Cube:
    builder = Builder(DIMENSIONS, start, days, _MONEY)
    for name, endpoint in endpoints.items():
        if name not in sources or endpoint.level:
            continue
        stored_series_list = {
            id_: _stored_series(stored_series, None if endpoint is METERED else name)
            for id_, stored_series in past.stored_series_list(sources[name], endpoint).items()
        }
        places = builder.add(
            stored_series_list,
            past.rows(sources[name], endpoint, start),
            [measure.name for measure in endpoint.measures],
        )
        builder.more(
            places,
            ((*row, 1) for row in past.estimates(sources[name], start)),
            ("estimate", "priced"),
        )
    cube = builder.build()
    priced = cube.amounts.get("priced")
    if priced is None:
        return cube
    tokens = np.zeros(priced.shape, dtype=np.int64)
    for name in ("input", "output"):
        tokens += cube.amounts[name].astype(np.int64) if name in cube.amounts else 0
    return replace(cube, amounts={**cube.amounts, "unpriced": np.where(priced > 0, 0, tokens)})


def _stored_series(
    stored_series: Mapping[str, str | None], endpoint: str | None
) -> Mapping[str, str | None]:
    operation = stored_series.get("operation") or endpoint
    found = {name: stored_series.get(field) for name, field in _FIELDS.items()}
    return {
        **found,
        "operation": operation,
        "model": stored_series.get("model") or (operation.replace("_", " ") if operation else None),
    }


def _costs(
    past: Past, sources: Mapping[str, int], start: int, days: int
) -> tuple[Cube, tuple[str, ...]]:
    builder = Builder(COST_DIMENSIONS, start, days, _MONEY)
    if COSTS.name in sources:
        stored_series_list = {
            id_: _charge(stored_series)
            for id_, stored_series in past.stored_series_list(sources[COSTS.name], COSTS).items()
        }
        builder.add(
            stored_series_list,
            past.rows(sources[COSTS.name], COSTS, start),
            [measure.name for measure in COSTS.measures],
        )
    cube = builder.build()
    if "cost" not in cube.amounts:
        return cube, ("usd",)
    column = cube.columns["currency"]
    sums = column.summed(cube.amounts["cost"].sum(axis=1, keepdims=True), None)[:, 0]
    ranked = tuple(column.values[place] or "usd" for place in sums.argsort()[::-1])
    main = column.among([ranked[0]])
    columns = {name: replace(each, codes=each.codes[main]) for name, each in cube.columns.items()}
    return Cube(
        cube.start, cube.days, columns, {name: rows[main] for name, rows in cube.amounts.items()}
    ), ranked


def _charge(stored_series: Mapping[str, str | None]) -> Mapping[str, str | None]:
    item = split(stored_series.get("line_item"))
    found = {name: stored_series.get(field) for name, field in _FIELDS.items()}
    return {
        **found,
        "model": item.label,
        "charged": item.charged,
        "currency": stored_series.get("currency") or "usd",
    }
