"""Metered tokens of one UTC day by attribute set. Runs inside its caller's transaction."""

import json
from collections.abc import Iterator

from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Width
from otel_openai_usage.storage.results import MeteredTokens
from otel_openai_usage.storage.sql.database import Database


def read(db: Database, organization: str, day: int) -> Iterator[MeteredTokens]:
    """The tokens of an organization's attribute sets, the largest first."""
    found = db.execute(
        "SELECT id FROM sources WHERE organization = ? AND kind = ?", (organization, METERED.name)
    ).fetchone()
    if found is None:
        return
    names = ("input", "output", "input_cached")
    sums = ", ".join(f"{db.whole_sum(name)} AS {name}" for name in names)
    sql = (
        f"SELECT dims.key, {', '.join(names)} FROM (SELECT dims AS id, {sums} FROM readings"
        " WHERE source_id = ? AND width IN (60, 3600, 86400) AND start >= ? AND start < ?"
        " GROUP BY dims) sums JOIN dims ON dims.id = sums.id ORDER BY input + output DESC, key"
    )
    for key, *counts in db.execute(sql, (found[0], day, day + int(Width.DAY))):
        yield MeteredTokens(json.loads(key), *map(int, counts))
