"""Estimates costs of usage by a price list. Pure: no I/O.

A change is priced once, at the time of its bucket and with the prices known when it is recorded.
Usage that OpenAI takes back is subtracted at the prices known then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol, TypeAlias

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.exact import EXACT
from otel_openai_usage.domain.model import Amounts, Dims, Width, floor
from otel_openai_usage.domain.reconciliation import Move

CURRENCY = "usd"
"""Price lists are in US dollars."""

Rates: TypeAlias = Sequence[Decimal | None]
"""The price of one unit of each measure of an endpoint; None if it is not known. A measure that is
part of another has its difference to the whole: cached input is negative if it is cheaper.
"""


class PriceList(Protocol):
    """Gives the prices of usage."""

    def rates(
        self, organization: str, endpoint: Endpoint, dims: Mapping[str, str], time: int
    ) -> Rates | None:
        """The prices at a Unix time, or None. `dims` has dimensions by name, without nulls."""
        ...


@dataclass(frozen=True, slots=True)
class Estimate:
    """Costs by attribute set and UTC day, and the tokens by model that have no price.

    `days` includes days before the epoch; `growth` has only costs that count.
    """

    days: Mapping[tuple[Dims, int], Decimal] = field(default_factory=dict)
    growth: Mapping[Dims, Decimal] = field(default_factory=dict)
    unpriced: Mapping[str, int] = field(default_factory=dict)


def add(one: Decimal, other: Decimal) -> Decimal:
    """The exact sum."""
    return EXACT.add(one, other)


def dimensions_by_name(endpoint: Endpoint, dims: Dims) -> dict[str, str]:
    """Dimensions by name, without nulls."""
    return {
        name: value
        for name, value in zip(endpoint.dimensions, dims, strict=True)
        if value is not None
    }


def estimate(
    endpoint: Endpoint, organization: str, moves: Iterable[Move], prices: PriceList
) -> Estimate:
    """Estimate the costs of what a reading moved."""
    days: dict[tuple[Dims, int], Decimal] = {}
    growth: dict[Dims, Decimal] = {}
    unpriced: dict[str, int] = {}
    tokens = [
        index
        for index, measure in enumerate(endpoint.measures)
        if measure.token_type in ("input", "output")
    ]
    for end, dims, moved, counts in moves:
        named = dimensions_by_name(endpoint, dims)
        # `end` itself belongs to the next bucket, which may have another price or day.
        rates = prices.rates(organization, endpoint, named, end - 1)
        cost = _cost(moved, rates)
        if cost is None:
            model = named.get("model", "")
            moved_tokens = sum(int(moved[index]) for index in tokens)
            unpriced[model] = unpriced.get(model, 0) + moved_tokens
            continue
        day = (dims, floor(end - 1, Width.DAY))
        days[day] = EXACT.add(days.get(day, Decimal(0)), cost)
        if counts:
            growth[dims] = EXACT.add(growth.get(dims, Decimal(0)), cost)
    # Usage that OpenAI took back must not lower the count of tokens without a price.
    new_unpriced = {model: count for model, count in unpriced.items() if count > 0}
    return Estimate(days, growth, new_unpriced)


def _cost(moved: Amounts, rates: Rates | None) -> Decimal | None:
    """The cost of amounts, or None if one of them has no price."""
    if rates is None:
        return None
    cost = Decimal(0)
    for amount, rate in zip(moved, rates, strict=True):
        if not amount:
            continue
        if rate is None:
            return None
        if rate:
            cost = EXACT.add(cost, EXACT.multiply(rate, Decimal(amount)))
    return cost
