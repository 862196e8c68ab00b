"""Checks the content of a state: every value can be decoded, every total is the sum of its rows.

A state whose pages have the checksums of its marker does not need this check. It is for a state
that another program changed, for one without a marker, and for the command `verify`.
"""

import json
import math
from dataclasses import dataclass
from decimal import Decimal

from otel_openai_usage.domain.endpoints import LEGACY, STORED, Endpoint
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Amount, Amounts, Width
from otel_openai_usage.domain.reconciliation import difference, total
from otel_openai_usage.storage.sql.database import Database
from otel_openai_usage.storage.sql.rows import measure_columns
from otel_openai_usage.storage.sql.series import read_series
from otel_openai_usage.storage.sql.sources import read_groupings
from otel_openai_usage.storage.sql.values import (
    decode_amounts,
    decode_text,
    encode_amounts,
)

_KNOWN_ENDPOINTS = {**STORED, METERED.name: METERED}
_IMPRECISE_FROM = 1 << 53
_MAX_NAMED = 3
"""The number of wrong totals that a sentence names, so that a log line stays short."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A total that is not the sum of its rows. `key` is the attribute set as JSON."""

    organization: str
    endpoint: Endpoint
    series_id: int
    key: str
    total: Amounts
    rows: Amounts

    def __str__(self) -> str:
        parts = []
        for measure, stored, summed in zip(
            self.endpoint.measures, self.total, self.rows, strict=True
        ):
            if stored != summed:
                parts.append(f"{measure.name} {stored} instead of {summed}")
        return f"{self.organization} {self.endpoint.source} {self.key}: {', '.join(parts)}"


def totals_disagreeing(db: Database) -> str | None:
    """A sentence about the totals that are not the sum of their rows, None if all are.

    Raises one of `NOT_DECODABLE` for a value that cannot be decoded.
    """
    decode_everything(db)
    wrong = disagreements(db)
    if not wrong:
        return None
    named = "; ".join(str(each) for each in wrong[:_MAX_NAMED])
    more = f"; and {len(wrong) - _MAX_NAMED} more" if len(wrong) > _MAX_NAMED else ""
    return f"{len(wrong)} totals are not the sum of their rows: {named}{more}"


def disagreements(db: Database) -> list[Disagreement]:
    """Every total that is not the sum of its rows, purged rows included.

    Raises one of `NOT_DECODABLE` for a value that cannot be decoded.
    """
    found: list[Disagreement] = []
    sources = db.execute("SELECT id, organization, kind, epoch FROM sources ORDER BY id").fetchall()
    for source, organization, name, epoch in sources:
        endpoint = _KNOWN_ENDPOINTS.get(name)
        # A newer version, or one with another endpoint, may have written this source.
        if endpoint is None:
            continue
        expected = _expected_totals(db, source, endpoint, epoch)
        keys = dict(db.execute("SELECT id, key FROM dims WHERE source_id = ?", (source,)))
        for series in read_series(db, source, endpoint):
            # A level whose row was purged cannot be compared; without rows a flow must be zero.
            without_rows = series.total if endpoint.level else endpoint.zero
            summed = expected.get(series.id) or without_rows
            if not _are_equal(series.total, summed):
                disagreement = Disagreement(
                    organization, endpoint, series.id, keys[series.id], series.total, summed
                )
                found.append(disagreement)
    return found


def _are_equal(stored: Amounts, summed: Amounts) -> bool:
    return all(_is_equal(one, other) for one, other in zip(stored, summed, strict=True))


def _is_equal(stored: Amount, summed: Amount) -> bool:
    if stored == summed:
        return True
    # A sum that SQLite could not keep in 64 bits has a limited precision.
    return summed >= _IMPRECISE_FROM and math.isclose(stored, summed, rel_tol=1e-9)


def _expected_totals(
    db: Database, source: int, endpoint: Endpoint, epoch: int
) -> dict[int, Amounts]:
    """The total that follows from the rows, by series."""
    if endpoint.level:
        return _levels(db, source, endpoint)
    sums = _sums(db, source, endpoint, counts_from(endpoint, epoch))
    sql = (
        "SELECT purged.dims, purged.amounts FROM purged"
        " JOIN dims ON dims.id = purged.dims WHERE dims.source_id = ?"
    )
    for series_id, text in db.execute(sql, (source,)):
        purged = decode_amounts(text, endpoint)
        sums[series_id] = total(sums.get(series_id, endpoint.zero), purged)
    return sums


def counts_from(endpoint: Endpoint, epoch: int) -> int:
    """The start of the first bucket that counts.

    Events and the legacy source count however late they come.
    """
    return 0 if endpoint.name in (METERED.name, LEGACY.name) else epoch


def _sums(
    db: Database, source: int, endpoint: Endpoint, start: int, end: int = 1 << 62
) -> dict[int, Amounts]:
    """The sum of the rows whose bucket begins in [start, end), by series."""
    selected = "FROM readings WHERE source_id = ? AND start >= ? AND start < ?"
    parameters = (source, start, end)
    columns = measure_columns(endpoint)
    sums: dict[int, Amounts] = {}
    if any(measure.money for measure in endpoint.measures):
        # SQLite would add money up as floats.
        sql = f"SELECT dims, {', '.join(columns)} {selected}"
        for series_id, *values in db.execute(sql, parameters):
            amounts = _money_amounts(endpoint, values)
            sums[series_id] = total(sums.get(series_id, endpoint.zero), amounts)
        return sums
    summed = ", ".join(f"coalesce({db.whole_sum(column)}, 0)" for column in columns)
    sql = f"SELECT dims, {summed} {selected} GROUP BY dims"
    for series_id, *values in db.execute(sql, parameters):
        sums[series_id] = tuple(
            [int(value) for value in values]
        )  # a Decimal, or a float beyond 64 bits
    return sums


