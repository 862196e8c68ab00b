"""The store that the settings ask for.

Only this module and the commands `state …` know a database.
"""

import os
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from otel_openai_usage.config.location import DatabaseLocation, Location
from otel_openai_usage.errors import ConfigError, StateError
from otel_openai_usage.storage.ports import Backend, OpenQueries, StoreInfo, Writer
from otel_openai_usage.storage.sqlite.backend import SQLITE
from otel_openai_usage.storage.sqlite.backup import remove
from otel_openai_usage.storage.sqlite.file import MEMORY


def _backend(location: Location) -> Backend:
    """The kind of store at a location. Another kind is one more line here.

    Raises ConfigError if its driver is not installed.
    """
    if isinstance(location, DatabaseLocation):
        return _postgres()
    return SQLITE


def _postgres() -> Backend:
    try:
        from otel_openai_usage.storage.postgres.backend import POSTGRES
    except ImportError as error:
        problem = (
            f"state.url: the driver for PostgreSQL cannot be loaded ({error});"
            " pip install 'otel-openai-usage[postgres]'"
        )
        raise ConfigError([problem]) from error
    return POSTGRES


def open_writer(
    location: Location, *, now: Callable[[], float] = time.time, strict: bool = False
) -> Writer:
    """Open the store for writing. Raises StateError, also if another process writes it.

    `now` returns Unix seconds. With `strict` a store with losses is refused.
    """
    return _backend(location).open_writer(location, now=now, strict=strict)


def open_shared(
    location: Location, *, now: Callable[[], float] = time.time, strict: bool = False
) -> Writer:
    """Open the store for a replica that shares it with others, where the store can be shared.

    Else as `open_writer`. Raises StateError.
    """
    return _backend(location).open_shared(location, now=now, strict=strict)


def queries_opener(location: Location) -> OpenQueries:
    """A function that opens the store for reading. That function raises StateError."""
    return partial(_backend(location).open_queries, location)


def inspect(location: Location) -> str:
    """What is at a location, in a sentence. Raises StateError if `run` could not use it."""
    return _backend(location).inspect(location)


def describe(location: Location) -> StoreInfo:
    """Describe a store without changing it. Raises StateError if there is none."""
    return _backend(location).describe(location)


def warnings(location: Location) -> list[str]:
    """What is allowed at this location but not safe, in sentences. Raises StateError."""
    return _backend(location).warnings(location)


def is_empty(location: Location) -> bool:
    """Whether `run` would make a new store there. Raises StateError or OSError."""
    return _backend(location).is_empty(location)


def copy(
    source: Location,
    target: Location,
    progress: Callable[[int], None],
    *,
    replace: bool = False,
) -> None:
    """Copy a whole state to another store, completely or not at all. Raises StateError.

    The source may be written meanwhile: the copy is the state at one moment. `progress` is called
    with the number of copied rows. A target that has data is refused, unless `replace` is true.
    """
    was_missing = isinstance(target, Path) and not target.exists()
    try:
        with (
            queries_opener(source)() as queries,
            closing(open_writer(target)) as writer,
            queries.whole() as whole,
        ):
            writer.fill(whole, progress, replace=replace)
    except BaseException:
        if was_missing and isinstance(target, Path):
            remove(target)
        raise


def back_up_database(
    source: DatabaseLocation, target: Path, progress: Callable[[int], None], *, replace: bool
) -> None:
    """Copy a state from a database into a new state file. Raises StateError.

    An existing file is only overwritten with `replace`, and only by a complete copy.
    """
    if target.exists() and not replace:
        raise StateError(
            f"backed up to {target}: there is a file already, and it was left as it is; name"
            " another one, or replace it with --replace"
        )
    # Where nobody else has a file: it is not complete yet.
    beside = target.absolute().with_name(f".{target.name}.{os.getpid()}.new")
    copy(source, beside, progress)
    beside.replace(target)
    remove(beside)


def require_kept(location: Location) -> None:
    """Raise ConfigError if the store is lost when the process ends."""
    if str(location) == MEMORY:
        raise ConfigError(
            [f"state.path: expected a file, because a backfill keeps what it reads; got {MEMORY}"]
        )
