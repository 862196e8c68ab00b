"""Sources (table `sources`): how far each was read, and how it is grouped (table `groupings`).

Each function runs inside its caller's transaction.
"""

import json

from otel_openai_usage.domain.endpoints import ENDPOINTS, Endpoint
from otel_openai_usage.domain.groupings import Groupings
from otel_openai_usage.domain.model import Window
from otel_openai_usage.domain.source_state import SourceKey, SourceState
from otel_openai_usage.domain.windows import Progress
from otel_openai_usage.storage.sql import measures, notes
from otel_openai_usage.storage.sql.database import Database
from otel_openai_usage.storage.sql.series import read_series


def add_source(
    db: Database,
    organization: str,
    endpoint: Endpoint,
    epoch: int,
    group_by: tuple[str, ...],
) -> None:
    """Create a source that begins counting at `epoch`, unless there is one."""
    # An existing source must keep its epoch, so this never updates.
    source = (organization, endpoint.name)
    sql = (
        "INSERT INTO sources (organization, kind, epoch) VALUES (?, ?, ?)"
        " ON CONFLICT (organization, kind) DO NOTHING"
    )
    db.execute(sql, (*source, epoch))
    sql = (
        "INSERT INTO groupings SELECT id, 0, CAST(? AS TEXT) FROM sources WHERE organization = ? AND kind = ?"
        " AND NOT EXISTS (SELECT 1 FROM groupings WHERE source_id = sources.id)"
    )
    db.execute(sql, (",".join(group_by), *source))


def read_source(db: Database, organization: str, endpoint: Endpoint) -> SourceState | None:
    """The state of a source with all its series, None if there is no such source."""
    sql = (
        "SELECT id, epoch, complete, horizon, unread, last_success, newest_bucket, organization_id"
        " FROM sources WHERE organization = ? AND kind = ?"
    )
    found = db.execute(sql, (organization, endpoint.name)).fetchone()
    if found is None:
        return None
    id_, epoch, complete, horizon, unread, last_success, newest_bucket, organization_id = found
    unread_windows = tuple(Window(start, end) for start, end in json.loads(unread))
    progress = Progress(epoch, bool(complete), horizon, unread_windows)
    key = SourceKey(id_, organization, endpoint)
    source_state = SourceState.of(key, progress, read_groupings(db, id_))
    source_state.counted_from = measures.counted_from(db, id_, endpoint, epoch)
    for series in read_series(db, id_, endpoint):
        source_state.series.add(series)
    source_state.status.last_success = last_success
    source_state.status.newest_bucket = newest_bucket
    source_state.organization_id = organization_id
    source_state.purged_before = purged_before(db, id_)
    return source_state


def read_without_series(db: Database, organization: str) -> list[SourceState]:
    """The polled sources of an organization, with their progress only."""
    sql = "SELECT id, kind, epoch, complete, horizon, unread FROM sources WHERE organization = ?"
    found = []
    for id_, kind, epoch, complete, horizon, unread in db.execute(sql, (organization,)).fetchall():
        endpoint = ENDPOINTS.get(kind)
        if endpoint is None:
            continue
        windows = tuple(Window(start, end) for start, end in json.loads(unread))
        progress = Progress(epoch, bool(complete), horizon, windows)
        key = SourceKey(id_, organization, endpoint)
        found.append(SourceState.of(key, progress, read_groupings(db, id_)))
    return found


def purged_before(db: Database, source: int) -> int:
    """The start of the first day whose rows were not purged because of their age, 0 if none was."""
    return int(notes.read(db, notes.purged_before_key(source)) or 0)


def read_groupings(db: Database, source: int) -> Groupings:
    """The groupings of a source."""
    sql = "SELECT start, group_by FROM groupings WHERE source_id = ? ORDER BY start"
    found = []
    for start, text in db.execute(sql, (source,)):
        group_by = tuple(text.split(",")) if text else ()
        found.append((start, group_by))
    return Groupings(tuple(found))


def write_groupings(db: Database, source: int, groupings: Groupings) -> None:
    """Replace the stored groupings of a source."""
    values = [(source, start, ",".join(group_by)) for start, group_by in groupings.entries]
    db.execute("DELETE FROM groupings WHERE source_id = ?", (source,))
    db.executemany("INSERT INTO groupings VALUES (?, ?, ?)", values)


def write_progress(db: Database, source_state: SourceState, progress: Progress) -> None:
    """Store how far the source was read."""
    # `coalesce` keeps what is stored where this process does not know a value yet.
    unread = json.dumps([[window.start, window.end] for window in progress.unread])
    sql = (
        "UPDATE sources SET complete = ?, horizon = ?, unread = ?,"
        " last_success = coalesce(CAST(? AS BIGINT), last_success),"
        " newest_bucket = coalesce(CAST(? AS BIGINT), newest_bucket),"
        " organization_id = coalesce(CAST(? AS TEXT), organization_id) WHERE id = ?"
    )
    values = (
        int(progress.complete),
        progress.horizon,
        unread,
        source_state.status.last_success,
        source_state.status.newest_bucket,
        source_state.organization_id,
        source_state.id,
    )
    db.execute(sql, values)


def read_backfilled(db: Database, source: int) -> list[Window]:
    """The windows before counting began that a backfill read."""
    sql = 'SELECT start, "end" FROM backfilled WHERE source_id = ? ORDER BY start'
    return [Window(start, end) for start, end in db.execute(sql, (source,))]


def add_backfilled(db: Database, source: int, window: Window) -> None:
    """A backfill read this window."""
    sql = (
        "INSERT INTO backfilled VALUES (?, ?, ?)"
        ' ON CONFLICT (source_id, start) DO UPDATE SET "end" = excluded."end"'
        ' WHERE backfilled."end" < excluded."end"'
    )
    db.execute(sql, (source, window.start, window.end))
