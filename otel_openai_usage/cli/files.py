"""Files that a verb writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from otel_openai_usage.errors import ExporterError


@contextmanager
def written(file: Path) -> Iterator[IO[str]]:
    """A file to write. Raises ExporterError if it cannot be."""
    try:
        with file.open("w", newline="", encoding="utf-8") as out:
            yield out
    except OSError as error:
        raise ExporterError(f"wrote {file}: {error.strerror or error}; check the path and the room on that disk") from error
