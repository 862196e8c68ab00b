"""What usage costs by a price list. Decides; touches nothing.

What a reading moves is priced once, at the time of its bucket and with the prices known when it is
booked. What OpenAI takes back is subtracted at the prices known then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol, TypeAlias

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.exact import EXACT
from otel_openai_usage.domain.model import Dims, Width, floor
from otel_openai_usage.domain.reconciliation import Move

CURRENCY = "usd"
"""Price lists are in US dollars."""

Rates: TypeAlias = Sequence[Decimal | None]
"""What one unit of each measure of a kind costs; None where that is not known. A part of another
measure has its difference to the whole: cached input that is cheaper than input is negative.
"""


class PriceList(Protocol):
    """Knows prices."""

    def rates(
        self, organization: str, endpoint: Endpoint, dims: Mapping[str, str], time: int
    ) -> Rates | None:
        """The prices of an attribute set (dimensions by name, without nulls) at a Unix time; None
        if they are not known.
        """
        ...


@dataclass(frozen=True, slots=True)
class Estimate:
    """What moves cost by attribute set and UTC day, and the tokens by model that have no price.

    `days` has those before the epoch too; `growth` only what counts.
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
    """Price what a reading moved."""
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
        rates = prices.rates(organization, endpoint, named, end - 1)
        if rates is None or any(
            amount and rate is None for amount, rate in zip(moved, rates, strict=True)
        ):
            model = named.get("model", "")
            unpriced[model] = unpriced.get(model, 0) + sum(int(moved[index]) for index in tokens)
            continue
        cost = Decimal(0)
        for amount, rate in zip(moved, rates, strict=True):
            if amount and rate:
                cost = EXACT.add(cost, EXACT.multiply(rate, Decimal(amount)))
        day = (dims, floor(end - 1, Width.DAY))
        days[day] = EXACT.add(days.get(day, Decimal(0)), cost)
        if counts:
            growth[dims] = EXACT.add(growth.get(dims, Decimal(0)), cost)
    return Estimate(days, growth, {model: count for model, count in unpriced.items() if count > 0})
