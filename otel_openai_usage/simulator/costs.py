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
        kept = tuple(name in group_by or name == "currency" for name in COSTS.dimensions)
        itemised = "line_item" in group_by
        for dims, charge in self._charges(day, known):
            if _matches(dims, filters):
                group = tuple(
                    value if keep else None for value, keep in zip(dims, kept, strict=True)
                )
                cost = charge.cost * (_TOO_HIGH if self._exceeds(day, dims, excess) else 1)
                row = CostRow(
                    group,
                    cost,
                    charge.quantity if itemised else None,
                    charge.unit if itemised else None,
                )
                rows[group] = _added(rows[group], row) if group in rows else row
        return list(rows.values())

    def _charges(self, day: int, known: int) -> Iterator[tuple[Dims, bill.Charge]]:
        yield (None, "priority support", None, None, None, "usd"), bill.support(known - day // 60)
        for stream in self._streams:
            who = dict(zip(ENDPOINTS[stream.work.endpoint].dimensions, stream.dims, strict=True))
            for charge in self._of(stream, day, known):
                whose = (who.get("api_key_id"), who.get("user_id"), who.get("api_source"))
                yield (who["project_id"], charge.line_item, *whose, "usd"), charge

    def _of(self, stream: Stream, day: int, known: int) -> list[bill.Charge]:
        if ENDPOINTS[stream.work.endpoint].level:
            hours = range(day // 60, known, 60)
            return [bill.storage(sum(self._traffic.level(stream, minute) for minute in hours))]
        flow = self._traffic.between(stream, day // 60, known)
        return bill.charges(stream, flow) if flow else []

    def _exceeds(self, day: int, dims: Dims, excess: float) -> bool:
        return bool(excess) and spread(1024, self._seed, "cost", day, dims) < round(excess * 1024)


def _matches(dims: Dims, filters: Filters) -> bool:
    return all(dims[COSTS.dimensions.index(name)] in values for name, values in filters.items())


def _added(one: CostRow, other: CostRow) -> CostRow:
    quantity = (
        None if one.quantity is None or other.quantity is None else one.quantity + other.quantity
    )
    return CostRow(one.dims, one.cost + other.cost, quantity, one.unit)
