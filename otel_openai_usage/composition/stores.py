"""The store that the settings ask for.

Only this module and the commands `state …` know a database. Another store is one more case in each
function here.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from otel_openai_usage.errors import ConfigError
from otel_openai_usage.storage.ports import OpenQueries, Writer
from otel_openai_usage.storage.sqlite import queries
from otel_openai_usage.storage.sqlite.file import MEMORY, inspect
from otel_openai_usage.storage.sqlite.state_info import describe
from otel_openai_usage.storage.sqlite.store import Store

__all__ = ["describe", "inspect", "open_writer", "queries_opener", "require_kept"]


def open_writer(
    path: Path, *, now: Callable[[], float] = time.time, strict: bool = False
) -> Writer:
    """Open the store for writing. Raises StateError, also if another process writes it.

    `now` returns Unix seconds. With `strict` a store with losses is refused.
    """
    return Store(path, now=now, strict=strict)


def queries_opener(path: Path) -> OpenQueries:
    """A function that opens the store for reading. That function raises StateError."""
    return partial(queries.open_queries, path)


def require_kept(path: Path) -> None:
    """Raise ConfigError if the store is lost when the process ends."""
    if str(path) == MEMORY:
        raise ConfigError(
            [f"state.path: expected a file, because a backfill keeps what it reads; got {MEMORY}"]
        )
