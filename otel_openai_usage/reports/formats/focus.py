"""Billed costs in the columns of the FinOps Open Cost and Usage Specification, version 1.2 (and so
1.0 and 1.1) or 1.3.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from otel_openai_usage.domain.allocation import Part
from otel_openai_usage.domain.line_item import split
from otel_openai_usage.domain.model import Width, midnight
from otel_openai_usage.reports.formats import TableFormat
from otel_openai_usage.reports.tables import Dimensions, Export, Line, csv_line, instant
from otel_openai_usage.storage.results import COST_DIMENSIONS, CostRow

if TYPE_CHECKING:
    from otel_openai_usage.reports.allocation import Allocated

COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency",
    "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost",
    "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingCategory", "PricingQuantity",
    "PricingUnit", "ProviderName", "PublisherName", "ResourceId", "ServiceCategory",
    "ServiceName", "ServiceSubcategory", "SkuId", "SkuPriceDetails", "SkuPriceId", "SubAccountId",
    "SubAccountName", "x_ApiKeyId", "x_ApiSource", "x_Customer", "x_EffectiveUnitPrice", "x_UserId",
)  # fmt: skip
"""Every mandatory column of 1.2, and the optional ones that we can fill. Columns that begin with x_
are ours.
"""

_SINCE_1_3 = (
    "AllocatedMethodDetails", "AllocatedMethodId", "AllocatedResourceId", "AllocatedResourceName",
    "AllocatedTags", "HostProviderName", "ServiceProviderName",
)  # fmt: skip


def _in_order(names: Collection[str]) -> tuple[str, ...]:
    """Columns by name, ours last."""
    return tuple(sorted(names, key=lambda name: (name.startswith("x_"), name)))


VERSIONS = {"1.2": COLUMNS, "1.3": _in_order({*COLUMNS, *_SINCE_1_3})}
"""The columns of each version. What 1.3 deprecates stays."""

_OPENAI = {
    "HostProviderName": "OpenAI",
    "InvoiceIssuerName": "OpenAI",
    "ProviderName": "OpenAI",
    "PublisherName": "OpenAI",
    "ServiceCategory": "AI and Machine Learning",
    "ServiceName": "OpenAI API",
    "ServiceProviderName": "OpenAI",
    "ServiceSubcategory": "Generative AI",
}

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
"""OpenAI's `quantity_unit` as FOCUS spells units. OpenAI may add others."""


def billed(export: Export, day: date) -> Iterator[Line]:
    """What was billed for a UTC day. Raises StateError."""
    periods = _periods(day)
    start = midnight(day)
    for row in export.history.costs(start, start + Width.DAY, by=COST_DIMENSIONS):
        dimensions = export.dimensions(COST_DIMENSIONS, row.group)
        line_item = dimensions["line_item"]
        account = _account(dimensions, export.organization_ids)
        quantity = row.quantity
        unit = None
        try:
            if quantity is not None:
                unit = unit_name(export.quantity_unit(dimensions))
        except LookupError:
            # A line item that was counted in several units has no quantity: nobody knows of what.
            quantity = None
        charge = _charge(row, line_item, quantity, unit)
        line = {**_OPENAI, **periods, **account, **charge}
        allocated = export.allocated(start, row.group, row.cost, quantity)
        if allocated is None:
            yield line
        else:
            yield from _parts(line, allocated)


def _parts(line: Line, allocated: "Allocated") -> Iterator[Line]:
    """The parts of a charge by customer. Their costs and quantities sum to those of the charge."""
    has_quantity = line["ConsumedQuantity"] is not None
    for part in allocated.parts:
        amounts = dict.fromkeys(_COSTS, part.amount)
        quantity = allocated.quantities.get(part.customer, Decimal(0)) if has_quantity else None
        yield {
            **line,
            **amounts,
            "ConsumedQuantity": quantity,
            "PricingQuantity": quantity,
            "AllocatedMethodId": "Shared" if allocated.is_shared else "MeteredTokens",
            "AllocatedMethodDetails": _method_details(part, is_shared=allocated.is_shared),
            "AllocatedResourceId": part.customer,
            "AllocatedResourceName": part.customer,
            "AllocatedTags": json.dumps({"customer": part.customer}),
            "x_Customer": part.customer,
        }


_COSTS = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")


def _method_details(part: Part, *, is_shared: bool) -> str:
    """The part's ratio of the charge as a JSON object."""
    element: dict[str, float | str] = {"AllocatedRatio": part.weight / part.whole}
    if not is_shared:
        element["UsageUnit"] = "Tokens"
    return json.dumps({"Elements": [element]})


