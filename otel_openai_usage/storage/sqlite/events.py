"""Metered events: which were recorded already.

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

from otel_openai_usage.domain.metered import Event
from otel_openai_usage.storage.sqlite.connection import IDENTITY_BYTES, identity_pairs

SORT_AT = 32_768
"""The number of identities in memory that starts a move. At most three times as many are in
memory, about 250 bytes each.
"""
SLICES = 256
"""`purge` divides the table `events` into this number of slices, so that no slice takes long."""

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
            for identity, content in identity_pairs(pairs):
                self._arriving[identity] = (content, seen)

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
        high = b"\xff" * (IDENTITY_BYTES + 1) if is_last else bytes([slice_number + 1])
        sql = "DELETE FROM events WHERE identity >= ? AND identity < ? AND seen < ?"
        return self._db.execute(sql, (low, high, before)).rowcount
