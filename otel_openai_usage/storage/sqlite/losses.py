"""What a state lost, as it is kept in the state until somebody accepts it."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from otel_openai_usage.errors import StateLost
from otel_openai_usage.storage.sqlite.schema import FIRST_WITH_COMMITS


class Described(Protocol):
    """A loss, found just now or before."""

    @property
    def details(self) -> str: ...


@dataclass(frozen=True, slots=True)
class StoredLoss:
    """A loss that was found at some start. `reread` is false until the time that can be read again
    is marked as unread.
    """

    found: int
    reason: str
    seconds: int
    details: str
    reread: bool


def unaccepted(db: sqlite3.Connection, version: int) -> list[StoredLoss]:
    """The losses that nobody accepted yet, oldest first."""
    if version < FIRST_WITH_COMMITS:
        return []
    return [
        StoredLoss(found, reason, seconds, details, bool(reread))
        for found, reason, seconds, details, reread in db.execute(
            "SELECT found, reason, seconds, details, reread FROM losses WHERE accepted IS NULL"
            " ORDER BY id"
        )
    ]


def refused(path: str, losses: Iterable[Described]) -> StateLost:
    """The error for a state that lost something, where the settings say to refuse it."""
    said = "; ".join(loss.details for loss in losses)
    return StateLost(
        f"the state file {path} is not as it was left: {said}. It is refused because state.strict"
        " is true; restore it from a backup (`otel-openai-usage state restore FILE`), or go on from"
        " what is there after `otel-openai-usage state accept`"
    )
