"""Estimates costs of usage by a price list. Pure: no I/O.

A change is priced once, at the time of its bucket and with the prices known when it is recorded.
Usage that OpenAI takes back is subtracted at the prices known then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, NamedTuple, Protocol, TypeAlias

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


Reason: TypeAlias = Literal["unknown_model", "no_price", "no_model"]
"""Why usage has no price: the list lacks the model; it has the model, but no price for this usage;
OpenAI named no model.
"""


class PriceList(Protocol):
    """Gives the prices of usage."""

    def rates(
        self, organization: str, endpoint: Endpoint, dims: Mapping[str, str], time: int
    ) -> Rates | None:
        """The prices at a Unix time, or None. `dims` has dimensions by name, without nulls."""
        ...

    def refresh(self, now: float) -> None:
        """Look for newer prices. Called before a poll. `now` is in Unix seconds."""
        ...

    def unpriced_reason(
        self, organization: str, endpoint: Endpoint, dims: Mapping[str, str]
    ) -> Reason:
        """Why usage of this attribute set has no price."""
        ...


HourKey: TypeAlias = tuple[int, str, str]
"""The start of an hour, a project and a model; the empty text for none."""


class Unpriced(NamedTuple):
    """Usage without a price. `measure` is `tokens`, or the endpoint's measure if it has none."""

    model: str
    measure: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Estimate:
    """Costs by attribute set and UTC day, and the usage that has no price.

    `days` and `hours` include what is before the epoch; `growth` has only costs that count.
    """

    days: Mapping[tuple[Dims, int], Decimal] = field(default_factory=dict)
    growth: Mapping[Dims, Decimal] = field(default_factory=dict)
    unpriced: Mapping[Unpriced, int] = field(default_factory=dict)
    hours: Mapping[HourKey, Decimal] = field(default_factory=dict)


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
    hours: dict[HourKey, Decimal] = {}
    growth: dict[Dims, Decimal] = {}
    unpriced: dict[Unpriced, int] = {}
    for end, dims, moved, counts in moves:
        named = dimensions_by_name(endpoint, dims)
        # `end` itself belongs to the next bucket, which may have another price or day.
        rates = prices.rates(organization, endpoint, named, end - 1)
        cost = cost_of(moved, rates)
        if cost is None:
            reason = prices.unpriced_reason(organization, endpoint, named)
            for measure, amount in _used(endpoint, moved).items():
                key = Unpriced(named.get("model", ""), measure, reason)
                unpriced[key] = unpriced.get(key, 0) + amount
            continue
        day = (dims, floor(end - 1, Width.DAY))
        days[day] = EXACT.add(days.get(day, Decimal(0)), cost)
        hour = (
            floor(end - 1, Width.HOUR),
            named.get("project_id", ""),
            named.get("model", ""),
        )
        hours[hour] = EXACT.add(hours.get(hour, Decimal(0)), cost)
        if counts:
            growth[dims] = EXACT.add(growth.get(dims, Decimal(0)), cost)
    # Usage that OpenAI took back must not lower the count of usage without a price.
    new_unpriced = {key: count for key, count in unpriced.items() if count > 0}
    return Estimate(days, growth, new_unpriced, hours)


def _used(endpoint: Endpoint, moved: Amounts) -> dict[str, int]:
    """What moved: tokens in and out, or else every other measure that is no request."""
    used: dict[str, int] = {}
    for measure, amount in zip(endpoint.measures, moved, strict=True):
        name = "tokens" if measure.name in ("input", "output") else measure.name
        if name == "tokens" or measure.name in _WITHOUT_TOKENS:
            used[name] = used.get(name, 0) + int(amount)
    return used


_WITHOUT_TOKENS = ("images", "characters", "audio", "sessions", "searches")


def cost_of(moved: Amounts, rates: Rates | None) -> Decimal | None:
    """The cost of amounts, or None if one of them has no price."""
    if rates is None:
        return None
    cost = Decimal(0)
    for amount, rate in zip(moved, rates, strict=True):
        if amount and rate is None:
            return None
        if amount and rate:
            cost = EXACT.add(cost, EXACT.multiply(rate, Decimal(amount)))
    return cost
