"""Metered events: which were recorded already, and how much of the usage they explain.

The usage of an event is added to the row of its hour (`rows.add_to_hours`). Of the event itself
only its identity and a hash of its content are stored, so that a repeated event counts once.

An identity is a hash, so each new one belongs to a random page of the large table `events`, and a
page is a hundred times larger than a row. So recording first appends to the table `arrived`, one
row for each transaction, and keeps the identities in memory. When there are many, they are sorted
and moved into `events` by the next transactions: neighbours share a page. So a new event costs
about the same, however many are known.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS
from otel_openai_usage.domain.metered import METERED, Event, Share
from otel_openai_usage.domain.model import Width
from otel_openai_usage.storage.sqlite.values import sum_of

SORT_AT = 32_768
"""The number of identities in memory that starts a move. At most three times as many are in
memory, about 250 bytes each.
"""
SLICES = 256
"""`purge` divides the table `events` into this number of slices, so that no slice takes long."""

_IDENTITY_BYTES = 16
_PAIR_BYTES = 24
_MAX_PARAMETERS = 500
_MOVE = "INSERT OR REPLACE INTO events VALUES (?, ?, ?)"

Seen: TypeAlias = dict[bytes, tuple[bytes, int]]
"""Content and Unix time, by identity."""


class EventIdentities:
    """The identities of the events in one file. Used only by the writer's thread.

    `write`, `move_all` and `purge` run inside the caller's transaction. Call `committed` after the
    transaction of `write` ended, and `moved_all` after that of `move_all`.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._arriving: Seen = {}
        self._moving: Seen = {}
        self._to_move: list[bytes] = []  # the keys of `_moving`, the last to move first
        self._moved_by_write = 0
        self._last_arrived = 0
        self._last_moving = 0
        self._load()

    def _load(self) -> None:
        sql = "SELECT number, seen, pairs FROM arrived ORDER BY number"
        for number, seen, pairs in self._db.execute(sql):
            self._last_arrived = number
            for start in range(0, len(pairs), _PAIR_BYTES):
                middle = start + _IDENTITY_BYTES
                content = pairs[middle : start + _PAIR_BYTES]
                self._arriving[pairs[start:middle]] = (content, seen)

    @property
    def has_many_to_move(self) -> bool:
        """Whether `move_all` is worth its time, before the first `write`.

        A process that restarts often would never end a slow move.
        """
        return len(self._arriving) >= SORT_AT

    def move_all(self) -> None:
        """Move every identity into the large table."""
        moved = [(identity, *self._arriving[identity]) for identity in sorted(self._arriving)]
        self._db.executemany(_MOVE, moved)
        self._db.execute("DELETE FROM arrived")

    def moved_all(self) -> None:
        """The transaction of `move_all` was committed."""
        self._arriving = {}

    def known(self, identities: Sequence[bytes], since: int) -> dict[bytes, bytes]:
        """The content of those of these events that were recorded since `since`, by identity."""
        found: dict[bytes, bytes] = {}
        for first in range(0, len(identities), _MAX_PARAMETERS):
            part = identities[first : first + _MAX_PARAMETERS]
            placeholders = ",".join("?" * len(part))
            sql = (
                f"SELECT identity, content FROM events WHERE identity IN ({placeholders})"
                " AND seen >= ?"
            )
            found.update(self._db.execute(sql, (*part, since)))
        # The newer memory last: it may have a newer content of the same identity.
        for in_memory in (self._moving, self._arriving):
            for identity in in_memory.keys() & identities:
                content, seen = in_memory[identity]
                if seen >= since:
                    found[identity] = content
        return found

    def write(self, events: Sequence[Event], now: int) -> None:
        """Append these identities, and move twice as many older ones into the large table."""
        pairs = b"".join([event.identity + event.content for event in events])
        sql = "INSERT INTO arrived (seen, pairs) VALUES (?, ?)"
        self._last_arrived = self._db.execute(sql, (now, pairs)).lastrowid or 0
        self._moved_by_write = 2 * len(events)
        next_identities = self._to_move[-self._moved_by_write :]
        next_identities.reverse()
        moved = [(identity, *self._moving[identity]) for identity in next_identities]
        self._db.executemany(_MOVE, moved)
        if moved and len(moved) == len(self._to_move):
            self._db.execute("DELETE FROM arrived WHERE number <= ?", (self._last_moving,))

    def committed(self, events: Iterable[Event], now: int) -> None:
        """The transaction of the last `write` was committed: bring the memory up to date."""
        del self._to_move[-self._moved_by_write :]
        for event in events:
            self._arriving[event.identity] = (event.content, now)
        if self._to_move:
            return
        self._moving = {}
        if len(self._arriving) >= SORT_AT:
            self._moving = self._arriving
            self._arriving = {}
            self._last_moving = self._last_arrived
            self._to_move = sorted(self._moving, reverse=True)

    def purge(self, slice_number: int, before: int) -> int:
        """Delete the identities in one of `SLICES` that were seen before `before`. Their number."""
        low = bytes([slice_number])
        is_last = slice_number + 1 == SLICES
        high = b"\xff" * (_IDENTITY_BYTES + 1) if is_last else bytes([slice_number + 1])
        sql = "DELETE FROM events WHERE identity >= ? AND identity < ? AND seen < ?"
        return self._db.execute(sql, (low, high, before)).rowcount


