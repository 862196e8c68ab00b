"""Copies a whole state from one store to another, whatever databases they are."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any, TypeAlias

from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.sql import notes
from otel_openai_usage.storage.sql.columns import needed_columns
from otel_openai_usage.storage.sql.database import Database
from otel_openai_usage.storage.sql.values import quoted

TABLES = (
    "meta", "sources", "groupings", "dims", "readings", "suspicions", "estimates", "backfilled",
    "purged", "folds", "floors", "names", "limits", "hourly_costs",
)  # fmt: skip
"""What is copied, in an order in which every row finds what it refers to. Identities of events are
copied by themselves, because each store has them in another way.
"""
_WITH_IDS = ("sources", "dims")
_NOT_COPIED = (notes.STATE_PATH,)
"""Notes that are about the place, not about the state."""

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of rows that were copied so far."""
_TELL_EVERY = 50_000


def require_empty(db: Database, shown: str) -> None:
    """Raise StateError if the store has data."""
    (count,) = db.execute("SELECT count(*) FROM sources").fetchone()
    if count:
        raise StateError(
            f"copied to {shown}: there is a state already, and it was left as it is; name another"
            " place, or empty that one first"
        )


def remove_all(db: Database) -> None:
    """Delete the whole content. Runs inside its caller's transaction."""
    db.execute("DELETE FROM events")
    for table in reversed(TABLES):
        db.execute(f"DELETE FROM {table}")


def copy_all(source: Database, target: Database, progress: Progress) -> None:
    """Copy everything, and compare both. Runs inside transactions of its caller.

    Raises StateError if the copy has other sums than the source.
    """
    count = 0

    def counted(rows: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
        nonlocal count
        for row in rows:
            count += 1
            if count % _TELL_EVERY == 0:
                progress(count)
            yield [_plain(value) for value in row]

    target.execute("DELETE FROM meta")
    for table in TABLES:
        columns = source.columns_of(table)
        known = target.columns_of(table)
        # A column that only a newer version has belongs to an endpoint that nobody here knows.
        names = [name for name in columns if name in known]
        listed = [quoted(name) for name in names]
        # Closed, because an interrupted copy would leave a statement open.
        with closing(source.stream(f"SELECT {', '.join(listed)} FROM {table}")) as rows:
            if table == "meta":
                kept = [row for row in rows if row[0] not in _NOT_COPIED]
                target.write(table, listed, counted(kept))
            else:
                target.write(table, listed, counted(rows))
    conflict = (
        "ON CONFLICT (identity) DO UPDATE SET content = excluded.content, seen = excluded.seen"
    )
    columns = ["identity", "content", "seen"]
    with closing(source.event_rows()) as events:
        target.write("events", columns, counted(events), conflict=conflict)
    number, time = source.execute("SELECT number, time FROM commits").fetchone()
    target.execute("UPDATE commits SET number = ?, time = ?", (number, time))
    for table in _WITH_IDS:
        target.ids_were_inserted(table)
    _compare(source, target)


def _plain(value: Any) -> Any:
    """A value that both databases take: money as text."""
    return str(value) if isinstance(value, Decimal) else value


def _compare(source: Database, target: Database) -> None:
    """Raise StateError unless both have the same sums."""
    expected = _sums(source)
    found = _sums(target)
    for name, value in expected.items():
        if found.get(name) != value:
            raise StateError(
                f"copied the state: {name} is {found.get(name)} in the copy and {value} in the"
                " source; nothing was kept of the copy"
            )


def _sums(db: Database) -> dict[str, int | Decimal]:
    """Sums of everything that is counted, by what they are."""
    found: dict[str, int | Decimal] = {}
    for table in TABLES:
        if table == "meta":
            continue
        (count,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()
        found[f"the number of rows of {table}"] = int(count)
    for name, value_type in needed_columns()["readings"].items():
        column = quoted(name)
        is_money = value_type is Decimal
        sql = db.decimal_sum(column) if is_money else db.whole_sum(column)
        for source, value in db.execute(
            f"SELECT source_id, {sql} FROM readings GROUP BY source_id"
        ).fetchall():
            amount = Decimal(value or 0) if is_money else int(value or 0)
            found[f"the sum of {name} of source {source}"] = amount
    sql = f"SELECT {db.decimal_sum('cost')} FROM estimates"
    found["the sum of estimates"] = Decimal(db.execute(sql).fetchone()[0] or 0)
    return found
