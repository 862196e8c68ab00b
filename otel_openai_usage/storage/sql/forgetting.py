"""Moves customers to `(forgotten)`, in every table. Runs inside its caller's transaction."""

import json
from collections.abc import Callable, Sequence
from decimal import Decimal

from otel_openai_usage.domain.allocation import FORGOTTEN
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.pricing import add
from otel_openai_usage.domain.reconciliation import total
from otel_openai_usage.storage.sql.database import Database
from otel_openai_usage.storage.sql.rows import measure_columns
from otel_openai_usage.storage.sql.values import decode_amounts, encode_amounts


def forget(db: Database, is_meant: Callable[[str], bool]) -> int:
    """Move the rows and totals of customers. How many customers there were."""
    found: set[str] = set()
    sources = db.execute("SELECT id FROM sources WHERE kind = ?", (METERED.name,)).fetchall()
    for (source,) in sources:
        found |= _forget_series(db, source, is_meant)
    _forget_marks(db, is_meant)
    # Only where several replicas take events.
    if db.columns_of("queued_usage"):
        found |= _forget_queued(db, is_meant)
    return len(found)


def _forget_series(db: Database, source: int, is_meant: Callable[[str], bool]) -> set[str]:
    """Move the attribute sets of one source. The customers."""
    found = set()
    stored = db.execute("SELECT id, key FROM dims WHERE source_id = ?", (source,)).fetchall()
    ids = {key: series for series, key in stored}
    for series, key in stored:
        attributes = json.loads(key)
        subject = attributes.get("subject")
        if subject is None or not is_meant(subject):
            continue
        found.add(subject)
        new_key = _forgotten(attributes)
        if new_key in ids:
            _merge(db, source, series, ids[new_key])
        else:
            sql = "UPDATE dims SET key = ?, subject = ? WHERE id = ?"
            db.execute(sql, (new_key, FORGOTTEN, series))
            ids[new_key] = series
    return found


def _forgotten(attributes: dict[str, str]) -> str:
    """The key of an attribute set without its customer."""
    return json.dumps({**attributes, "subject": FORGOTTEN}, sort_keys=True)


def _forget_marks(db: Database, is_meant: Callable[[str], bool]) -> None:
    """Delete what series of the customers had shown: they are gone, so none of them can fall."""
    stored = db.execute("SELECT instrument, series FROM floors").fetchall()
    for instrument, text in stored:
        # Names and values in turn; the configuration may have renamed `subject`.
        values = json.loads(text)[1::2]
        if instrument.startswith("openai.metered.") and any(map(is_meant, map(str, values))):
            sql = "DELETE FROM floors WHERE instrument = ? AND series = ?"
            db.execute(sql, (instrument, text))


def _forget_queued(db: Database, is_meant: Callable[[str], bool]) -> set[str]:
    """Move events that were taken but not counted yet. The customers."""
    found = set()
    for id_, key in db.execute("SELECT id, dims FROM queued_usage").fetchall():
        attributes = json.loads(key)
        subject = attributes.get("subject")
        if subject is not None and is_meant(subject):
            found.add(subject)
            sql = "UPDATE queued_usage SET dims = ? WHERE id = ?"
            db.execute(sql, (_forgotten(attributes), id_))
    return found


def _merge(db: Database, source: int, old: int, into: int) -> None:
    """Add a series to another one, and delete it."""
    _merge_totals(db, old, into)
    _merge_readings(db, source, old, into)
    _merge_estimates(db, source, old, into)
    _merge_purged(db, old, into)
    db.execute("DELETE FROM folds WHERE dims = ?", (old,))
    db.execute("DELETE FROM dims WHERE id = ?", (old,))


def _merge_totals(db: Database, old: int, into: int) -> None:
    columns = ("total", "shown", "first_seen", "changed", "estimate", "estimate_shown")
    sql = f"SELECT {', '.join(columns)} FROM dims WHERE id = ?"
    one = db.execute(sql, (old,)).fetchone()
    other = db.execute(sql, (into,)).fetchone()
    values = (
        _amounts_sum(one[0], other[0]),
        _amounts_sum(one[1], other[1]),
        min(one[2], other[2]),
        max(one[3], other[3]),
        _money_sum(one[4], other[4]),
        _money_sum(one[5], other[5]),
        into,
    )
    db.update("dims", columns, [values])


def _amounts_sum(one: str, other: str) -> str:
    return encode_amounts(total(decode_amounts(one, METERED), decode_amounts(other, METERED)))


def _money_sum(one: str | Decimal | None, other: str | Decimal | None) -> str | None:
    known = [Decimal(amount) for amount in (one, other) if amount is not None]
    if not known:
        return None
    return str(known[0] if len(known) == 1 else add(known[0], known[1]))


def _merge_readings(db: Database, source: int, old: int, into: int) -> None:
    columns = measure_columns(METERED)
    names = ", ".join(columns)
    updates = ", ".join(f"{column} = readings.{column} + excluded.{column}" for column in columns)
    # `WHERE` also tells SQLite's parser that ON belongs to the INSERT.
    db.execute(
        f"INSERT INTO readings (source_id, width, start, dims, {names})"
        f" SELECT source_id, width, start, {into:d}, {names} FROM readings"
        " WHERE source_id = ? AND dims = ?"
        f" ON CONFLICT (source_id, width, start, dims) DO UPDATE SET {updates}",
        (source, old),
    )
    db.execute("DELETE FROM readings WHERE source_id = ? AND dims = ?", (source, old))


def _merge_estimates(db: Database, source: int, old: int, into: int) -> None:
    sql = "SELECT day, cost FROM estimates WHERE source_id = ? AND dims = ?"
    before = dict(db.execute(sql, (source, into)).fetchall())
    moved: list[Sequence[object]] = []
    for day, cost in db.execute(sql, (source, old)).fetchall():
        moved.append((source, into, day, _money_sum(cost, before.get(day))))
    conflict = "ON CONFLICT (source_id, dims, day) DO UPDATE SET cost = excluded.cost"
    db.write("estimates", ("source_id", "dims", "day", "cost"), moved, conflict=conflict)
    db.execute("DELETE FROM estimates WHERE source_id = ? AND dims = ?", (source, old))


def _merge_purged(db: Database, old: int, into: int) -> None:
    sql = "SELECT amounts FROM purged WHERE dims = ?"
    one = db.execute(sql, (old,)).fetchone()
    if one is None:
        return
    other = db.execute(sql, (into,)).fetchone()
    amounts = one[0] if other is None else _amounts_sum(one[0], other[0])
    conflict = "ON CONFLICT (dims) DO UPDATE SET amounts = excluded.amounts"
    db.write("purged", ("dims", "amounts"), [(into, amounts)], conflict=conflict)
    db.execute("DELETE FROM purged WHERE dims = ?", (old,))
