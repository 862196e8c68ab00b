"""Checksums of the pages of an SQLite file, as SQLite sees them: the main file below its
write-ahead log.

SQLite protects the log with checksums, and the main file not at all. So a checksum is kept of every
page. A commit appends the pages that it changed to the log (in SQLite's documented file format),
which is where `LogScanner` finds them. Nothing here locks, and nothing here writes.
"""

import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from zlib import crc32

UNKNOWN = 0
"""The checksum of a page that was never written, such as one that was allocated and freed again."""

_LOG_HEADER = struct.Struct(">8I")
_FRAME_HEADER = struct.Struct(">6I")
_AT_ONCE = 1 << 20
_PAGE_SIZE_OFFSET = 16


@dataclass(slots=True)
class PageSums:
    """The checksum of every page of a database, by page number."""

    sums: "array[int]" = field(default_factory=lambda: array("I"))

    def set(self, page: int, checksum: int) -> None:
        """Page numbers begin at 1."""
        missing = page - len(self.sums)
        if missing > 0:
            self.sums.extend([UNKNOWN] * missing)
        self.sums[page - 1] = checksum

    def resize(self, pages: int) -> None:
        """The database has so many pages now."""
        del self.sums[pages:]

    def differing(self, actual: "PageSums") -> list[int]:
        """The pages that are known here, and that are otherwise or missing in `actual`."""
        if self.sums == actual.sums:
            return []
        found = actual.sums
        return [
            index + 1
            for index, expected in enumerate(self.sums)
            if expected != UNKNOWN and (index >= len(found) or found[index] != expected)
        ]

    def __len__(self) -> int:
        return len(self.sums)


_VOLATILE = ((18, 20), (24, 28), (40, 44), (92, 100))
"""Parts of the first page that say how SQLite uses the file, and that differ between a database and
its backup: the journal mode, the change counter, the schema cookie, the version of SQLite.
"""


def checksum(number: int, page: "bytes | memoryview") -> int:
    """The checksum of a page; never `UNKNOWN`."""
    if number == 1:
        first = bytearray(page)
        for start, end in _VOLATILE:
            first[start:end] = bytes(end - start)
        return crc32(first) or 1
    return crc32(page) or 1


def main_file_sums(descriptor: int) -> PageSums:
    """The checksums of every whole page of a main file."""
    size = page_size(descriptor)
    found = PageSums()
    if not size:
        return found
    at_once = max(1, _AT_ONCE // size) * size
    offset = 0
    while chunk := os.pread(descriptor, at_once, offset):
        view = memoryview(chunk)
        first = offset // size + 1
        found.sums.extend(
            [
                checksum(first + index, view[at : at + size])
                for index, at in enumerate(range(0, len(chunk) - size + 1, size))
            ]
        )
        offset += len(chunk)
    return found


def page_size(descriptor: int) -> int:
    """Bytes of a page, as the header of a main file says; 0 if it says nothing possible."""
    header = os.pread(descriptor, 2, _PAGE_SIZE_OFFSET)
    if len(header) < 2:
        return 0
    size = int.from_bytes(header, "big")
    size = 65536 if size == 1 else size
    return size if size >= 512 and not size & (size - 1) else 0


class LogScanner:
    """Which pages the write-ahead log gained since it was last asked.

    The log begins again at its start, with other salts, after all of it was written back.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None
        self._salts: tuple[int, int] | None = None
        self._offset = _LOG_HEADER.size

    def close(self) -> None:
        """Let go of the file. Doing so twice does no harm."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def new_pages(self) -> tuple[dict[int, int], int | None]:
        """The checksums of the pages that were committed since the last call, and how many pages
        the database has after it, None if nothing was committed.
        """
        header = self._header()
        if header is None or self._file is None:
            return {}, None
        _, _, page_size, _, *salts, _, _ = header
        if self._salts != (salts[0], salts[1]):
            self._salts = (salts[0], salts[1])
            self._offset = _LOG_HEADER.size
        committed: dict[int, int] = {}
        pending: dict[int, int] = {}
        pages: int | None = None
        offset = self._offset
        for frame in _frames(self._file, offset, _FRAME_HEADER.size + page_size):
            page, size_after, salt1, salt2, _, _ = _FRAME_HEADER.unpack_from(frame)
            if (salt1, salt2) != self._salts:
                break
            offset += len(frame)
            pending[page] = checksum(page, frame[_FRAME_HEADER.size :])
            if size_after:  # only the last frame of a commit says it
                committed |= pending
                pending = {}
                pages = size_after
                self._offset = offset
        return committed, pages

    def skip(self) -> None:
        """Let what is in the log now count as known."""
        self.new_pages()

    def _header(self) -> tuple[int, ...] | None:
        if self._file is None:
            try:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
        header = os.pread(self._file, _LOG_HEADER.size, 0)
        return _LOG_HEADER.unpack(header) if len(header) == _LOG_HEADER.size else None


def _frames(file: int, offset: int, size: int) -> Iterator[memoryview]:
    """The whole frames of a log from an offset on."""
    count = 8  # most commits are small
    while chunk := os.pread(file, count * size, offset):
        view = memoryview(chunk)
        for at in range(0, len(chunk) - size + 1, size):
            yield view[at : at + size]
        if len(chunk) < count * size:
            return
        offset += len(chunk)
        count = max(8, _AT_ONCE // size)
