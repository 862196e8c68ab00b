"""The released migrations as literal text. Nothing here is computed.

A released migration must never depend on today's endpoints: what it did to a file is a fact. A
column for a measure or a dimension that came later is added by `schema.add_missing_columns`, which
runs after the migrations.

`readings` has one row for each bucket and attribute set. A column for which an endpoint has no
measure stays NULL.
"""

APPLICATION_ID = 0x6F6F7531  # "oou1": distinguishes our files from those of other programs

_TABLES = """
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
    "project_id" TEXT, "user_id" TEXT, "api_key_id" TEXT, "model" TEXT, "batch" TEXT, "service_tier" TEXT, "api_source" TEXT, "size" TEXT, "source" TEXT, "vector_store_id" TEXT, "context_level" TEXT, "line_item" TEXT, "currency" TEXT,
    total TEXT NOT NULL, shown TEXT NOT NULL, released INTEGER NOT NULL, first_seen INTEGER NOT NULL, changed INTEGER NOT NULL,
    UNIQUE (source_id, key)
);
CREATE TABLE readings (
    source_id INTEGER NOT NULL, width INTEGER NOT NULL, start INTEGER NOT NULL, dims INTEGER NOT NULL REFERENCES dims,
    "input" INTEGER, "output" INTEGER, "input_cached" INTEGER, "input_audio" INTEGER, "output_audio" INTEGER, "input_cache_write" INTEGER, "requests" INTEGER, "images" INTEGER, "characters" INTEGER, "audio" INTEGER, "bytes" INTEGER, "sessions" INTEGER, "searches" INTEGER, "cost" TEXT, "quantity" TEXT,
    PRIMARY KEY (source_id, width, start, dims)
) WITHOUT ROWID;
CREATE TABLE suspicions (source_id INTEGER NOT NULL, width INTEGER NOT NULL, start INTEGER NOT NULL, dims INTEGER NOT NULL,
    amounts TEXT NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (source_id, width, start, dims)) WITHOUT ROWID;
CREATE TABLE folds (instrument TEXT NOT NULL, dims INTEGER NOT NULL, PRIMARY KEY (instrument, dims)) WITHOUT ROWID;
CREATE TABLE names (organization TEXT NOT NULL, what TEXT NOT NULL, id TEXT NOT NULL, name TEXT,
    PRIMARY KEY (organization, what, id)) WITHOUT ROWID;
"""  # noqa: E501 - frozen as it was released

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

_EVENTS = """
CREATE TABLE events (identity BLOB PRIMARY KEY, content BLOB NOT NULL, seen INTEGER NOT NULL) WITHOUT ROWID;
ALTER TABLE readings ADD COLUMN "reasoning" INTEGER;
ALTER TABLE dims ADD COLUMN "subject" TEXT;
ALTER TABLE dims ADD COLUMN "type" TEXT;
ALTER TABLE dims ADD COLUMN "estimated" TEXT;
"""

_FLOORS = """
CREATE TABLE floors (instrument TEXT NOT NULL, series TEXT NOT NULL, amount TEXT NOT NULL, PRIMARY KEY (instrument, series)) WITHOUT ROWID;
"""

_ARRIVED = (
    "CREATE TABLE arrived (number INTEGER PRIMARY KEY, seen INTEGER NOT NULL, pairs BLOB NOT NULL);"
)

_COMMITS = """
CREATE TABLE commits (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL, time INTEGER NOT NULL);
INSERT INTO commits VALUES (1, 0, 0);
CREATE TABLE losses (id INTEGER PRIMARY KEY, found INTEGER NOT NULL, reason TEXT NOT NULL, seconds INTEGER NOT NULL, details TEXT NOT NULL,
    reread INTEGER NOT NULL DEFAULT 0, accepted INTEGER);
CREATE TABLE purged (dims INTEGER PRIMARY KEY, amounts TEXT NOT NULL);
"""

_HOURLY_COSTS = """
CREATE TABLE hourly_costs (
    organization TEXT NOT NULL, hour INTEGER NOT NULL, project_id TEXT NOT NULL, model TEXT NOT NULL, cost TEXT NOT NULL,
    PRIMARY KEY (organization, hour, project_id, model)) WITHOUT ROWID;
"""

MIGRATIONS: tuple[str, ...] = (
    _TABLES, _HISTORY, _EVENTS, _FLOORS, _ARRIVED, _COMMITS, _HOURLY_COSTS,
)  # fmt: skip
"""Migration n turns a file of `user_version` n into n + 1. Never edit one; append. A test compares
their hashes.
"""
VERSION = len(MIGRATIONS)
"""The `user_version` of a current file."""
FIRST_WITH_COMMITS = 6
"""The first version that numbers its commits and stores losses."""
