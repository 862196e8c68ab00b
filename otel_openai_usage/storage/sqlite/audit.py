"""Reads everything that a state holds: values that cannot be understood, and totals that are not the
sum of their rows.

A state whose pages have their checksums needs none of this. It is for a state that something else
changed, for one without a marker, and for `verify`.
"""

import json
import math
import sqlite3
from dataclasses import dataclass
from decimal import Decimal

from otel_openai_usage.domain.endpoints import LEGACY, STORED, Endpoint
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Amount, Amounts, Width
from otel_openai_usage.domain.reconciliation import difference, total
from otel_openai_usage.storage.sqlite import rows

ENDPOINTS = {**STORED, METERED.name: METERED}

_IMPRECISE_FROM = 1 << 53


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A total that is not the sum of its rows. `key` is the attribute set as JSON."""

    organization: str
    endpoint: Endpoint
    stored_series: int
    key: str
    total: Amounts
    rows: Amounts

    def __str__(self) -> str:
        parts = [
            f"{measure.name} {held} instead of {summed}"
            for measure, held, summed in zip(
                self.endpoint.measures, self.total, self.rows, strict=True
            )
            if held != summed
        ]
        return f"{self.organization} {self.endpoint.source} {self.key}: {', '.join(parts)}"


def disagreements(db: sqlite3.Connection) -> list[Disagreement]:
    """Every total that is not the sum of the rows that count for it, purged rows included. Raises
    one of `NOT_UNDERSTOOD` for a value that cannot be understood.
    """
    found: list[Disagreement] = []
    sources = db.execute("SELECT id, organization, kind, epoch FROM sources ORDER BY id").fetchall()
    for source, organization, name, epoch in sources:
        endpoint = ENDPOINTS.get(name)
        if endpoint is None:
            continue
        expected = (
            _levels(db, source, endpoint) if endpoint.level else _sums(db, source, endpoint, epoch)
        )
        keys = dict(db.execute("SELECT id, key FROM dims WHERE source_id = ?", (source,)))
        for stored_series in rows.stored_series_list(db, source, endpoint):
            summed = expected.get(stored_series.id) or (
                stored_series.total if endpoint.level else endpoint.zero
            )
            if not _equal(stored_series.total, summed):
                found.append(
                    Disagreement(
                        organization,
                        endpoint,
                        stored_series.id,
                        keys[stored_series.id],
                        stored_series.total,
                        summed,
                    )
                )
    return found


def _equal(one: Amounts, other: Amounts) -> bool:
    return all(_same(held, summed) for held, summed in zip(one, other, strict=True))


def _same(held: Amount, summed: Amount) -> bool:
    """Sums that SQLite could not keep in 64 bits are of limited precision."""
    return held == summed or (
        summed >= _IMPRECISE_FROM and math.isclose(held, summed, rel_tol=1e-9)
    )


def counts_from(endpoint: Endpoint, epoch: int) -> int:
    """The start of the first bucket that counts. Events and the legacy source count however late
    they come.
    """
    return 0 if endpoint.name in (METERED.name, LEGACY.name) else epoch


def _sums(
    db: sqlite3.Connection, source: int, endpoint: Endpoint, epoch: int
) -> dict[int, Amounts]:
    """What counts for each total, by the id of its attribute set."""
    sums = summed_rows(db, source, endpoint, counts_from(endpoint, epoch))
    purged = db.execute(
        "SELECT p.dims, p.amounts FROM purged p JOIN dims d ON d.id = p.dims WHERE d.source_id = ?",
        (source,),
    )
    for stored_series, text in purged:
        sums[stored_series] = total(
            sums.get(stored_series, endpoint.zero), rows.amounts(text, endpoint)
        )
    return sums


def summed_rows(
    db: sqlite3.Connection, source: int, endpoint: Endpoint, start: int, end: int = 1 << 62
) -> dict[int, Amounts]:
    """The sum of the rows whose bucket begins in [start, end), by the id of the attribute set."""
    names = [measure.name for measure in endpoint.measures]
    where = "FROM readings WHERE source_id = ? AND start >= ? AND start < ?"
    span = (source, start, end)
    sums: dict[int, Amounts] = {}
    if any(measure.money for measure in endpoint.measures):  # SQLite would add money up as floats
        for stored_series, *values in db.execute(f"SELECT dims, {', '.join(names)} {where}", span):
            amounts = tuple(
                Decimal(value) if measure.money else _whole(value)
                for measure, value in zip(endpoint.measures, values, strict=True)
            )
            sums[stored_series] = total(sums.get(stored_series, endpoint.zero), amounts)
        return sums
    added = ", ".join(f"coalesce({rows.added_up(name)}, 0)" for name in names)
    for stored_series, *values in db.execute(f"SELECT dims, {added} {where} GROUP BY dims", span):
        sums[stored_series] = tuple(
            [int(value) for value in values]
        )  # beyond 64 bits it is a float
    return sums


def _levels(db: sqlite3.Connection, source: int, endpoint: Endpoint) -> dict[int, Amounts]:
    """The value of the bucket that each level was read in, where that row is still kept."""
    names = ", ".join(f"r.{measure.name}" for measure in endpoint.measures)
    found: dict[int, Amounts] = {}
    sql = (
        f"SELECT d.id, {names} FROM dims d JOIN readings r ON r.source_id = d.source_id"
        f" AND r.width = {int(Width.MINUTE)} AND r.start = d.changed AND r.dims = d.id"
        " WHERE d.source_id = ?"
    )
    for stored_series, *values in db.execute(sql, (source,)):
        found[stored_series] = tuple([_whole(value) for value in values])
    return found


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a whole number, found {value!r}")
    return value


def read_everything(db: sqlite3.Connection) -> None:
    """Decode every stored value. Raises one of `NOT_UNDERSTOOD` for one that cannot be understood."""
    for source, name, epoch, unread in db.execute(
        "SELECT id, kind, epoch, unread FROM sources"
    ).fetchall():
        _whole(epoch)
        for start, end in json.loads(unread):
            _whole(start)
            _whole(end)
        rows.groupings(db, source)
        if endpoint := ENDPOINTS.get(name):
            known = {
                stored_series.id for stored_series in rows.stored_series_list(db, source, endpoint)
            }
            for table in ("readings", "suspicions", "estimates"):
                _expect_known(db, table, source, known)
    _read_the_rest(db)


def _read_the_rest(db: sqlite3.Connection) -> None:
    widths = {int(width) for width in Width}
    for (width,) in db.execute("SELECT DISTINCT width FROM readings"):
        if width not in widths:
            raise ValueError(f"a row has the bucket width {width!r}")
    for (text,) in db.execute("SELECT cost FROM estimates"):
        Decimal(text)
    for (text,) in db.execute("SELECT series FROM floors"):
        json.loads(text)
    for (text,) in db.execute("SELECT amount FROM floors UNION ALL SELECT amount FROM limits"):
        rows.amount(text)
    for (text,) in db.execute("SELECT value FROM meta WHERE key LIKE 'legacy.%'"):
        json.loads(text)


def _expect_known(db: sqlite3.Connection, table: str, source: int, known: set[int]) -> None:
    sql = f"SELECT DISTINCT dims FROM {table} WHERE source_id = ?"
    for (stored_series,) in db.execute(sql, (source,)):
        if stored_series not in known:
            raise LookupError(f"a row of {table} has no attribute set {stored_series!r}")


def _dumped(amounts: Amounts) -> str:
    return json.dumps([amount if isinstance(amount, int) else str(amount) for amount in amounts])


def remember_purged(
    db: sqlite3.Connection, source: int, endpoint: Endpoint, start: int, end: int
) -> None:
    """Before the rows in [start, end) are deleted: keep what they count for each total. Runs inside
    its caller's transaction.
    """
    if endpoint.level:
        return
    (epoch,) = db.execute("SELECT epoch FROM sources WHERE id = ?", (source,)).fetchone()
    first = max(start, counts_from(endpoint, epoch))
    _add_purged(db, endpoint, summed_rows(db, source, endpoint, first, end))


def assume_purged(db: sqlite3.Connection) -> None:
    """For a state of a version that did not keep what it purged: whatever a total has beyond its
    rows counts as purged. Runs inside its caller's transaction.
    """
    for one in disagreements(db):
        if not one.endpoint.level:
            missing = difference(one.total, one.rows)
            _add_purged(db, one.endpoint, {one.stored_series: missing})


def _add_purged(db: sqlite3.Connection, endpoint: Endpoint, sums: dict[int, Amounts]) -> None:
    for stored_series, amounts in sums.items():
        if not any(amounts):
            continue
        held = db.execute("SELECT amounts FROM purged WHERE dims = ?", (stored_series,)).fetchone()
        before = rows.amounts(held[0], endpoint) if held else endpoint.zero
        db.execute(
            "INSERT OR REPLACE INTO purged VALUES (?, ?)",
            (stored_series, _dumped(total(before, amounts))),
        )


def set_totals_to_rows(db: sqlite3.Connection) -> dict[int, tuple[Amounts, Amounts]]:
    """Let every total be the sum of its rows. What is shown never falls: what it is above the total
    then counts as restated. Total and shown of those that changed, by the id of the attribute set.
    Runs inside its caller's transaction.
    """
    found = disagreements(db)
    changed: dict[int, tuple[Amounts, Amounts]] = {}
    for one in found:
        (text,) = db.execute("SELECT shown FROM dims WHERE id = ?", (one.stored_series,)).fetchone()
        shown = (
            one.rows
            if one.endpoint.level
            else tuple(map(max, rows.amounts(text, one.endpoint), one.rows))
        )
        db.execute(
            "UPDATE dims SET total = ?, shown = ? WHERE id = ?",
            (_dumped(one.rows), _dumped(shown), one.stored_series),
        )
        changed[one.stored_series] = (one.rows, shown)
    return changed
