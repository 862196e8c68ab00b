"""Costs by day and project, billed and estimated. Runs inside its caller's transaction."""

from decimal import Decimal

from otel_openai_usage.domain.endpoints import COSTS, LEGACY
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.month_costs import DayCosts
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
