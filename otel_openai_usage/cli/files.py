"""Files that a verb writes, stdout among them."""

import os
import stat
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


def replace(file: Path, content: bytes) -> None:
    """Let a file have new content, whole or not at all, whoever reads it meanwhile.

    It keeps its mode; a new one has what the umask leaves, so that another user's node_exporter can
    read it. Raises ExporterError; the old content stays then.
    """
    target = file.resolve()  # what a symbolic link names is replaced, not the link
    # The textfile collector reads every *.prom, so this is none.
    fresh = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if target.exists() and not target.is_file():  # a pipe or a device has nothing to keep
            target.write_bytes(content)
            return
        try:
            fresh.unlink(missing_ok=True)
            with fresh.open("xb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            if target.exists():
                fresh.chmod(stat.S_IMODE(target.stat().st_mode))
            fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise ExporterError(
            f"wrote {file}: {error.strerror or error}; check the path and the room on that disk"
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
