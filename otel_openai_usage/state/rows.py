"""Rows and leaves to SQL and back. Every function runs inside its caller's transaction."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from otel_openai_usage.core.book import Book, Leaf
from otel_openai_usage.core.estimate import add
from otel_openai_usage.core.kinds import Kind
from otel_openai_usage.core.ledger import Change, Row
from otel_openai_usage.core.model import Amount, Amounts, Dims, Width


def key(dims: Dims, kind: Kind) -> str:
    """What identifies an attribute set in the file: its dimensions by name, so that a kind may gain
    one later.
    """
    return json.dumps(
        {
            name: value
            for name, value in zip(kind.dimensions, dims, strict=True)
            if value is not None
        },
        sort_keys=True,
    )


def dims(text: str, kind: Kind) -> Dims:
    """The reverse of `key`."""
    values = json.loads(text)
    return tuple(values.get(name) for name in kind.dimensions)


def _text(amounts: Amounts) -> str:
    return json.dumps([amount if isinstance(amount, int) else str(amount) for amount in amounts])


def amounts(text: str, kind: Kind) -> Amounts:
    """The reverse of `_text`: money comes back as the Decimal that it was."""
    return tuple(
        Decimal(value) if measure.money else value
        for measure, value in zip(kind.measures, json.loads(text), strict=True)
    )


def amount(text: str) -> Amount:
    """The reverse of `str`: what is whole comes back as a whole number."""
    return int(text) if text.isdigit() else Decimal(text)


def leaves(db: sqlite3.Connection, source: int, kind: Kind) -> Iterator[Leaf]:
    """Every leaf of a source."""
    for id_, key, total, shown, released, first_seen, changed, *estimated in db.execute(
        "SELECT id, key, total, shown, released, first_seen, changed, estimate, estimate_shown FROM dims WHERE source_id = ? ORDER BY id",
        (source,),
    ):
        estimates = [Decimal(text) if text is not None else None for text in estimated]
        yield Leaf(
            id_,
            dims(key, kind),
            amounts(total, kind),
            amounts(shown, kind),
            bool(released),
            first_seen,
            changed,
            *estimates,
        )


def groupings(db: sqlite3.Connection, source: int) -> list[tuple[int, tuple[str, ...]]]:
    """The groupings of a source, each with the time from which it applies."""
    found = db.execute(
        "SELECT start, group_by FROM groupings WHERE source_id = ? ORDER BY start", (source,)
    )
    return [(start, tuple(text.split(",")) if text else ()) for start, text in found]


def add_leaves(db: sqlite3.Connection, book: Book, new: Iterable[Leaf]) -> None:
    """Store leaves and give them their ids."""
    names = book.kind.group_by + book.kind.derived
    sql = (
        f"INSERT INTO dims (source_id, key, total, shown, released, first_seen, changed, estimate, estimate_shown, {', '.join(names)})"
        f" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, {', '.join('?' * len(names))})"
    )
    for leaf in new:
        values = (
            book.id,
            key(leaf.dims, book.kind),
            _text(leaf.total),
            _text(leaf.shown),
            leaf.released,
            leaf.first_seen,
            leaf.changed,
        )
        leaf.id = (
            db.execute(sql, (*values, *_estimated(leaf), *leaf.dims[: len(names)])).lastrowid or 0
        )


def move_leaves(db: sqlite3.Connection, moved: Iterable[Leaf]) -> None:
    """Store the totals of leaves that exist."""
    db.executemany(
        "UPDATE dims SET total = ?, shown = ?, changed = ?, estimate = ?, estimate_shown = ? WHERE id = ?",
        [
            (_text(leaf.total), _text(leaf.shown), leaf.changed, *_estimated(leaf), leaf.id)
            for leaf in moved
        ],
    )


def _estimated(leaf: Leaf) -> tuple[str | None, str | None]:
    return (None, None) if leaf.estimate is None else (str(leaf.estimate), str(leaf.estimate_shown))


def add_estimates(
    db: sqlite3.Connection,
    book: Book,
    growth: Mapping[tuple[Dims, int], Decimal],
    new: Mapping[Dims, int],
) -> None:
    """Let the estimated cost of leaves grow, by UTC day; `new` as for `write`."""
    for (dims, day), amount in growth.items():
        place = (book.id, new.get(dims) or book.leaves[dims].id, day)
        held = db.execute(
            "SELECT cost FROM estimates WHERE source_id = ? AND dims = ? AND day = ?", place
        ).fetchone()
        cost = add(Decimal(held[0]), amount) if held else amount
        db.execute("INSERT OR REPLACE INTO estimates VALUES (?, ?, ?, ?)", (*place, str(cost)))


def between(
    db: sqlite3.Connection, book: Book, widths: Sequence[int], start: int, end: int
) -> list[Row]:
    """Rows of these widths whose bucket begins in [start, end)."""
    measures = book.kind.measures
    columns = ", ".join(measure.name for measure in measures)
    money = [index for index, measure in enumerate(measures) if measure.money]
    found = []
    for width in widths:
        sql = f"SELECT start, dims, {columns} FROM readings WHERE source_id = ? AND width = ? AND start >= ? AND start < ?"
        for begin, id_, *values in db.execute(sql, (book.id, width, start, end)):
            for index, value in enumerate(values):
                if isinstance(value, float):  # a sum beyond 64 bits, see `added_up`
                    values[index] = int(value)
            for index in money:
                values[index] = Decimal(values[index])
            found.append(Row(width, begin, book.by_id[id_].dims, tuple(values)))
    return found


def newest_end(db: sqlite3.Connection, source: int) -> int:
    """The end of the newest bucket with rows, Unix seconds; 0 if there are none."""
    found = [
        db.execute(
            "SELECT max(start) + ? FROM readings WHERE source_id = ? AND width = ?",
            (int(width), source, int(width)),
        ).fetchone()[0]
        for width in Width
    ]
    return max(end or 0 for end in found)


def write(db: sqlite3.Connection, book: Book, change: Change, new: Mapping[Dims, int]) -> None:
    """Store what a change writes, drops and suspects. `new` has the ids of leaves that the book
    does not know yet.
    """

    def id_(dims: Dims) -> int:
        return new.get(dims) or book.leaves[dims].id

    measures = [measure.name for measure in book.kind.measures]
    db.executemany(
        f"INSERT INTO readings (source_id, width, start, dims, {', '.join(measures)}) VALUES (?, ?, ?, ?, {', '.join('?' * len(measures))})"
        f" ON CONFLICT DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in measures)}",
        (
            (book.id, row.width, row.start, id_(row.dims), *map(_column, row.amounts))
            for row in change.writes
        ),
    )
    where = "WHERE source_id = ? AND width = ? AND start = ? AND dims = ?"
    db.executemany(
        f"DELETE FROM readings {where}",
        ((book.id, width, start, id_(dims)) for width, start, dims in change.drops),
    )
    for (width, start, dims), suspicion in change.suspects.items():
        db.execute(f"DELETE FROM suspicions {where}", (book.id, width, start, id_(dims)))
        if suspicion:
            values = (book.id, width, start, id_(dims), _text(suspicion.amounts), suspicion.since)
            db.execute("INSERT INTO suspicions VALUES (?, ?, ?, ?, ?, ?)", values)


def _column(amount: Amount) -> int | str:
    return amount if isinstance(amount, int) else str(amount)


def added_up(column: str) -> str:
    """SQL of the sum of a column of whole numbers. Beyond 64 bits it becomes a REAL, where `sum`
    itself would raise an error and leave the rows as they are for ever.
    """
    return f"(sum({column} >> 32) * 4294967296 + sum({column} & 4294967295))"


def compact(db: sqlite3.Connection, book: Book, before: int) -> None:
    """Let minutes that begin before `before` become hours, from the first whole day of the count
    on.

    A flow's minutes are added up; of a level the last one stays. No total moves.
    """
    span = (book.id, book.progress.whole_days_from, before)
    columns = [measure.name for measure in book.kind.measures]
    picked = (
        ", ".join(columns) if book.kind.level else ", ".join(added_up(name) for name in columns)
    )
    update = ", ".join(
        f"{name} = excluded.{name}" if book.kind.level else f"{name} = {name} + excluded.{name}"
        for name in columns
    )
    db.execute(
        f"INSERT INTO readings (source_id, width, start, dims, {', '.join(columns)})"
        f" SELECT ?, {int(Width.HOUR)}, start / 3600 * 3600, dims, {picked} FROM"
        f" (SELECT *, max(start) OVER (PARTITION BY start / 3600, dims) AS last FROM readings"
        f" WHERE source_id = ? AND width = {int(Width.MINUTE)}"
        f" AND start >= ? AND start < ?) {'WHERE start = last' if book.kind.level else ''} GROUP BY start / 3600, dims"
        f" ON CONFLICT DO UPDATE SET {update}",
        (book.id, *span),
    )
    db.execute(
        f"DELETE FROM readings WHERE source_id = ? AND width = {int(Width.MINUTE)} AND start >= ? AND start < ?",
        span,
    )
