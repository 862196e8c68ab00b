"""Whose data the state has: what was said of each organization, and with which keys it was read."""

import json
import sqlite3
from typing import TypedDict

from otel_openai_usage.domain.endpoints import ENDPOINTS
from otel_openai_usage.domain.identity import Identity, Owner

MARKS = 32
"""Keys that are remembered per organization, the newest of them."""
_NOTE = "owner:"
_SOURCES = (
    f"SELECT id FROM sources WHERE organization = ? AND kind IN ({', '.join('?' * len(ENDPOINTS))})"
)


class _Note(TypedDict):
    ids: list[str]
    alias: str | None
    marks: list[str]


def owner(db: sqlite3.Connection, organization: str) -> Owner:
    """What the state knows of an organization. Runs inside its caller's error handling."""
    noted = _noted(db, organization)
    sources = db.execute(
        "SELECT kind, organization_id, newest_bucket FROM sources WHERE organization = ?",
        (organization,),
    ).fetchall()
    ids = {id_ for endpoint, id_, _ in sources if id_ is not None and endpoint in ENDPOINTS}
    newest = [
        (endpoint, end) for endpoint, _, end in sources if end is not None and endpoint in ENDPOINTS
    ]
    newest.sort(key=lambda pair: pair[1], reverse=True)
    values = (organization, *ENDPOINTS)
    members: set[str] = set()
    for column in ("project_id", "api_key_id"):
        sql = f"SELECT DISTINCT {column} FROM dims WHERE source_id IN ({_SOURCES})"
        members |= {id_ for (id_,) in db.execute(sql, values) if id_ is not None}
    sql = "SELECT id FROM names WHERE organization = ? AND what IN ('project', 'api_key')"
    members |= {id_ for (id_,) in db.execute(sql, (organization,))}
    sql = f"SELECT EXISTS (SELECT 1 FROM dims WHERE source_id IN ({_SOURCES}))"
    counted = bool(db.execute(sql, values).fetchone()[0])
    said = Identity(frozenset(ids | set(noted["ids"])), noted["alias"], frozenset(members))
    return Owner(said, tuple(noted["marks"]), counted, newest)


def note(db: sqlite3.Connection, organization: str, seen: Identity, marks: tuple[str, ...]) -> None:
    """Remember what an organization says of itself, and the keys that are of it. Runs inside its
    caller's transaction.
    """
    ids = sorted({*_noted(db, organization)["ids"], *seen.ids})
    value = {"ids": ids, "alias": seen.alias, "marks": marks[-MARKS:]}
    db.execute(
        "INSERT OR REPLACE INTO meta VALUES (?, ?)", (_NOTE + organization, json.dumps(value))
    )


def _noted(db: sqlite3.Connection, organization: str) -> _Note:
    found = db.execute("SELECT value FROM meta WHERE key = ?", (_NOTE + organization,)).fetchone()
    noted: _Note = json.loads(found[0]) if found else _Note(ids=[], alias=None, marks=[])
    return noted