def effective_price(cost: Decimal, quantity: Decimal | None) -> Decimal | None:
    """What one unit really cost, discounts included; None where there is no quantity."""
    return cost / quantity if quantity else None


def unit_name(unit: str | None) -> str:
    """The unit as FOCUS spells it; `Units` where OpenAI does not give one."""
    unit = unit or "units"
    return _UNITS.get(unit) or unit.replace("_", " ").title()


def price_details(line_item: str) -> str | None:
    """What distinguishes the price of a line item, as a JSON object; None if nothing is known.

    FOCUS has no such properties before 1.5, so their names begin with x_. The values are those that
    it defines there: a charge of input that was neither read from a cache nor written to it is
    `Input`.
    """
    item = split(line_item)
    if item.model is None:
        return None
    details: dict[str, str | bool] = {"x_ModelId": item.model}
    words = item.charged.split()
    kind = item.token_class
    if kind is not None:
        details["x_TokenType"] = _token_type(kind)
        for modality in ("text", "audio", "image"):
            if modality in words:
                details["x_TokenModality"] = modality.title()
        for lifetime in ("30m", "12h"):
            if lifetime in words:
                details["x_CacheLifetime"] = lifetime
    if item.service_tier:
        details["x_ServiceTier"] = item.service_tier.title()
    if "long" in words:
        details["x_LongContext"] = True
    return json.dumps(details)


def _token_type(kind: str) -> str:
    if kind.startswith("input_cached"):
        return "CacheRead"
    if kind.startswith("input_cache_write"):
        return "CacheWrite"
    return "Input" if kind.startswith("input") else "Output"


def _periods(day: date) -> Line:
    """The billing period, a month, and the charge period, a day."""
    month = day.replace(day=1)
    # 32 days after the first of a month is always in the next month.
    next_month = (month + timedelta(days=32)).replace(day=1)
    day_start = midnight(day)
    return {
        "BillingPeriodStart": instant(midnight(month)),
        "BillingPeriodEnd": instant(midnight(next_month)),
        "ChargePeriodStart": instant(day_start),
        "ChargePeriodEnd": instant(day_start + Width.DAY),
    }


def _account(dimensions: Dimensions, organization_ids: Mapping[str, str]) -> Line:
    """Who pays: the organization, and the project as its sub-account."""
    organization = dimensions["organization"] or ""
    # FOCUS wants a name wherever there is an id.
    project = dimensions["project_name"] or dimensions["project_id"]
    return {
        "BillingAccountId": organization_ids.get(organization) or organization,
        "BillingAccountName": organization,
        "SubAccountId": dimensions["project_id"],
        "SubAccountName": project,
        "x_ApiKeyId": dimensions["api_key_id"],
        "x_ApiSource": dimensions["api_source"],
        "x_UserId": dimensions["user_id"],
    }


def _charge(
    row: CostRow, line_item: str | None, quantity: Decimal | None, unit: str | None
) -> Line:
    """The charge of a row. A negative cost without a quantity is a credit; all else is usage."""
    is_credit = row.cost < 0 and row.quantity is None
    sku = line_item
    if sku is None and not is_credit:
        # Usage always has a SKU: here all that OpenAI does not itemise.
        sku = _OPENAI["ServiceName"]
    price = None if is_credit else sku
    return {
        # OpenAI gives one amount, the billed one: there is no list price and no commitment.
        "BilledCost": row.cost,
        "ContractedCost": row.cost,
        "EffectiveCost": row.cost,
        "ListCost": row.cost,
        "BillingCurrency": row.currency.upper(),
        "ChargeCategory": "Credit" if is_credit else "Usage",
        "ChargeDescription": line_item or _OPENAI["ServiceName"],
        "ChargeFrequency": "One-Time" if is_credit else "Usage-Based",
        "ConsumedQuantity": quantity,
        "ConsumedUnit": unit,
        "PricingCategory": None if is_credit else "Standard",
        "PricingQuantity": quantity,
        "PricingUnit": unit,
        "SkuId": sku,
        "SkuPriceDetails": price_details(price) if price else None,
        # A line item has one price: OpenAI names model, token class, tier and length in it.
        "SkuPriceId": price,
        "x_EffectiveUnitPrice": effective_price(row.cost, quantity),
    }


FORMAT = TableFormat(
    summary="billed costs in the columns of the FinOps cost format",
    columns=COLUMNS,
    records=billed,
    text=csv_line,
    only_by_day="OpenAI bills by the day",
    versions=VERSIONS,
)