def _money_amounts(endpoint: Endpoint, values: list[str]) -> Amounts:
    """The amounts of a row of costs. Raises TypeError or ArithmeticError for a damaged value."""
    amounts: list[Amount] = []
    for measure, value in zip(endpoint.measures, values, strict=True):
        amounts.append(Decimal(value) if measure.money else _whole(value))
    return tuple(amounts)


def _levels(db: Database, source: int, endpoint: Endpoint) -> dict[int, Amounts]:
    """The value of the bucket in which each level was read, where that row still exists."""
    columns = ", ".join(f"readings.{column}" for column in measure_columns(endpoint))
    sql = (
        f"SELECT dims.id, {columns} FROM dims JOIN readings ON readings.source_id = dims.source_id"
        f" AND readings.width = {int(Width.MINUTE)} AND readings.start = dims.changed"
        " AND readings.dims = dims.id WHERE dims.source_id = ?"
    )
    found: dict[int, Amounts] = {}
    for series_id, *values in db.execute(sql, (source,)):
        found[series_id] = tuple([_whole(value) for value in values])
    return found


def _whole(value: object) -> int:
    """The value, which must be a whole number. Raises TypeError."""
    if not isinstance(value, int):
        raise TypeError(f"expected a whole number, found {value!r}")
    return value


def decode_everything(db: Database) -> None:
    """Decode every stored value.

    Raises one of `NOT_DECODABLE` for a value that cannot be decoded.
    """
    sources = db.execute("SELECT id, kind, epoch, unread FROM sources").fetchall()
    for source, name, epoch, unread in sources:
        _whole(epoch)
        for start, end in json.loads(unread):
            _whole(start)
            _whole(end)
        read_groupings(db, source)
        endpoint = _KNOWN_ENDPOINTS.get(name)
        if endpoint:
            series_ids = {series.id for series in read_series(db, source, endpoint)}
            for table in ("readings", "suspicions", "estimates"):
                _require_known_series(db, table, source, series_ids)
    _decode_other_tables(db)


def _decode_other_tables(db: Database) -> None:
    """Decode the tables that belong to no single source."""
    known_widths = {int(width) for width in Width}
    for (width,) in db.execute("SELECT DISTINCT width FROM readings"):
        if width not in known_widths:
            raise ValueError(f"a row has the bucket width {width!r}")
    for (text,) in db.execute("SELECT cost FROM estimates"):
        Decimal(text)
    for (text,) in db.execute("SELECT series FROM floors"):
        json.loads(text)
    for (text,) in db.execute("SELECT amount FROM floors UNION ALL SELECT amount FROM limits"):
        decode_text(text)
    for (text,) in db.execute("SELECT value FROM meta WHERE key LIKE 'legacy.%'"):
        json.loads(text)


def _require_known_series(db: Database, table: str, source: int, series_ids: set[int]) -> None:
    """Raise LookupError if a row of the table belongs to no series of the source."""
    sql = f"SELECT DISTINCT dims FROM {table} WHERE source_id = ?"
    for (series_id,) in db.execute(sql, (source,)):
        if series_id not in series_ids:
            raise LookupError(f"a row of {table} has no attribute set {series_id!r}")


# --- totals after rows were deleted; each function runs inside its caller's transaction


def remember_purged(db: Database, source: int, endpoint: Endpoint, start: int, end: int) -> None:
    """Before the rows in [start, end) are deleted, store what they add to each total."""
    if endpoint.level:
        return
    (epoch,) = db.execute("SELECT epoch FROM sources WHERE id = ?", (source,)).fetchone()
    first = max(start, counts_from(endpoint, epoch))
    for series_id, amounts in _sums(db, source, endpoint, first, end).items():
        _add_purged(db, endpoint, series_id, amounts)


def assume_purged(db: Database) -> None:
    """Count as purged whatever a total has beyond its rows.

    For a state of a version that did not store what it purged.
    """
    for each in disagreements(db):
        if not each.endpoint.level:
            missing = difference(each.total, each.rows)
            _add_purged(db, each.endpoint, each.series_id, missing)


def _add_purged(db: Database, endpoint: Endpoint, series_id: int, amounts: Amounts) -> None:
    if not any(amounts):
        return
    sql = "SELECT amounts FROM purged WHERE dims = ?"
    stored = db.execute(sql, (series_id,)).fetchone()
    before = decode_amounts(stored[0], endpoint) if stored else endpoint.zero
    text = encode_amounts(total(before, amounts))
    sql = (
        "INSERT INTO purged VALUES (?, ?)"
        " ON CONFLICT (dims) DO UPDATE SET amounts = excluded.amounts"
    )
    db.execute(sql, (series_id, text))


def set_totals_to_rows(db: Database) -> dict[int, tuple[Amounts, Amounts]]:
    """Set every total to the sum of its rows. Total and shown of the changed series, by id.

    An exported value never falls: the part above the new total counts as restated.
    """
    changed: dict[int, tuple[Amounts, Amounts]] = {}
    for each in disagreements(db):
        sql = "SELECT shown FROM dims WHERE id = ?"
        (text,) = db.execute(sql, (each.series_id,)).fetchone()
        shown = each.rows
        if not each.endpoint.level:
            shown = tuple(map(max, decode_amounts(text, each.endpoint), each.rows))
        values = (encode_amounts(each.rows), encode_amounts(shown), each.series_id)
        db.execute("UPDATE dims SET total = ?, shown = ? WHERE id = ?", values)
        changed[each.series_id] = (each.rows, shown)
    return changed
