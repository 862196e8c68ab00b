"""Series beyond the limit of an instrument (table `folds`), and values below which no series may
fall (table `floors`). Each function runs inside its caller's transaction.
"""

import json
from collections.abc import Iterable

from otel_openai_usage.domain.series_marks import HighWaterMark, OverflowMember
from otel_openai_usage.storage.sql.database import Database
from otel_openai_usage.storage.sql.values import decode_text


def read_members(db: Database) -> list[OverflowMember]:
    """The series that were ever part of an overflow series."""
    found = db.execute("SELECT instrument, dims FROM folds").fetchall()
    return [OverflowMember(instrument, series_id) for instrument, series_id in found]


def read_marks(db: Database) -> list[HighWaterMark]:
    """The highest exported values below which no series may fall."""
    found = []
    for instrument, key, text in db.execute("SELECT instrument, series, amount FROM floors"):
        attributes = tuple(json.loads(key))
        found.append(HighWaterMark(instrument, attributes, decode_text(text)))
    return found


def add(db: Database, members: Iterable[OverflowMember], marks: Iterable[HighWaterMark]) -> None:
    """Store members of overflow series, and high-water marks."""
    member_values = [(member.instrument, member.stored_series) for member in members]
    conflict = "ON CONFLICT (instrument, dims) DO NOTHING"
    db.write("folds", ("instrument", "dims"), member_values, conflict=conflict)
    # The last mark of a series counts.
    amounts = {(mark.instrument, json.dumps(mark.key)): str(mark.amount) for mark in marks}
    mark_values = [(instrument, key, amount) for (instrument, key), amount in amounts.items()]
    conflict = "ON CONFLICT (instrument, series) DO UPDATE SET amount = excluded.amount"
    db.write("floors", ("instrument", "series", "amount"), mark_values, conflict=conflict)
