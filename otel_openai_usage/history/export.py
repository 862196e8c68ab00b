"""History as CSV, JSON lines and FOCUS: a line for each UTC day and attribute set, fixed columns, money as it was billed."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

from otel_openai_usage.core.estimate import CURRENCY
from otel_openai_usage.core.kinds import LEGACY
from otel_openai_usage.core.model import Names, Width, seconds, utc
from otel_openai_usage.state.history import History, Spent, Used, history

Cell: TypeAlias = str | int | Decimal | None
Line: TypeAlias = Mapping[str, Cell]

USED = ("requests", "input", "output", "input_cached", "input_audio", "output_audio", "input_cache_write", "images", "characters",
        "audio", "sessions", "searches")  # fmt: skip
COLUMNS = (
    "record", "date", "organization", "operation", "project_id", "project_name", "api_key_id", "api_key_name", "user_id", "user_name",
    "model", "batch", "service_tier", "line_item", *USED, "estimated_cost", "unpriced_tokens", "cost", "quantity", "currency",
)  # fmt: skip
"""Of CSV and JSON lines. `record` is usage, legacy_usage or cost; what a record does not have is empty (null)."""

FOCUS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "EffectiveCost",
    "ProviderName", "PublisherName", "ResourceId", "ServiceCategory", "ServiceName", "SubAccountId", "SubAccountName", "x_ApiKeyId",
    "x_EffectiveUnitPrice",
)  # fmt: skip
"""Columns of the FinOps Open Cost and Usage Specification; those beginning with x_ are ours. The price is what a unit really
cost: the amount by the quantity, where OpenAI gives one."""

_USAGE = ("organization", "operation", "project_id", "api_key_id", "user_id", "model", "batch", "service_tier")
_COST = ("organization", "project_id", "api_key_id", "user_id", "line_item")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def lines(path: Path, since: date, until: date, form: str) -> Iterator[str]:
    """The text of the days from `since` to `until`, both included, day by day. Raises StateError."""
    columns, make = (FOCUS, _focus) if form == "focus" else (COLUMNS, _records)
    write = _json if form == "json" else _csv
    if form != "json":
        yield _row(columns)
    with history(path) as past:
        days = (until - since).days + 1
        for day in (since + timedelta(offset) for offset in range(days)):
            for line in make(past, day):
                yield write(columns, line)


def safe(text: str) -> str:
    """The text, so that a spreadsheet does not take it for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _json(columns: Sequence[str], line: Line) -> str:
    """Money is text: a JSON number would be read as a float."""
    cells = {name: format(cell, "f") if isinstance(cell := line.get(name), Decimal) else cell for name in columns}
    return json.dumps(cells, ensure_ascii=False) + "\n"


def _csv(columns: Sequence[str], line: Line) -> str:
    return _row([_text(line.get(name)) for name in columns])


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Decimal):
        return format(cell, "f")  # never an exponent; a minus is a number here, no formula
    return safe(cell) if isinstance(cell, str) else str(cell)


def _row(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _records(past: History, day: date) -> Iterator[Line]:
    start, names = _midnight(day), _Names(past)
    for record, legacy in (("usage", False), ("legacy_usage", True)):
        for used in past.usage(start, start + Width.DAY, by=_USAGE, legacy=legacy):
            yield {"record": record, "date": f"{day}", **names.of(dict(zip(_USAGE, used.group, strict=True))), **_amounts(used)}
    for spent in past.costs(start, start + Width.DAY, by=_COST):
        dims = names.of(dict(zip(_COST, spent.group, strict=True)))
        yield {"record": "cost", "date": f"{day}", **dims, "cost": spent.cost, "quantity": spent.quantity, "currency": spent.currency}


def _amounts(used: Used) -> dict[str, Cell]:
    found: dict[str, Cell] = {name: getattr(used, name) for name in USED}
    currency = CURRENCY if used.estimate is not None else None
    return {**found, "estimated_cost": used.estimate, "unpriced_tokens": used.unpriced, "currency": currency}


def _focus(past: History, day: date) -> Iterator[Line]:
    start, names = _midnight(day), _Names(past)
    month = day.replace(day=1)
    after = (month + timedelta(days=32)).replace(day=1)
    ids = {origin.organization: origin.organization_id for origin in past.origins() if origin.organization_id and origin.kind is not LEGACY}
    for spent in past.costs(start, start + Width.DAY, by=_COST):
        dims = names.of(dict(zip(_COST, spent.group, strict=True)))
        yield {
            "BilledCost": spent.cost,
            "EffectiveCost": spent.cost,
            "BillingAccountId": ids.get(dims["organization"] or "") or dims["organization"],
            "BillingAccountName": dims["organization"],
            "BillingCurrency": spent.currency.upper(),
            "BillingPeriodStart": _instant(_midnight(month)),
            "BillingPeriodEnd": _instant(_midnight(after)),
            "ChargeCategory": "Usage" if spent.cost >= 0 else "Credit",
            "ChargeDescription": dims["line_item"],
            "ChargePeriodStart": _instant(start),
            "ChargePeriodEnd": _instant(start + Width.DAY),
            "ConsumedQuantity": spent.quantity,
            "ConsumedUnit": "Units" if spent.quantity is not None else None,
            "ProviderName": "OpenAI",
            "PublisherName": "OpenAI",
            "ResourceId": dims["line_item"],
            "ServiceCategory": "AI and Machine Learning",
            "ServiceName": "OpenAI API",
            "SubAccountId": dims["project_id"],
            "SubAccountName": dims["project_name"],
            "x_ApiKeyId": dims["api_key_id"],
            "x_EffectiveUnitPrice": effective_price(spent),
        }


def effective_price(spent: Spent) -> Decimal | None:
    """What one unit really cost, discounts included; None where OpenAI gives no quantity."""
    return spent.cost / spent.quantity if spent.quantity else None


class _Names:
    """Names beside ids; an id without one has none."""

    def __init__(self, past: History) -> None:
        self._known: dict[str, Names] = {}
        self._ask: Callable[[str], Names] = past.names

    def of(self, dims: dict[str, str | None]) -> dict[str, str | None]:
        """The dimensions with the names of project, API key and user."""
        organization = dims["organization"] or ""
        if organization not in self._known:
            self._known[organization] = self._ask(organization)
        names = self._known[organization]
        return {
            **dims,
            "project_name": names.projects.get(dims.get("project_id") or ""),
            "api_key_name": names.api_keys.get(dims.get("api_key_id") or ""),
            "user_name": names.users.get(dims.get("user_id") or ""),
        }


def _instant(unix: int) -> str:
    return f"{utc(unix):%Y-%m-%dT%H:%M:%SZ}"


def _midnight(day: date) -> int:
    return seconds(datetime(day.year, day.month, day.day, tzinfo=UTC))
