"""Metered events: which were recorded already (table `events`)."""

from collections.abc import Iterable, Sequence

from otel_openai_usage.domain.metered import Event
from otel_openai_usage.storage.postgres.connection import PostgresDatabase

SLICES = 256
"""`purge` divides the table into this number of slices, so that no slice takes long."""
_IDENTITY_BYTES = 16


class EventIdentities:
    """The identities of recorded events. `write` and `purge` run inside the caller's transaction."""

    def __init__(self, db: PostgresDatabase) -> None:
        self._db = db

    def known(self, identities: Sequence[bytes], since: int) -> dict[bytes, bytes]:
        """The content of those of these events that were recorded since `since`, by identity."""
        sql = "SELECT identity, content FROM events WHERE identity = ANY(?) AND seen >= ?"
        return dict(self._db.execute(sql, (list(identities), since)).fetchall())

    def write(self, events: Sequence[Event], now: int) -> None:
        """Store these identities. One that was seen long ago is replaced."""
        contents = {event.identity: event.content for event in events}
        # Sorted, so that neighbours share a page, and two writers lock rows in the same order.
        values = [(identity, contents[identity], now) for identity in sorted(contents)]
        conflict = (
            "ON CONFLICT (identity) DO UPDATE SET content = excluded.content, seen = excluded.seen"
        )
        self._db.write("events", ("identity", "content", "seen"), values, conflict=conflict)

    def committed(self, events: Iterable[Event], now: int) -> None:
        """Nothing is in memory, so there is nothing to bring up to date."""

    def purge(self, slice_number: int, before: int) -> int:
        """Delete the identities in one of `SLICES` that were seen before `before`. Their number."""
        low = bytes([slice_number])
        is_last = slice_number + 1 == SLICES
        high = b"\xff" * (_IDENTITY_BYTES + 1) if is_last else bytes([slice_number + 1])
        sql = "DELETE FROM events WHERE identity >= ? AND identity < ? AND seen < ?"
        return self._db.execute(sql, (low, high, before)).rowcount
