"""What responses cost by list prices, as far as events describe them. Pure: no I/O."""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS, Endpoint
from otel_openai_usage.domain.metered import METERED, Event, PricedBy
from otel_openai_usage.domain.model import Dims, Width, floor
from otel_openai_usage.domain.pricing import Estimate, PriceList, Rates, Reason, add, cost_of

_COMPLETIONS = USAGE_ENDPOINTS["completions"]
_PLACES = {measure.name: place for place, measure in enumerate(_COMPLETIONS.measures)}
_COUNTED = ("input", "output", "input_cached")
"""The measures of an event that completions have, too; reasoning is priced as output."""
_MODEL = METERED.dimensions.index("model")
_NOTHING_ELSE = PricedBy({})


def costs(
    organization: str, events: Iterable[Event], prices: PriceList | None, until: int
) -> Estimate:
    """The costs of events, each at its own time, but none later than `until`.

    A response whose model has no price has no cost.
    """
    days: dict[tuple[Dims, int], Decimal] = {}
    growth: dict[Dims, Decimal] = {}
    if prices is None:
        return Estimate()
    for event in events:
        time = until if event.time is None else min(event.time, until)
        cost = _cost(organization, event, prices, time)
        if cost is None:
            continue
        day = (event.dims, floor(time, Width.DAY))
        days[day] = add(days.get(day, Decimal(0)), cost)
        growth[event.dims] = add(growth.get(event.dims, Decimal(0)), cost)
    return Estimate(days, growth)


def _cost(organization: str, event: Event, prices: PriceList, time: int) -> Decimal | None:
    """The cost of one response, None if it is not known."""
    model = event.dims[_MODEL]
    if model is None:
        return None
    priced_by = event.priced_by or _NOTHING_ELSE
    dims = {"model": model}
    if priced_by.tier:
        dims["service_tier"] = priced_by.tier
    if priced_by.batch:
        dims["batch"] = "true"
    rates = prices.rates(organization, _COMPLETIONS, dims, time)
    amounts = [0] * len(_COMPLETIONS.measures)
    for name in _COUNTED:
        amounts[_PLACES[name]] = int(event.amounts[_METERED_PLACES[name]])
    for name, tokens in priced_by.parts.items():
        amounts[_PLACES[name]] = tokens
    _limit(amounts)
    cost = cost_of(tuple(amounts), rates)
    return None if cost is None else max(cost, Decimal(0))


_METERED_PLACES = {measure.name: place for place, measure in enumerate(METERED.measures)}


def _limit(amounts: list[int]) -> None:
    """No part is more than its whole, whatever the event says."""
    for name, place in _PLACES.items():
        if name.startswith(("input_cached_", "input_")) and name != "input":
            whole = "input_cached" if name.startswith("input_cached_") else "input"
        elif name.startswith("output_"):
            whole = "output"
        else:
            continue
        amounts[place] = min(amounts[place], amounts[_PLACES[whole]])


class HourlyPrices:
    """Prices of the rows of METERED, which say only model and tokens. Implements PriceList."""

    def __init__(self, prices: PriceList) -> None:
        self._prices = prices

    def rates(
        self, organization: str, endpoint: Endpoint, dims: Mapping[str, str], time: int
    ) -> Rates | None:
        """The prices of an attribute set at a Unix time; None if they are not known."""
        asked = {"model": dims.get("model", "")}
        found = self._prices.rates(organization, _COMPLETIONS, asked, time)
        if found is None:
            return None
        known = dict(zip(_PLACES, found, strict=True))
        return tuple(
            known[measure.name] if measure.name in _COUNTED else Decimal(0)
            for measure in endpoint.measures
        )

    def refresh(self, now: float) -> None:
        """Look for newer prices."""
        self._prices.refresh(now)

    def unpriced_reason(
        self, organization: str, endpoint: Endpoint, dims: Mapping[str, str]
    ) -> Reason:
        """Why usage of this attribute set has no price."""
        return self._prices.unpriced_reason(organization, _COMPLETIONS, dims)