def event_attributes(db: sqlite3.Connection) -> list[str]:
    """The attributes of recorded events beyond those of every event, sorted."""
    sql = (
        "SELECT DISTINCT json_each.key FROM dims"
        " JOIN sources ON sources.id = dims.source_id, json_each(dims.key) WHERE kind = ?"
    )
    names = [name for (name,) in db.execute(sql, (METERED.name,))]
    return sorted(name for name in names if name not in METERED.dimensions)


def shares(db: sqlite3.Connection, day: int) -> list[Share]:
    """The tokens used on the UTC day that begins at `day`, and those that events explain.

    There is one Share for each organization, model and token type.
    """
    used: dict[tuple[str, str | None], tuple[int, int]] = {}
    explained: dict[tuple[str, str | None], tuple[int, int]] = {}
    sources = db.execute("SELECT id, organization, kind FROM sources").fetchall()
    for source, organization, endpoint in sources:
        if endpoint not in _ENDPOINTS_WITH_TOKENS:
            continue
        sums = explained if endpoint == METERED.name else used
        for model, input_tokens, output_tokens in _tokens_by_model(db, source, day):
            input_before, output_before = sums.get((organization, model), (0, 0))
            total = (input_before + input_tokens, output_before + output_tokens)
            sums[organization, model] = total
    found = []
    for organization, model in dict.fromkeys([*used, *explained]):
        used_tokens = used.get((organization, model), (0, 0))
        explained_tokens = explained.get((organization, model), (0, 0))
        for place, token_type in enumerate(("input", "output")):
            share = Share(
                organization, model, token_type, used_tokens[place], explained_tokens[place]
            )
            found.append(share)
    return found


def _tokens_by_model(
    db: sqlite3.Connection, source: int, day: int
) -> list[tuple[str | None, int, int]]:
    """Model, input tokens and output tokens of one source and day."""
    input_sum = sum_of("readings.input")
    output_sum = sum_of("readings.output")
    sql = (
        f"SELECT dims.model, {input_sum}, coalesce({output_sum}, 0)"
        " FROM readings JOIN dims ON dims.id = readings.dims"
        " WHERE readings.source_id = ? AND width IN (60, 3600, 86400)"
        " AND start >= ? AND start < ? GROUP BY dims.model"
    )
    return db.execute(sql, (source, day, day + Width.DAY)).fetchall()


_ENDPOINTS_WITH_TOKENS = {METERED.name} | {
    endpoint.name
    for endpoint in USAGE_ENDPOINTS.values()
    if any(measure.name == "input" for measure in endpoint.measures)
}
