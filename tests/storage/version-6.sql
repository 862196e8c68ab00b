-- A state file of version 6, as it was made. Never edit; a newer version gets a file of its own.
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
    total TEXT NOT NULL, shown TEXT NOT NULL, released INTEGER NOT NULL, first_seen INTEGER NOT NULL, changed INTEGER NOT NULL, "organization_id" TEXT, "organization_name" TEXT, "operation" TEXT, "estimate" TEXT, "estimate_shown" TEXT, "subject" TEXT, "type" TEXT, "estimated" TEXT,
    UNIQUE (source_id, key)
);
CREATE TABLE readings (
    source_id INTEGER NOT NULL, width INTEGER NOT NULL, start INTEGER NOT NULL, dims INTEGER NOT NULL REFERENCES dims,
    "input" INTEGER, "output" INTEGER, "input_cached" INTEGER, "input_audio" INTEGER, "output_audio" INTEGER, "input_cache_write" INTEGER, "requests" INTEGER, "images" INTEGER, "characters" INTEGER, "audio" INTEGER, "bytes" INTEGER, "sessions" INTEGER, "searches" INTEGER, "cost" TEXT, "quantity" TEXT, "reasoning" INTEGER,
    PRIMARY KEY (source_id, width, start, dims)
) WITHOUT ROWID;
CREATE TABLE suspicions (source_id INTEGER NOT NULL, width INTEGER NOT NULL, start INTEGER NOT NULL, dims INTEGER NOT NULL,
    amounts TEXT NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (source_id, width, start, dims)) WITHOUT ROWID;
CREATE TABLE folds (instrument TEXT NOT NULL, dims INTEGER NOT NULL, PRIMARY KEY (instrument, dims)) WITHOUT ROWID;
CREATE TABLE names (organization TEXT NOT NULL, what TEXT NOT NULL, id TEXT NOT NULL, name TEXT,
    PRIMARY KEY (organization, what, id)) WITHOUT ROWID;
CREATE TABLE estimates (source_id INTEGER NOT NULL, dims INTEGER NOT NULL REFERENCES dims, day INTEGER NOT NULL, cost TEXT NOT NULL,
    PRIMARY KEY (source_id, dims, day)) WITHOUT ROWID;
CREATE TABLE backfilled (source_id INTEGER NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL,
    PRIMARY KEY (source_id, start)) WITHOUT ROWID;
CREATE TABLE limits (organization TEXT NOT NULL, project_id TEXT NOT NULL, amount TEXT NOT NULL, currency TEXT NOT NULL,
    enforcing INTEGER NOT NULL, PRIMARY KEY (organization, project_id)) WITHOUT ROWID;
CREATE TABLE events (identity BLOB PRIMARY KEY, content BLOB NOT NULL, seen INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE floors (instrument TEXT NOT NULL, series TEXT NOT NULL, amount TEXT NOT NULL, PRIMARY KEY (instrument, series)) WITHOUT ROWID;
CREATE TABLE arrived (number INTEGER PRIMARY KEY, seen INTEGER NOT NULL, pairs BLOB NOT NULL);
CREATE TABLE commits (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL, time INTEGER NOT NULL);
CREATE TABLE losses (id INTEGER PRIMARY KEY, found INTEGER NOT NULL, reason TEXT NOT NULL, seconds INTEGER NOT NULL, details TEXT NOT NULL,
    reread INTEGER NOT NULL DEFAULT 0, accepted INTEGER);
CREATE TABLE purged (dims INTEGER PRIMARY KEY, amounts TEXT NOT NULL);
INSERT INTO commits VALUES (1, 0, 0);
PRAGMA application_id = 1869575473;
PRAGMA user_version = 6;
