"""Losses that starts found, stored until somebody accepts them with `state accept`.

The command asks a running exporter to accept them with a small file beside the state, so that the
state has one writer.
"""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from otel_openai_usage.errors import StateLost
from otel_openai_usage.storage.results import StoredLoss
from otel_openai_usage.storage.sqlite.errors import translate_errors
from otel_openai_usage.storage.sqlite.migrations import FIRST_WITH_COMMITS

Reason: TypeAlias = Literal["older", "other", "missing", "pages", "totals"]

CONTENT_REASONS = ("totals", "pages")
"""Reasons for which a total may no longer be the sum of its rows."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a state lacks, or what of it is in doubt.

    `seconds` is how much time is missing, for changed pages and totals how much is in doubt; at
    least 1.
    """

    reason: Reason
    seconds: int
    details: str


class _HasDetails(Protocol):
    @property
    def details(self) -> str: ...


def unaccepted(db: sqlite3.Connection, version: int) -> list[StoredLoss]:
    """The losses that nobody accepted yet, oldest first."""
    if version < FIRST_WITH_COMMITS:
        return []
    sql = (
        "SELECT found, reason, seconds, details, reread FROM losses WHERE accepted IS NULL"
        " ORDER BY id"
    )
    losses = []
    for found, reason, seconds, details, reread in db.execute(sql):
        losses.append(StoredLoss(found, reason, seconds, details, bool(reread)))
    return losses


def add(db: sqlite3.Connection, losses: Iterable[Loss], now: int) -> None:
    """Store losses that were found now. Runs inside its caller's transaction."""
    values = [(now, loss.reason, loss.seconds, loss.details) for loss in losses]
    sql = "INSERT INTO losses (found, reason, seconds, details) VALUES (?, ?, ?, ?)"
    db.executemany(sql, values)


def refused(path: str, losses: Iterable[_HasDetails]) -> StateLost:
    """The error for a state with losses if `state.strict` is true."""
    details = "; ".join(loss.details for loss in losses)
    return StateLost(
        f"the state file {path} is not as it was left: {details}. It is refused because state.strict"
        " is true; restore it from a backup (`otel-openai-usage state restore FILE`), or go on from"
        " what is there after `otel-openai-usage state accept`"
    )


def request_acceptance(path: str) -> None:
    """Ask the exporter that has the state open to accept its losses. Raises StateError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    with translate_errors(path, "wrote beside"):
        os.close(os.open(_request_path(path), flags, 0o600))


def acceptance_requested(path: str) -> bool:
    """Whether the command asked for it. A folder that cannot be read has no such file."""
    # Path.exists raises what the system answers, such as EACCES.
    return os.path.exists(_request_path(path))  # noqa: PTH110


def remove_acceptance_request(path: str) -> None:
    """The losses were accepted."""
    with suppress(OSError):
        Path(_request_path(path)).unlink()


def _request_path(path: str) -> str:
    return f"{path}.accept"
