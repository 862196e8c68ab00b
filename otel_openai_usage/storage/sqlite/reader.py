"""Looks at the state while another process may be writing it. Changes nothing."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from otel_openai_usage.domain.endpoints import ENDPOINTS
from otel_openai_usage.domain.groupings import Groupings
from otel_openai_usage.domain.identity import Owner
from otel_openai_usage.domain.model import Amounts, Dims, Names, Width, Window
from otel_openai_usage.domain.reconciliation import Row, total
from otel_openai_usage.domain.source_state import SourceKey, SourceState
from otel_openai_usage.domain.windows import Progress
from otel_openai_usage.storage.sqlite import owners, retention, rows
from otel_openai_usage.storage.sqlite.examine import totals_disagreeing
from otel_openai_usage.storage.sqlite.file import open_read_only, translate_errors


class Reader:
    """Made by `reading`. Every method raises StateError."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path

    def source_states(self, organization: str) -> list[SourceState]:
        """Everything kept of an organization's sources, in the order of `KINDS`."""
        with translate_errors(str(self._path), "read"):
            found = self._db.execute(
                "SELECT id, kind, epoch, complete, horizon, unread FROM sources WHERE organization = ?",
                (organization,),
            ).fetchall()
            source_states = [
                self._source_state(organization, *row) for row in found if row[1] in ENDPOINTS
            ]
        return sorted(
            source_states,
            key=lambda source_state: list(ENDPOINTS).index(source_state.endpoint.name),
        )

    def _source_state(
        self,
        organization: str,
        id_: int,
        name: str,
        epoch: int,
        complete: int,
        horizon: int | None,
        unread: str,
    ) -> SourceState:
        endpoint = ENDPOINTS[name]
        progress = Progress(
            epoch, bool(complete), horizon, tuple(Window(*pair) for pair in json.loads(unread))
        )
        key = SourceKey(id_, organization, endpoint)
        groupings = Groupings(tuple(rows.groupings(self._db, id_)))
        source_state = SourceState.of(key, progress, groupings)
        for stored_series in rows.stored_series_list(self._db, id_, endpoint):
            source_state.series.add(stored_series)
        source_state.purged_before = retention.purged_before(self._db, id_)
        return source_state

    def counted(self, source_state: SourceState, start: int, end: int) -> dict[Dims, Amounts]:
        """What is booked of buckets that begin in [start, end), by attribute set; without those
        that used nothing.
        """
        sums: dict[Dims, Amounts] = {}
        with translate_errors(str(self._path), "read"):
            for row in rows.between(self._db, source_state, tuple(Width), start, end):
                sums[row.dims] = total(sums.get(row.dims, source_state.endpoint.zero), row.amounts)
        return {dims: amounts for dims, amounts in sums.items() if any(amounts)}

    def rows(self, source_state: SourceState, start: int, end: int) -> list[Row]:
        """What is stored of buckets that begin in [start, end), at every width."""
        with translate_errors(str(self._path), "read"):
            return rows.between(self._db, source_state, tuple(Width), start, end)

    def estimates(
        self, source_state: SourceState, start: int, end: int
    ) -> Iterator[tuple[Dims, int, Decimal]]:
        """Attribute set, day and estimated cost of the UTC days that begin in [start, end)."""
        sql = "SELECT dims, day, cost FROM estimates WHERE source_id = ? AND day >= ? AND day < ?"
        with translate_errors(str(self._path), "read"):
            for id_, day, cost in self._db.execute(sql, (source_state.id, start, end)):
                yield source_state.series.by_id[id_].dims, day, Decimal(cost)

    def owner(self, organization: str) -> Owner:
        """What is known of the organization whose data this is."""
        with translate_errors(str(self._path), "read"):
            return owners.owner(self._db, organization)

    @property
    def instance_id(self) -> str:
        """The state's own id; empty before the exporter ran."""
        with translate_errors(str(self._path), "read"):
            sql = "SELECT value FROM meta WHERE key = 'instance_id'"
            found = self._db.execute(sql).fetchone()
        return str(found[0]) if found else ""

    def totals_disagreeing(self) -> str | None:
        """A sentence on the totals that are not the sum of their rows; None if all are."""
        with translate_errors(str(self._path), "read"):
            self._db.execute("BEGIN")  # one snapshot: the exporter may be writing
            try:
                return totals_disagreeing(self._db, str(self._path))
            finally:
                self._db.execute("ROLLBACK")

    def names(self, organization: str) -> Names:
        """The names that are known."""
        found: dict[str, dict[str, str | None]] = {"project": {}, "api_key": {}, "user": {}}
        with translate_errors(str(self._path), "read"):
            for what, id_, name in self._db.execute(
                "SELECT what, id, name FROM names WHERE organization = ?", (organization,)
            ):
                found[what][id_] = name
        return Names(found["project"], found["api_key"], found["user"])


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """A Reader of the state at `path`. Raises StateError, also when there is none."""
    with open_read_only(path) as db:
        yield Reader(db, path)
