"""The tables of the state, as frozen steps, and the columns that follow from the endpoint table.

`readings` has one row per bucket and attribute set; a total is the sum of all rows since the epoch,
also of the coarse rows, which hold only what the finer ones lack. A column that an endpoint has no
measure for stays NULL.

`MIGRATIONS` is literal text. Nothing in it is computed: what a released version did to a file must
never depend on today's endpoint table. A column for a measure or a dimension that came later is
made by `add_missing_columns`, after the migrations, and never by a migration.
"""

import sqlite3
from collections.abc import Iterable, Mapping

from otel_openai_usage.domain.endpoints import STORED, Endpoint
from otel_openai_usage.domain.metered import METERED

APPLICATION_ID = 0x6F6F7531  # "oou1": tells our files from other people's

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

MIGRATIONS: tuple[str, ...] = (_TABLES, _HISTORY, _EVENTS, _FLOORS, _ARRIVED, _COMMITS)
"""Step n brings a file of `user_version` n to n + 1. Never edit one; append. A test holds their
texts.
"""
VERSION = len(MIGRATIONS)
FIRST_WITH_COMMITS = 6
"""The first version that numbers its commits and knows what it lost."""


def missing_columns(db: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Table, name and type of each column that today's endpoints need and that the file lacks."""
    wanted = _columns((*STORED.values(), METERED))
    return [
        (table, name, kind)
        for table, columns in wanted.items()
        for name, kind in columns.items()
        if name not in _existing_columns(db, table)
    ]


def add_missing_columns(db: sqlite3.Connection) -> None:
    """Create the columns that today's endpoints need. Doing so twice does no harm.

    Runs inside its caller's transaction. Columns that an endpoint no longer needs stay.
    """
    for table, name, kind in missing_columns(db):
        db.execute(f'ALTER TABLE {table} ADD COLUMN "{name}" {kind}')


def _columns(endpoints: Iterable[Endpoint]) -> Mapping[str, Mapping[str, str]]:
    """The columns that these endpoints need: name and type, by table."""
    measures: dict[str, str] = {}
    dimensions: dict[str, str] = {}
    for endpoint in endpoints:
        for measure in endpoint.measures:
            # Money is kept as text, so that no digit is lost.
            measures[measure.name] = "TEXT" if measure.money else "INTEGER"
        for dimension in endpoint.group_by + endpoint.derived:
            dimensions[dimension] = "TEXT"
    return {"readings": measures, "dims": dimensions}


def _existing_columns(db: sqlite3.Connection, table: str) -> set[str]:
    return {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
