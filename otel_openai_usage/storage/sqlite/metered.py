"""Metered events in the file: the hours that they add to, and what they explain. Runs inside its
caller's transaction.
"""

import sqlite3
from collections.abc import Mapping

from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS
from otel_openai_usage.domain.metered import METERED, Share
from otel_openai_usage.domain.model import Amounts, Dims, Width
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.storage.sqlite.rows import added_up


def add(
    db: sqlite3.Connection,
    source_state: SourceState,
    hours: Mapping[tuple[int, Dims], Amounts],
    new: Mapping[Dims, int],
) -> None:
    """Add to hours. `new` has the ids of leaves that the book does not know yet."""
    names = [measure.name for measure in source_state.endpoint.measures]
    db.executemany(
        f"INSERT INTO readings (source_id, width, start, dims, {', '.join(names)}) VALUES (?, ?, ?, ?, {', '.join('?' * len(names))})"
        f" ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in names)}",
        [
            (
                source_state.id,
                int(Width.HOUR),
                start,
                new.get(dims) or source_state.series[dims].id,
                *amounts,
            )
            for (start, dims), amounts in hours.items()
        ],
    )


def shares(db: sqlite3.Connection, day: int) -> list[Share]:
    """What was used, and what events explain, of each model on the UTC day that begins then."""
    found: dict[tuple[str, str | None], list[int]] = {}
    for source, organization, endpoint in db.execute(
        "SELECT id, organization, kind FROM sources"
    ).fetchall():
        if endpoint not in _ENDPOINTS:
            continue
        for model, given, made in db.execute(
            f"SELECT dims.model, {added_up('readings.input')},"
            f" coalesce({added_up('readings.output')}, 0) FROM readings JOIN dims ON dims.id = readings.dims"
            " WHERE readings.source_id = ? AND width IN (60, 3600, 86400) AND start >= ? AND start < ? GROUP BY dims.model",
            (source, day, day + Width.DAY),
        ):
            sums = found.setdefault((organization, model), [0, 0, 0, 0])
            first = 2 if endpoint == METERED.name else 0
            sums[first] += given
            sums[first + 1] += made
    return [
        Share(organization, model, token_type, sums[place], sums[place + 2])
        for (organization, model), sums in found.items()
        for place, token_type in enumerate(("input", "output"))
    ]


_ENDPOINTS = {METERED.name} | {
    endpoint.name
    for endpoint in USAGE_ENDPOINTS.values()
    if any(measure.name == "input" for measure in endpoint.measures)
}
