"""The store that the settings ask for.

Only this module and the commands `state …` know a database.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from otel_openai_usage.errors import ConfigError
from otel_openai_usage.storage.ports import Backend, OpenQueries, StoreInfo, Writer
from otel_openai_usage.storage.sqlite.backend import SQLITE
from otel_openai_usage.storage.sqlite.file import MEMORY


def _backend(_: Path) -> Backend:
    """The kind of store at a location. Another kind is one more line here."""
    return SQLITE


def open_writer(
    path: Path, *, now: Callable[[], float] = time.time, strict: bool = False
) -> Writer:
    """Open the store for writing. Raises StateError, also if another process writes it.

    `now` returns Unix seconds. With `strict` a store with losses is refused.
    """
    return _backend(path).open_writer(path, now=now, strict=strict)


def queries_opener(path: Path) -> OpenQueries:
    """A function that opens the store for reading. That function raises StateError."""
    return partial(_backend(path).open_queries, path)


def inspect(path: Path) -> str:
    """What is at a path, in a sentence. Raises StateError if `run` could not use it."""
    return _backend(path).inspect(path)


def describe(path: Path) -> StoreInfo:
    """Describe a store without changing it. Raises StateError if there is none."""
    return _backend(path).describe(path)


def require_kept(path: Path) -> None:
    """Raise ConfigError if the store is lost when the process ends."""
    if str(path) == MEMORY:
        raise ConfigError(
            [f"state.path: expected a file, because a backfill keeps what it reads; got {MEMORY}"]
        )
