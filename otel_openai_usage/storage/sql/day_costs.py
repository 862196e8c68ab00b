"""Costs by day and project, billed and estimated. Runs inside its caller's transaction."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from otel_openai_usage.domain.budgets import CostLine
from otel_openai_usage.domain.endpoints import COSTS, LEGACY
from otel_openai_usage.domain.line_item import split
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.month_costs import DayCosts
from otel_openai_usage.domain.pricing import CURRENCY
from otel_openai_usage.storage.sql.database import Database


def read(db: Database, organization: str, start: int, end: int, estimated_from: int) -> DayCosts:
    """Billed costs of the UTC days in [start, end), and estimated ones from `estimated_from` on."""
    sql = (
        f"SELECT readings.start, dims.project_id, dims.currency, {db.decimal_sum('readings.cost')}"
        " FROM sources JOIN readings ON readings.source_id = sources.id"
        " JOIN dims ON dims.id = readings.dims"
        " WHERE sources.organization = ? AND sources.kind = ? AND readings.width = 86400"
        " AND readings.start >= ? AND readings.start < ? GROUP BY 1, 2, 3"
    )
    billed = {}
    for day, project, currency, cost in db.execute(sql, (organization, COSTS.name, start, end)):
        billed[day, project, currency or ""] = Decimal(cost or 0)
    sql = (
        f"SELECT estimates.day, dims.project_id, {db.decimal_sum('estimates.cost')}"
        " FROM sources JOIN estimates ON estimates.source_id = sources.id"
        " JOIN dims ON dims.id = estimates.dims"
        " WHERE sources.organization = ? AND sources.kind NOT IN (?, ?)"
        " AND estimates.day >= ? AND estimates.day < ? GROUP BY 1, 2"
    )
    estimated = {}
    selected = (organization, LEGACY.name, METERED.name, estimated_from, end)
    for day, project, cost in db.execute(sql, selected):
        estimated[day, project] = Decimal(cost or 0)
    return DayCosts(billed, estimated)


_ON_THE_BILL = ("project_id", "api_key_id", "line_item")
_OF_USAGE = ("project_id", "api_key_id", "user_id", "model", "batch")


def billed_lines(
    db: Database, organization: str, start: int, end: int, by: Sequence[str]
) -> list[CostLine]:
    """Billed costs of the UTC days in [start, end) by attributes. A model is that of the line item."""
    wanted = {"line_item" if name == "model" else name for name in by} | {"project_id"}
    columns = [name for name in _ON_THE_BILL if name in wanted]
    places = ", ".join(str(index + 1) for index in range(2 + len(columns)))
    sql = (
        f"SELECT readings.start, dims.currency, {_columns(columns)}"
        f" {db.decimal_sum('readings.cost')}"
        " FROM sources JOIN readings ON readings.source_id = sources.id"
        " JOIN dims ON dims.id = readings.dims"
        " WHERE sources.organization = ? AND sources.kind = ? AND readings.width = 86400"
        f" AND readings.start >= ? AND readings.start < ? GROUP BY {places}"
    )
    lines = []
    for day, currency, *values in db.execute(sql, (organization, COSTS.name, start, end)):
        attributes = _attributes(organization, columns, values)
        if "line_item" in attributes:
            model = split(attributes.pop("line_item")).model
            if model is not None:
                attributes["model"] = model
        lines.append(CostLine(day, attributes, currency or "", Decimal(values[-1] or 0)))
    return lines


def estimated_lines(
    db: Database, organization: str, start: int, end: int, by: Sequence[str]
) -> list[CostLine]:
    """Estimated costs of the UTC days in [start, end) by attributes, in US dollars."""
    columns = [name for name in _OF_USAGE if name in {*by, "project_id"}]
    places = ", ".join(str(index + 1) for index in range(2 + len(columns)))
    sql = (
        f"SELECT estimates.day, sources.kind, {_columns(columns)}"
        f" {db.decimal_sum('estimates.cost')}"
        " FROM sources JOIN estimates ON estimates.source_id = sources.id"
        " JOIN dims ON dims.id = estimates.dims"
        " WHERE sources.organization = ? AND sources.kind NOT IN (?, ?)"
        f" AND estimates.day >= ? AND estimates.day < ? GROUP BY {places}"
    )
    selected = (organization, LEGACY.name, METERED.name, start, end)
    lines = []
    for day, operation, *values in db.execute(sql, selected):
        attributes = _attributes(organization, columns, values)
        attributes["operation"] = operation
        lines.append(CostLine(day, attributes, CURRENCY, Decimal(values[-1] or 0)))
    return lines


def _columns(columns: Sequence[str]) -> str:
    return "".join(f"dims.{name}, " for name in columns)


def _attributes(organization: str, columns: Sequence[str], values: Sequence[Any]) -> dict[str, str]:
    pairs = zip(columns, values, strict=False)
    known = {name: value for name, value in pairs if value is not None}
    return {"organization": organization, **known}
