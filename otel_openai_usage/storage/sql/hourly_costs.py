"""Estimated cost by the hour, project and model, of the last weeks (table `hourly_costs`).

Each function runs inside its caller's transaction. The empty text stands for none.
"""

from collections.abc import Mapping
from decimal import Decimal

from otel_openai_usage.domain.pricing import HourKey, add
from otel_openai_usage.domain.unusual import KEPT, HourlyCost
from otel_openai_usage.storage.sql.database import Database

_COLUMNS = ("organization", "hour", "project_id", "model", "cost")


def add_hours(db: Database, organization: str, growth: Mapping[HourKey, Decimal]) -> None:
    """Add costs by hour, project and model, and forget hours that are too old."""
    if not growth:
        return
    hours = {hour for hour, _, _ in growth}
    newest = _newest(db, organization)
    oldest_kept = max([newest, *hours]) - KEPT
    # Added in Python, because SQLite would add the decimal texts up as floats.
    sums = {key: cost for key, cost in growth.items() if key[0] >= oldest_kept}
    for hour in sorted({hour for hour, _, _ in sums}):
        sql = "SELECT project_id, model, cost FROM hourly_costs WHERE organization = ? AND hour = ?"
        for project, model, cost in db.execute(sql, (organization, hour)).fetchall():
            key = (hour, project, model)
            if key in sums:
                sums[key] = add(Decimal(cost), sums[key])
    values = [
        (organization, hour, project, model, str(cost))
        for (hour, project, model), cost in sums.items()
    ]
    conflict = (
        "ON CONFLICT (organization, hour, project_id, model) DO UPDATE SET cost = excluded.cost"
    )
    db.write("hourly_costs", _COLUMNS, values, conflict=conflict)
    if max(hours) > newest:
        sql = "DELETE FROM hourly_costs WHERE organization = ? AND hour < ?"
        db.execute(sql, (organization, oldest_kept))


def _newest(db: Database, organization: str) -> int:
    sql = "SELECT max(hour) FROM hourly_costs WHERE organization = ?"
    (newest,) = db.execute(sql, (organization,)).fetchone()
    return int(newest or 0)


def read(db: Database, organization: str, start: int, end: int) -> list[HourlyCost]:
    """The costs of the hours in [start, end)."""
    sql = (
        "SELECT hour, project_id, model, cost FROM hourly_costs"
        " WHERE organization = ? AND hour >= ? AND hour < ?"
    )
    found = []
    for hour, project, model, cost in db.execute(sql, (organization, start, end)):
        found.append(HourlyCost(hour, project or None, model or None, Decimal(cost)))
    return found
