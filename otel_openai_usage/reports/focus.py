"""Billed costs in the columns of the FinOps Open Cost and Usage Specification, version 1.2 (and so
1.0 and 1.1).
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import TypeAlias

from otel_openai_usage.domain.endpoints import LEGACY
from otel_openai_usage.domain.model import Width, midnight, utc
from otel_openai_usage.storage.sqlite.history import COST_DIMENSIONS, CostRow, History

Cell: TypeAlias = str | int | Decimal | Mapping[str, str] | None
Line: TypeAlias = Mapping[str, Cell]
Named: TypeAlias = Callable[[dict[str, str | None]], dict[str, str | None]]
"""Adds names to ids."""

COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity",
    "ConsumedUnit", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingCategory", "PricingQuantity",
    "PricingUnit", "ProviderName", "PublisherName", "ResourceId", "ServiceCategory", "ServiceName", "ServiceSubcategory", "SkuId",
    "SubAccountId", "SubAccountName", "x_ApiKeyId", "x_ApiSource", "x_EffectiveUnitPrice", "x_UserId",
)  # fmt: skip
"""Every mandatory column, and the others of which we know something; those beginning with x_ are
ours. The price is what a unit really cost: the amount by the quantity, where OpenAI gives one.
"""

_OPENAI = {
    "InvoiceIssuerName": "OpenAI",
    "ProviderName": "OpenAI",
    "PublisherName": "OpenAI",
    "ServiceCategory": "AI and Machine Learning",
    "ServiceName": "OpenAI API",
    "ServiceSubcategory": "Generative AI",
}


def accounts(past: History, ids: Mapping[str, str]) -> dict[str, str]:
    """OpenAI's ids of organizations by name: as it told them, else those of `ids`. Raises
    StateError.
    """
    told = {
        one.organization: one.organization_id
        for one in past.origins()
        if one.organization_id and one.endpoint is not LEGACY
    }
    return {**ids, **told}


def lines(past: History, day: date, named: Named, ids: Mapping[str, str]) -> Iterator[Line]:
    """What was billed for a UTC day. `ids` are OpenAI's ids of organizations. Raises StateError."""
    periods = _periods(day)
    start = midnight(day)
    units = past.quantity_units()
    for spent in past.costs(start, start + Width.DAY, by=COST_DIMENSIONS):
        dims = named(dict(zip(COST_DIMENSIONS, spent.group, strict=True)))
        known = units.get((dims["organization"] or "", dims["line_item"] or ""), set())
        charge = _charge(spent, dims["line_item"], known)
        yield {**_OPENAI, **periods, **_account(dims, ids), **charge}


def effective_price(cost: Decimal, quantity: Decimal | None) -> Decimal | None:
    """What one unit really cost, discounts included; None where there is no quantity."""
    return cost / quantity if quantity else None


_UNITS = {
    "tokens": "Tokens",
    "1000_tokens": "1000 Tokens",
    "images": "Images",
    "characters": "Characters",
    "duration_seconds": "Seconds",
    "duration_minutes": "Minutes",
    "duration_hours": "Hours",
    "gibibyte_hours": "GiB-Hours",
}
"""OpenAI's `quantity_unit` as FOCUS spells units. The set is open."""


def unit_name(units: Collection[str]) -> str:
    """The unit as FOCUS spells it; `Units` where OpenAI does not say it."""
    (unit,) = units or ("units",)
    return _UNITS.get(unit) or unit.replace("_", " ").title()


def instant(unix: int) -> str:
    """In ISO 8601 and UTC, to the second."""
    return f"{utc(unix):%Y-%m-%dT%H:%M:%SZ}"


def _periods(day: date) -> Line:
    month = day.replace(day=1)
    return {
        "BillingPeriodStart": instant(midnight(month)),
        "BillingPeriodEnd": instant(midnight((month + timedelta(days=32)).replace(day=1))),
        "ChargePeriodStart": instant(midnight(day)),
        "ChargePeriodEnd": instant(midnight(day) + Width.DAY),
    }


def _account(dims: Mapping[str, str | None], ids: Mapping[str, str]) -> Line:
    organization = dims["organization"] or ""
    return {
        "BillingAccountId": ids.get(organization) or organization,
        "BillingAccountName": organization,
        "SubAccountId": dims["project_id"],
        "SubAccountName": dims["project_name"]
        or dims["project_id"],  # must not be null where there is an id
        "x_ApiKeyId": dims["api_key_id"],
        "x_ApiSource": dims["api_source"],
        "x_UserId": dims["user_id"],
    }


def _charge(spent: CostRow, item: str | None, units: Collection[str]) -> Line:
    """What is given back without a quantity is a credit; all else is usage.

    A line item that was counted in several units has no quantity: it would add them up.
    """
    credit = spent.cost < 0 and spent.quantity is None
    quantity = spent.quantity if len(units) <= 1 else None
    unit = unit_name(units) if quantity is not None else None
    return {
        # OpenAI says one amount: what it bills. No list price, no commitment.
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), spent.cost),
        "BillingCurrency": spent.currency.upper(),
        "ChargeCategory": "Credit" if credit else "Usage",
        "ChargeDescription": item or _OPENAI["ServiceName"],
        "ChargeFrequency": "One-Time" if credit else "Usage-Based",
        "ConsumedQuantity": quantity,
        "ConsumedUnit": unit,
        "PricingCategory": None if credit else "Standard",
        "PricingQuantity": quantity,
        "PricingUnit": unit,
        "SkuId": item,
        "x_EffectiveUnitPrice": effective_price(spent.cost, quantity),
    }
