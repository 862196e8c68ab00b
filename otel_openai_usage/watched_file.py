"""Notices that files changed, so that a rotated key or certificate is used without a restart."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

Stamp: TypeAlias = tuple[int, int, int] | None
"""Modification time in ns, size and inode; None for a file that cannot be looked up."""


class WatchedFiles:
    """Some files, and how they were at the last call.

    Call `changed` before you read the files: a write in between is then seen at the next call.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = tuple(files)
        self._stamps: tuple[Stamp, ...] | None = None

    def changed(self) -> bool:
        """Whether a file changed since the last call. The first call returns True."""
        before = self._stamps
        self._stamps = tuple(_stamp(file) for file in self.files)
        return self._stamps != before

    def forget(self) -> None:
        """Let the next call of `changed` return True, because the files were not read."""
        self._stamps = None


def _stamp(file: Path) -> Stamp:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
