"""The FOCUS export against the specification's own rules.

FinOps Open Cost and Usage Specification 1.2 (FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec, tag v1.2):
the content constraints of specification/columns/*.md, and
specification/attributes/{datetime,numeric,currency,null,column}_*.md. The mandatory columns of 1.0
and 1.1 are the same 21.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.domain.endpoints import COSTS
from otel_openai_usage.domain.model import Names, Width, Window
from otel_openai_usage.engine import recording
from otel_openai_usage.reports import export
from otel_openai_usage.reports.formats import focus
from otel_openai_usage.storage.sqlite.store import Store
from tests.domain.shelf import MIDNIGHT
from tests.reports.test_export import dims, keep

Line = Mapping[str, str]

NUMBER = r"-?\d+(\.\d+)?(E-?\d+)?"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
TEXT = r"(?!\s*$).+"
CURRENCY = r"[A-Z]{3}"
SERVICES = "AI and Machine Learning"
RULES: dict[str, tuple[str, bool]] = {
    "BilledCost": (NUMBER, False),
    "BillingAccountId": (TEXT, False),
    "BillingAccountName": (TEXT, True),
    "BillingCurrency": (CURRENCY, False),
    "BillingPeriodEnd": (TIME, False),
    "BillingPeriodStart": (TIME, False),
    "ChargeCategory": ("Usage|Purchase|Tax|Credit|Adjustment", False),
    "ChargeClass": ("Correction", True),
    "ChargeDescription": (TEXT, True),
    "ChargePeriodEnd": (TIME, False),
    "ChargePeriodStart": (TIME, False),
    "ContractedCost": (NUMBER, False),
    "EffectiveCost": (NUMBER, False),
    "InvoiceIssuerName": (TEXT, False),
    "ListCost": (NUMBER, False),
    "PricingQuantity": (NUMBER, True),
    "PricingUnit": (TEXT, True),
    "ProviderName": (TEXT, False),
    "PublisherName": (TEXT, False),
    "ServiceCategory": (SERVICES, False),
    "ServiceName": (TEXT, False),
}
"""Every mandatory column: what its values look like, and whether it may be null."""
MORE: dict[str, tuple[str, bool]] = {
    "ChargeFrequency": ("One-Time|Recurring|Usage-Based", False),
    "ConsumedQuantity": (NUMBER, True),
    "ConsumedUnit": (TEXT, True),
    "PricingCategory": ("Standard|Dynamic|Committed|Other", True),
    "ResourceId": (TEXT, True),
    "ServiceSubcategory": ("Generative AI", False),
    "SkuId": (TEXT, True),
    "SkuPriceDetails": (r"\{.+\}", True),
    "SkuPriceId": (TEXT, True),
    "SubAccountId": (TEXT, True),
    "SubAccountName": (TEXT, True),
}
"""The conditional and recommended ones that we have."""


def null(line: Line, *names: str) -> bool:
    """Whether all of them are null."""
    return not any(line[name] for name in names)


def usage(line: Line) -> bool:
    """Whether the charge is usage."""
    return line["ChargeCategory"] == "Usage"


BETWEEN: Mapping[str, Callable[[Line], bool]] = {
    "PricingUnit is null exactly when PricingQuantity is": lambda line: null(line, "PricingUnit") == null(line, "PricingQuantity"),
    "ConsumedUnit is null exactly when ConsumedQuantity is": lambda line: null(line, "ConsumedUnit") == null(line, "ConsumedQuantity"),
    "ConsumedQuantity is null when ChargeCategory is not Usage": lambda line: usage(line) or null(line, "ConsumedQuantity"),
    "PricingCategory is not null for Usage": lambda line: not usage(line) or not null(line, "PricingCategory"),
    "SkuId and SkuPriceId are not null for Usage": lambda line: not usage(line) or bool(line["SkuId"] and line["SkuPriceId"]),
    "SkuPriceId has one SkuId": lambda line: line["SkuPriceId"] in ("", line["SkuId"]),
    "SkuPriceDetails is null when SkuPriceId is": lambda line: bool(line["SkuPriceId"]) or null(line, "SkuPriceDetails"),
    "keys of SkuPriceDetails that FOCUS does not define begin with x_": lambda line: all(
        key.startswith("x_") for key in json.loads(line["SkuPriceDetails"] or "{}")
    ),
    "SubAccountName is null exactly when SubAccountId is": lambda line: null(line, "SubAccountId") == null(line, "SubAccountName"),
    "ListCost, ContractedCost and EffectiveCost match BilledCost where no unit price is given and nothing was committed": lambda line: (
        line["ListCost"] == line["ContractedCost"] == line["EffectiveCost"] == line["BilledCost"]
    ),
    "a charge period lies in its billing period": lambda line: (
        line["BillingPeriodStart"] <= line["ChargePeriodStart"] < line["ChargePeriodEnd"] <= line["BillingPeriodEnd"]
    ),
    "a usage-based charge is no purchase": lambda line: line["ChargeFrequency"] != "Usage-Based" or line["ChargeCategory"] != "Purchase",
}  # fmt: skip
"""Rules between the columns of a line."""


@pytest.fixture
def text(tmp_path: Path) -> str:
    """An export of the last day of November: usage, a refund, a credit, costs without line item,
    quantity or project, in two currencies.
    """
    day = MIDNIGHT + 28 * Width.DAY
    store = Store(tmp_path / "state.db")
    store.set_names("default", Names({"proj_a": "Atlas"}, {}, {}))
    said = {
        dims(COSTS, project_id="proj_a", line_item="gpt-4o, input", currency="usd"): (
            Decimal("1.50"),
            Decimal(3000),
        ),
        dims(COSTS, project_id="proj_b", line_item="gpt-4o, output", currency="usd"): (
            Decimal("-0.25"),
            Decimal(500),
        ),
        dims(COSTS, project_id="proj_a", line_item="=credit", currency="usd"): (
            Decimal("-5E-7"),
            Decimal(0),
        ),
        dims(COSTS, currency="eur"): (Decimal(7), Decimal(0)),
    }
    keep(store, COSTS, Width.DAY, {day: said})
    store.close()
    return "".join(
        export.lines(
            queries_opener(tmp_path / "state.db"), date(2026, 11, 30), date(2026, 11, 30), "focus"
        )
    )


def lines(text: str) -> list[dict[str, str]]:
    """Parsed; null is the empty text."""
    found = list(csv.DictReader(io.StringIO(text)))
    assert len(found) == 4
    return found


def test_every_mandatory_column_is_there_and_ours_come_last(text: str) -> None:
    """All 21 columns that 1.2 makes mandatory; names in Pascal case, x_ after them
    (attributes/column_handling.md).
    """
    header = next(csv.reader(io.StringIO(text)))
    assert tuple(header) == focus.COLUMNS
    own = [name for name in header if name.startswith("x_")]
    assert RULES.keys() | MORE.keys() == set(header) - set(own)
    assert header == sorted(set(header) - set(own)) + sorted(own)
    assert all(re.fullmatch(r"(x_)?([A-Z][a-z]+)+", name) for name in header)


@pytest.mark.parametrize("name", [*RULES, *MORE])
def test_values_are_of_the_specified_format(text: str, name: str) -> None:
    """Decimals without exponent's plus or commas, ISO 8601 in UTC, ISO 4217, allowed values, null
    only where it is allowed.
    """
    form, nullable = (RULES | MORE)[name]
    for line in lines(text):
        assert re.fullmatch(form, line[name]) or (nullable and line[name] == ""), line


@pytest.mark.parametrize("rule", BETWEEN)
def test_columns_agree(text: str, rule: str) -> None:
    """The rules that bind one column to another."""
    for line in lines(text):
        assert BETWEEN[rule](line), line


@pytest.mark.parametrize(
    ("configured", "reported", "expected"),
    [
        ({}, None, "default"),
        ({"default": "org-c"}, None, "org-c"),
        ({"default": "org-c"}, "org-t", "org-t"),
    ],
)
def test_the_billing_account_is_openais_id_where_it_is_known(
    tmp_path: Path, configured: dict[str, str], reported: str | None, expected: str
) -> None:
    """What OpenAI says, else what is configured, else the name."""
    store = Store(tmp_path / "state.db")
    source_state = store.source_state("default", COSTS, MIDNIGHT + Width.DAY, COSTS.group_by)
    source_state.organization_id = reported
    said = {MIDNIGHT: {dims(COSTS, currency="usd"): (Decimal(1), Decimal(0))}}
    recording.record_range(
        store, source_state, Window(MIDNIGHT, MIDNIGHT + Width.DAY), Width.DAY, said, MIDNIGHT
    )
    store.close()
    text = "".join(
        export.lines(
            queries_opener(tmp_path / "state.db"),
            date.min,
            date.max,
            "focus",
            organization_ids=configured,
        )
    )
    (line,) = csv.DictReader(io.StringIO(text))
    assert (line["BillingAccountId"], line["BillingAccountName"]) == (expected, "default")


def test_refunds_are_usage_and_gifts_are_credits(text: str) -> None:
    """A refund with a quantity is negative usage, one without is a credit; the last day of a month
    ends with it.
    """
    found = {line["ChargeDescription"]: line for line in lines(text)}
    columns = ("ChargeCategory", "BilledCost", "BillingCurrency", "x_EffectiveUnitPrice")
    assert {name: tuple(line[column] for column in columns) for name, line in found.items()} == {
        "gpt-4o, input": ("Usage", "1.50", "USD", "0.0005"),
        "gpt-4o, output": ("Usage", "-0.25", "USD", "-0.0005"),
        "'=credit": ("Credit", "-0.0000005", "USD", ""),
        "OpenAI API": ("Usage", "7", "EUR", ""),
    }
    line = found["gpt-4o, input"]
    assert (line["SubAccountId"], line["SubAccountName"], line["BillingAccountId"]) == (
        "proj_a",
        "Atlas",
        "default",
    )
    assert found["gpt-4o, output"]["SubAccountName"] == "proj_b"
    assert (line["ChargePeriodStart"], line["ChargePeriodEnd"]) == (
        "2026-11-30T00:00:00Z",
        "2026-12-01T00:00:00Z",
    )
    assert (line["BillingPeriodStart"], line["BillingPeriodEnd"]) == (
        "2026-11-01T00:00:00Z",
        "2026-12-01T00:00:00Z",
    )


def test_version_1_3_names_the_providers(tmp_path: Path, text: str) -> None:
    """1.3 has who provides and who hosts, beside all columns of 1.2; everything else is the same."""
    day = date(2026, 11, 30)
    opener = queries_opener(tmp_path / "state.db")
    newer = "".join(export.lines(opener, day, day, "focus", version="1.3"))
    assert "".join(export.lines(opener, day, day, "focus", version="1.2")) == text
    header = next(csv.reader(io.StringIO(newer)))
    own = [name for name in header if name.startswith("x_")]
    assert header == sorted(set(header) - set(own)) + sorted(own)
    allocated = {
        f"Allocated{name}"
        for name in ("MethodDetails", "MethodId", "ResourceId", "ResourceName", "Tags")
    }
    assert set(header) - set(focus.COLUMNS) == {
        "HostProviderName",
        "ServiceProviderName",
        *allocated,
    }
    for line, before in zip(lines(newer), lines(text), strict=True):
        assert (line.pop("HostProviderName"), line.pop("ServiceProviderName")) == ("OpenAI",) * 2
        assert not any(line.pop(name) for name in allocated)
        assert line == before


@pytest.mark.parametrize(
    ("line_item", "details"),
    [
        ("gpt-4o, input", {"x_ModelId": "gpt-4o", "x_TokenType": "Input"}),
        ("gpt-6-astra, cached_input_tokens", {"x_ModelId": "gpt-6-astra", "x_TokenType": "CacheRead"}),
        (
            "gpt-6-astra, cache_write_30m_tokens",
            {"x_ModelId": "gpt-6-astra", "x_TokenType": "CacheWrite", "x_CacheLifetime": "30m"},
        ),
        (
            "gpt-image-1 image, output",
            {"x_ModelId": "gpt-image-1", "x_TokenType": "Output", "x_TokenModality": "Image"},
        ),
        (
            "priority | gpt-5.6-sol, output, long context",
            {
                "x_ModelId": "gpt-5.6-sol",
                "x_TokenType": "Output",
                "x_ServiceTier": "Priority",
                "x_LongContext": True,
            },
        ),
        ("whisper-1, duration", {"x_ModelId": "whisper-1"}),
        ("web search tool calls", None),
    ],
)  # fmt: skip
def test_price_details_are_what_the_line_item_says(
    line_item: str, details: dict[str, object] | None
) -> None:
    """A JSON object of what distinguishes the price; none where the line item names no model."""
    found = focus.price_details(line_item)
    assert (None if found is None else json.loads(found)) == details
