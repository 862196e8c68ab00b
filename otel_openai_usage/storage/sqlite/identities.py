"""Which events were booked, so that a new one costs about the same however many are known.

An identity is a hash, so each new one belongs to another page of the large table (`events`), and a
page is a hundred times larger. So what comes is written down in the order in which it comes
(`arrived`, a row for each transaction) and held in memory. When that is much, it is sorted, and
moves into the large table with the transactions that follow: neighbours share a page.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from otel_openai_usage.domain.metered import Event

HELD = 32_768
"""Identities are sorted when there are so many; at most three times as many are in memory, some 250
bytes each.
"""
SLICES = 256
"""Into so many parts `forget` cuts the large table: one after the other, no part takes long."""

_IDENTITY = 16
_PAIR = 24
_AT_ONCE = 500
_MOVE = "INSERT OR REPLACE INTO events VALUES (?, ?, ?)"

Seen: TypeAlias = dict[bytes, tuple[bytes, int]]
"""By identity: the content, and when it was seen."""


class Identities:
    """The identities in a file, used from the thread of its one writer.

    `write` and `forget` run inside the caller's transaction; what is in memory follows when `wrote`
    says that it is committed.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._young: Seen = {}
        self._old: Seen = {}
        self._due: list[bytes] = []  # what of the old is still to be moved, the last first
        self._moving = 0
        self._last = 0
        self._until = 0
        for number, seen, pairs in db.execute(
            "SELECT number, seen, pairs FROM arrived ORDER BY number"
        ):
            self._last = number
            for at in range(0, len(pairs), _PAIR):
                self._young[pairs[at : at + _IDENTITY]] = (pairs[at + _IDENTITY : at + _PAIR], seen)
        if (
            len(self._young) >= HELD
        ):  # whoever restarts often would else begin the same move again and again
            with db:
                db.execute("BEGIN IMMEDIATE")
                db.executemany(
                    _MOVE, [(identity, *self._young[identity]) for identity in sorted(self._young)]
                )
                db.execute("DELETE FROM arrived")
            self._young = {}

    def known(self, identities: Sequence[bytes], since: int) -> dict[bytes, bytes]:
        """The content of those of these events that were seen since then."""
        found: dict[bytes, bytes] = {}
        for first in range(0, len(identities), _AT_ONCE):
            part = identities[first : first + _AT_ONCE]
            sql = f"SELECT identity, content FROM events WHERE identity IN ({','.join('?' * len(part))}) AND seen >= ?"
            found.update(self._db.execute(sql, (*part, since)))
        for held in (self._old, self._young):
            for identity in held.keys() & identities:
                content, seen = held[identity]
                if seen >= since:
                    found[identity] = content
        return found

    def write(self, events: Sequence[Event], now: int) -> None:
        """Write down that these were seen, and move twice as many that came before them."""
        pairs = b"".join([event.identity + event.content for event in events])
        self._last = (
            self._db.execute(
                "INSERT INTO arrived (seen, pairs) VALUES (?, ?)", (now, pairs)
            ).lastrowid
            or 0
        )
        self._moving = 2 * len(events)
        moved = [
            (identity, *self._old[identity]) for identity in reversed(self._due[-self._moving :])
        ]
        self._db.executemany(_MOVE, moved)
        if moved and len(moved) == len(self._due):
            self._db.execute("DELETE FROM arrived WHERE number <= ?", (self._until,))

    def wrote(self, events: Iterable[Event], now: int) -> None:
        """What was written last is committed."""
        del self._due[-self._moving :]
        self._young.update((event.identity, (event.content, now)) for event in events)
        if not self._due:
            self._old = {}
            if len(self._young) >= HELD:
                self._old = self._young
                self._young = {}
                self._until = self._last
                self._due = sorted(self._old, reverse=True)

    def forget(self, part: int, before: int) -> int:
        """Forget those in one of the `SLICES` of the large table that were last seen before then.
        How many there were.
        """
        low = bytes([part])
        high = bytes([part + 1]) if part + 1 < SLICES else b"\xff" * (_IDENTITY + 1)
        return self._db.execute(
            "DELETE FROM events WHERE identity >= ? AND identity < ? AND seen < ?",
            (low, high, before),
        ).rowcount
