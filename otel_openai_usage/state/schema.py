"""The tables, and the numbered steps that bring an older file to them.

`readings` has one row per bucket and attribute set; a total is the sum of all rows since the epoch,
also of the coarse rows, which hold only what the finer ones lack. Columns that an endpoint has no
measure for stay NULL.
"""

from otel_openai_usage.core.kinds import KINDS
from otel_openai_usage.state import identities, metered

APPLICATION_ID = 0x6F6F7531  # "oou1": tells our files from other people's

MEASURES = {
    measure.name: "TEXT" if measure.money else "INTEGER"
    for kind in KINDS.values()
    for measure in kind.measures
}
DIMENSIONS = list(dict.fromkeys(name for kind in KINDS.values() for name in kind.dimensions))

_FIRST = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sources (
    id INTEGER PRIMARY KEY, organization TEXT NOT NULL, kind TEXT NOT NULL,
    epoch INTEGER NOT NULL, complete INTEGER NOT NULL DEFAULT 0, horizon INTEGER, unread TEXT NOT NULL DEFAULT '[]',
    last_success INTEGER, newest_bucket INTEGER, organization_id TEXT,
    UNIQUE (organization, kind)
);
CREATE TABLE groupings (source_id INTEGER NOT NULL REFERENCES sources, start INTEGER NOT NULL, group_by TEXT NOT NULL,
    PRIMARY KEY (source_id, start)) WITHOUT ROWID;
CREATE TABLE dims (
    id INTEGER PRIMARY KEY, source_id INTEGER NOT NULL REFERENCES sources, key TEXT NOT NULL,
    {" ".join(f'"{name}" TEXT,' for name in DIMENSIONS)}
    total TEXT NOT NULL, shown TEXT NOT NULL, released INTEGER NOT NULL, first_seen INTEGER NOT NULL, changed INTEGER NOT NULL,
    UNIQUE (source_id, key)
);
CREATE TABLE readings (
    source_id INTEGER NOT NULL, width INTEGER NOT NULL, start INTEGER NOT NULL, dims INTEGER NOT NULL REFERENCES dims,
    {" ".join(f'"{name}" {kind},' for name, kind in MEASURES.items())}
    PRIMARY KEY (source_id, width, start, dims)
) WITHOUT ROWID;
CREATE TABLE suspicions (source_id INTEGER NOT NULL, width INTEGER NOT NULL, start INTEGER NOT NULL, dims INTEGER NOT NULL,
    amounts TEXT NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (source_id, width, start, dims)) WITHOUT ROWID;
CREATE TABLE folds (instrument TEXT NOT NULL, dims INTEGER NOT NULL, PRIMARY KEY (instrument, dims)) WITHOUT ROWID;
CREATE TABLE names (organization TEXT NOT NULL, what TEXT NOT NULL, id TEXT NOT NULL, name TEXT,
    PRIMARY KEY (organization, what, id)) WITHOUT ROWID;
"""

_HISTORY = """
ALTER TABLE dims ADD COLUMN "organization_id" TEXT;
ALTER TABLE dims ADD COLUMN "organization_name" TEXT;
ALTER TABLE dims ADD COLUMN "operation" TEXT;
ALTER TABLE dims ADD COLUMN "estimate" TEXT;
ALTER TABLE dims ADD COLUMN "estimate_shown" TEXT;
CREATE TABLE estimates (source_id INTEGER NOT NULL, dims INTEGER NOT NULL REFERENCES dims, day INTEGER NOT NULL, cost TEXT NOT NULL,
    PRIMARY KEY (source_id, dims, day)) WITHOUT ROWID;
CREATE TABLE backfilled (source_id INTEGER NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL,
    PRIMARY KEY (source_id, start)) WITHOUT ROWID;
CREATE TABLE limits (organization TEXT NOT NULL, project_id TEXT NOT NULL, amount TEXT NOT NULL, currency TEXT NOT NULL,
    enforcing INTEGER NOT NULL, PRIMARY KEY (organization, project_id)) WITHOUT ROWID;
"""

_FLOORS = """
CREATE TABLE floors (instrument TEXT NOT NULL, series TEXT NOT NULL, amount TEXT NOT NULL, PRIMARY KEY (instrument, series)) WITHOUT ROWID;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _HISTORY, metered.MIGRATION, _FLOORS, identities.MIGRATION)
"""Step n brings a file of `user_version` n to n + 1. Never edit one that was released; append."""
VERSION = len(MIGRATIONS)
