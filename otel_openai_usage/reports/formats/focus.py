"""Billed costs in the columns of the FinOps Open Cost and Usage Specification, version 1.2 (and so
1.0 and 1.1).
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal

from otel_openai_usage.domain.model import Width, midnight
from otel_openai_usage.reports.formats import TableFormat
from otel_openai_usage.reports.tables import Dimensions, Export, Line, csv_line, instant
from otel_openai_usage.storage.results import COST_DIMENSIONS, CostRow

COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency",
    "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost",
    "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingCategory", "PricingQuantity",
    "PricingUnit", "ProviderName", "PublisherName", "ResourceId", "ServiceCategory",
    "ServiceName", "ServiceSubcategory", "SkuId", "SubAccountId", "SubAccountName", "x_ApiKeyId",
    "x_ApiSource", "x_EffectiveUnitPrice", "x_UserId",
)  # fmt: skip
"""Every mandatory column, and the optional ones that we can fill. Columns that begin with x_ are
ours.
"""

_OPENAI = {
    "InvoiceIssuerName": "OpenAI",
    "ProviderName": "OpenAI",
    "PublisherName": "OpenAI",
    "ServiceCategory": "AI and Machine Learning",
    "ServiceName": "OpenAI API",
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
        organization = dimensions["organization"] or ""
        units = export.quantity_units.get((organization, line_item or ""), set())
        account = _account(dimensions, export.organization_ids)
        charge = _charge(row, line_item, units)
        yield {**_OPENAI, **periods, **account, **charge}


def effective_price(cost: Decimal, quantity: Decimal | None) -> Decimal | None:
    """What one unit really cost, discounts included; None where there is no quantity."""
    return cost / quantity if quantity else None


def unit_name(units: Collection[str]) -> str:
    """The unit as FOCUS spells it; `Units` where OpenAI does not give one."""
    (unit,) = units or ("units",)
    return _UNITS.get(unit) or unit.replace("_", " ").title()


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


def _charge(row: CostRow, line_item: str | None, units: Collection[str]) -> Line:
    """The charge of a row. A negative cost without a quantity is a credit; all else is usage."""
    is_credit = row.cost < 0 and row.quantity is None
    # A line item that was counted in several units has no quantity: it would add them up.
    quantity = row.quantity if len(units) <= 1 else None
    unit = unit_name(units) if quantity is not None else None
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
        "SkuId": line_item,
        "x_EffectiveUnitPrice": effective_price(row.cost, quantity),
    }


FORMAT = TableFormat(
    summary="billed costs in the columns of the FinOps cost format",
    columns=COLUMNS,
    records=billed,
    text=csv_line,
    only_by_day="OpenAI bills by the day",
)
