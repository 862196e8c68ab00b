"""What the costs endpoint knows: the bill of a UTC day, by whatever it is grouped."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from otel_openai_usage.domain.endpoints import COSTS, ENDPOINTS
from otel_openai_usage.domain.model import Amounts, Dims
from otel_openai_usage.simulator import bill
from otel_openai_usage.simulator.chance import spread
from otel_openai_usage.simulator.traffic import Traffic
from otel_openai_usage.simulator.workloads import Stream

Filters: TypeAlias = Mapping[str, Collection[str]]
"""Dimension to the values that are wanted."""
_TOO_HIGH = Decimal("1.1")


@dataclass(frozen=True, slots=True)
class CostRow:
    """What one day's `dims` cost, aligned to the dimensions of costs. `quantity` is None unless
    grouped by line item.
    """

    dims: Dims
    cost: Decimal
    quantity: Decimal | None
    unit: str | None


def summed(rows: Sequence[CostRow]) -> dict[Dims, Amounts]:
    """The rows of a day as amounts."""
    return {row.dims: (row.cost, row.quantity or Decimal(0)) for row in rows}


class Costs:
    """The costs of one world, always derived from its usage."""

    def __init__(self, seed: int, streams: tuple[Stream, ...], traffic: Traffic) -> None:
        self._seed = seed
        self._streams = streams
        self._traffic = traffic

    def day(
        self, day: int, known: int, group_by: Sequence[str], filters: Filters, excess: float = 0.0
    ) -> list[CostRow]:
        """The costs of a UTC day (its start) until the minute `known`; a share `excess` of them is
        a tenth too high.
        """
        if known <= day // 60:
            return []
        rows: dict[Dims, CostRow] = {}
        # The currency is in every row, grouped or not: sums across currencies mean nothing.
        grouped = {*group_by, "currency"}
        places = [place for place, name in enumerate(COSTS.dimensions) if name in grouped]
        # Quantities of different line items have different units, so OpenAI gives them only then.
        is_itemised = "line_item" in group_by
        for dims, charge in self._charges(day, known):
            if not _matches(dims, filters):
                continue
            group = tuple(value if place in places else None for place, value in enumerate(dims))
            cost = charge.cost
            if self._exceeds(day, dims, excess):
                cost *= _TOO_HIGH
            row = CostRow(group, cost, None, None)
            if is_itemised:
                row = CostRow(group, cost, charge.quantity, charge.unit)
            if group in rows:
                row = _added(rows[group], row)
            rows[group] = row
        return list(rows.values())

    def _charges(self, day: int, known: int) -> Iterator[tuple[Dims, bill.Charge]]:
        """Every charge of a day with its dimensions, in the order of the dimensions of costs."""
        # No project accounts for support: OpenAI's rows can be null even if grouped by project.
        minutes = known - day // 60
        yield (None, "priority support", None, None, None, "usd"), bill.support(minutes)
        for stream in self._streams:
            endpoint = ENDPOINTS[stream.work.endpoint]
            named = dict(zip(endpoint.dimensions, stream.dims, strict=True))
            project = named["project_id"]
            others = (named.get("api_key_id"), named.get("user_id"), named.get("api_source"))
            for charge in self._of(stream, day, known):
                yield (project, charge.line_item, *others, "usd"), charge

    def _of(self, stream: Stream, day: int, known: int) -> list[bill.Charge]:
        if ENDPOINTS[stream.work.endpoint].level:
            # Storage is billed by gibibyte-hours; the level changes at full hours only.
            hours = range(day // 60, known, 60)
            byte_hours = sum(self._traffic.level(stream, minute) for minute in hours)
            return [bill.storage(byte_hours)]
        flow = self._traffic.between(stream, day // 60, known)
        return bill.charges(stream, flow) if flow else []

    def _exceeds(self, day: int, dims: Dims, excess: float) -> bool:
        if not excess:
            return False
        chance = spread(1024, self._seed, "cost", day, dims)
        return chance < round(excess * 1024)


def _matches(dims: Dims, filters: Filters) -> bool:
    for name, values in filters.items():
        place = COSTS.dimensions.index(name)
        if dims[place] not in values:
            return False
    return True


def _added(one: CostRow, other: CostRow) -> CostRow:
    quantity = None
    if one.quantity is not None and other.quantity is not None:
        quantity = one.quantity + other.quantity
    return CostRow(one.dims, one.cost + other.cost, quantity, one.unit)
