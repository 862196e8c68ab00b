"""Looks at whole days of the state while another process may be writing it: many rows, fast, as
plain numbers.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Limit, Names, Width, floor
from otel_openai_usage.domain.source_state import Status
from otel_openai_usage.storage.sqlite.file import open_read_only, translate_errors
from otel_openai_usage.storage.sqlite.rows import added_up

_DAY = int(Width.DAY)


class Daily:
    """Made by `daily`. Every method raises StateError."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path

    def version(self) -> int:
        """Another number whenever the file was written."""
        return int(self._all("PRAGMA data_version")[0][0])

    def organizations(self) -> list[str]:
        """Whose usage is kept, in the order in which they came."""
        return [
            name
            for (name,) in self._all(
                "SELECT organization FROM sources GROUP BY organization ORDER BY min(id)"
            )
        ]

    def sources(self, organization: str) -> dict[str, int]:
        """The ids of an organization's sources, by kind."""
        return dict(
            self._all("SELECT kind, id FROM sources WHERE organization = ?", (organization,))
        )

    def statuses(self, organization: str) -> list[Status]:
        """How far each source has come, as of the last time that it was written down."""
        sql = "SELECT kind, last_success, newest_bucket FROM sources WHERE organization = ?"
        return [
            Status(organization, endpoint, None, success, newest)
            for endpoint, success, newest in self._all(sql, (organization,))
        ]

    def first(self, organization: str) -> int | None:
        """The start of the oldest row."""
        sql = "SELECT min(start) FROM readings WHERE source_id = ? AND width = ?"
        found = [
            self._all(sql, (id_, int(width)))[0][0]
            for id_ in self.sources(organization).values()
            for width in Width
        ]
        return min((start for start in found if start is not None), default=None)

    def stored_series_list(
        self, source: int, endpoint: Endpoint
    ) -> dict[int, Mapping[str, str | None]]:
        """The attribute sets of a source, by id."""
        names = endpoint.dimensions
        found = self._all(
            f"SELECT id, {', '.join(names)} FROM dims WHERE source_id = ? ORDER BY id", (source,)
        )
        return {id_: dict(zip(names, values, strict=True)) for id_, *values in found}

    def rows(self, source: int, endpoint: Endpoint, since: int) -> Iterator[tuple[float, ...]]:
        """(attribute set, day, the kind's measures) from a day on; a day may come in several parts.
        Money is float.
        """
        plain = ", ".join(
            f"CAST({each.name} AS REAL)" if each.money else each.name for each in endpoint.measures
        )
        sums = ", ".join(
            f"sum(CAST({each.name} AS REAL))" if each.money else added_up(each.name)
            for each in endpoint.measures
        )
        where = "FROM readings WHERE source_id = ? AND width = ? AND start >= ?"
        with translate_errors(str(self._path), "read"):
            yield from self._db.execute(
                f"SELECT dims, start, {plain} {where}", (source, _DAY, since)
            )
            for width in (Width.HOUR, Width.MINUTE):
                (first,) = self._db.execute(
                    f"SELECT min(start) {where}", (source, int(width), since)
                ).fetchone()
                (last,) = self._db.execute(
                    f"SELECT max(start) {where}", (source, int(width), since)
                ).fetchone()
                # Day by day, so that what is grouped stays small: several times as fast as all at
                # once.
                for day in range(floor(first, _DAY), last + 1, _DAY) if first is not None else ():
                    sql = f"SELECT dims, {day:d}, {sums} {where} AND start < ? GROUP BY dims"
                    yield from self._db.execute(sql, (source, int(width), day, day + _DAY))

    def estimates(self, source: int, since: int) -> Iterator[tuple[float, ...]]:
        """(attribute set, day, estimated cost) from a day on, where there is a price."""
        sql = "SELECT dims, day, CAST(cost AS REAL) FROM estimates WHERE source_id = ? AND day >= ?"
        with translate_errors(str(self._path), "read"):
            yield from self._db.execute(sql, (source, since))

    def names(self, organization: str) -> Names:
        """The names that are known."""
        found: dict[str, dict[str, str | None]] = {"project": {}, "api_key": {}, "user": {}}
        for what, id_, name in self._all(
            "SELECT what, id, name FROM names WHERE organization = ?", (organization,)
        ):
            found[what][id_] = name
        return Names(found["project"], found["api_key"], found["user"])

    def limits(self, organization: str) -> list[Limit]:
        """The spend limits that OpenAI said last."""
        sql = "SELECT project_id, amount, currency, enforcing FROM limits WHERE organization = ?"
        return [
            Limit(project or None, Decimal(amount), currency, bool(enforcing))
            for project, amount, currency, enforcing in self._all(sql, (organization,))
        ]

    def _all(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with translate_errors(str(self._path), "read"):
            return self._db.execute(sql, values).fetchall()


@contextmanager
def daily(path: Path) -> Iterator[Daily]:
    """A look at the state at `path`. Raises StateError, also when there is none."""
    with open_read_only(path) as db:
        yield Daily(db, path)
