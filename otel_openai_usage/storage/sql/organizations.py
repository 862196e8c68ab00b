"""Which OpenAI organization the data of a configured organization belongs to."""

import json
from typing import TypedDict

from otel_openai_usage.domain.endpoints import ENDPOINTS
from otel_openai_usage.domain.identity import Identity, Owner
from otel_openai_usage.storage.sql import notes
from otel_openai_usage.storage.sql.database import Database

MAX_MARKS = 32
"""How many fingerprints of keys are stored for each organization, the newest."""

_PLACEHOLDERS = ", ".join("?" * len(ENDPOINTS))
_POLLED_SOURCES = f"SELECT id FROM sources WHERE organization = ? AND kind IN ({_PLACEHOLDERS})"


class _OwnerNote(TypedDict):
    ids: list[str]
    alias: str | None
    marks: list[str]


def read_owner(db: Database, organization: str) -> Owner:
    """Everything that identifies the OpenAI organization. Runs inside its caller's transaction."""
    note = _read_note(db, organization)
    sql = "SELECT kind, organization_id, newest_bucket FROM sources WHERE organization = ?"
    ids = set(note["ids"])
    newest = []
    for endpoint, organization_id, newest_bucket in db.execute(sql, (organization,)):
        # Events and legacy rows do not prove which organization a key belongs to.
        if endpoint not in ENDPOINTS:
            continue
        if organization_id is not None:
            ids.add(organization_id)
        if newest_bucket is not None:
            newest.append((endpoint, newest_bucket))
    # The newest first, because only the first few are compared with what a key can read.
    newest.sort(key=lambda pair: pair[1], reverse=True)
    members = _members(db, organization)
    identity = Identity(frozenset(ids), note["alias"], frozenset(members))
    sql = f"SELECT EXISTS (SELECT 1 FROM dims WHERE source_id IN ({_POLLED_SOURCES}))"
    (counted,) = db.execute(sql, (organization, *ENDPOINTS)).fetchone()
    return Owner(identity, tuple(note["marks"]), bool(counted), newest)


def _members(db: Database, organization: str) -> set[str]:
    """The ids of projects and API keys in the organization's data."""
    found: set[str | None] = set()
    for column in ("project_id", "api_key_id"):
        sql = f"SELECT DISTINCT {column} FROM dims WHERE source_id IN ({_POLLED_SOURCES})"
        found.update(id_ for (id_,) in db.execute(sql, (organization, *ENDPOINTS)))
    sql = "SELECT id FROM names WHERE organization = ? AND what IN ('project', 'api_key')"
    found.update(id_ for (id_,) in db.execute(sql, (organization,)))
    return {id_ for id_ in found if id_ is not None}


def write_owner(db: Database, organization: str, seen: Identity, marks: tuple[str, ...]) -> None:
    """Store what the organization's answers say of it, and the fingerprints of its keys.

    Runs inside its caller's transaction.
    """
    ids = sorted({*_read_note(db, organization)["ids"], *seen.ids})
    value = {"ids": ids, "alias": seen.alias, "marks": marks[-MAX_MARKS:]}
    notes.write(db, notes.owner_key(organization), json.dumps(value))


def _read_note(db: Database, organization: str) -> _OwnerNote:
    text = notes.read(db, notes.owner_key(organization))
    if text is None:
        return _OwnerNote(ids=[], alias=None, marks=[])
    note: _OwnerNote = json.loads(text)
    return note
