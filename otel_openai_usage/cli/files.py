"""Files that a verb writes, stdout among them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from otel_openai_usage.errors import ExporterError

STDOUT = Path("-")


@contextmanager
def written(file: Path) -> Iterator[IO[str]]:
    """A file to write, `-` for stdout. Raises ExporterError if it cannot be; a reader of stdout
    that goes away is no error.
    """
    try:
        if file == STDOUT:
            yield sys.stdout
            sys.stdout.flush()
        else:
            with file.open("w", newline="", encoding="utf-8") as out:
                yield out
    except OSError as error:
        if file == STDOUT:
            discard_the_rest()
            if isinstance(error, BrokenPipeError):  # as in `| head`
                return
        name = "stdout" if file == STDOUT else file
        raise ExporterError(
            f"wrote {name}: {error.strerror or error}; check the path and the room on that disk"
        ) from error


def expect_folder(file: Path) -> None:
    """Raises ExporterError if there is no folder to write the file in: before hours of work, not
    after them.
    """
    if not file.absolute().parent.is_dir():
        raise ExporterError(
            f"looked for the folder of {file}: there is none; make it, or name a file elsewhere"
        )


def discard_the_rest() -> None:
    """Of what is written to stdout, the buffer that is flushed at exit included."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
