"""Since when the measures of a source are stored, as one note for each source.

The note is JSON: `{measure: Unix time}`, 0 for a measure that was stored from the beginning. A
measure that is not in it is new in this version: older rows have nothing of it.

Each function runs inside its caller's transaction.
"""

import json
from collections.abc import Collection, Mapping

from otel_openai_usage.domain.endpoints import STORED, Endpoint
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.source_state import NEVER
from otel_openai_usage.storage.sql import notes
from otel_openai_usage.storage.sql.database import Database


def remember_known(db: Database, added_columns: Collection[str]) -> None:
    """Before columns are added to a state: note the measures that its sources have stored."""
    if not added_columns:
        return
    endpoints = {**STORED, METERED.name: METERED}
    for source, name in db.execute("SELECT id, kind FROM sources").fetchall():
        if name in endpoints:
            measures = [measure.name for measure in endpoints[name].measures]
            known = {measure: 0 for measure in measures if measure not in added_columns}
            notes.initial(db, notes.measures_key(source), json.dumps(known))


def begin(db: Database, source: int, endpoint: Endpoint) -> None:
    """A source that has no note yet is new, or of a state that lacks no column."""
    known = {measure.name: 0 for measure in endpoint.measures}
    notes.initial(db, notes.measures_key(source), json.dumps(known))


def counted_from(db: Database, source: int, endpoint: Endpoint, epoch: int) -> dict[int, int]:
    """The measures that count later than the source: from when, by place.

    NEVER for those that are new and have no time yet.
    """
    text = notes.read(db, notes.measures_key(source))
    if text is None:
        return {}
    known: Mapping[str, int] = json.loads(text)
    found = {}
    for place, measure in enumerate(endpoint.measures):
        start = known.get(measure.name, NEVER)
        if start > epoch:
            found[place] = start
    return found


def write(db: Database, source: int, endpoint: Endpoint, counted: Mapping[int, int]) -> None:
    """Store from when measures count, by place; others count from the beginning."""
    known = {measure.name: counted.get(place, 0) for place, measure in enumerate(endpoint.measures)}
    notes.write(db, notes.measures_key(source), json.dumps(known))
