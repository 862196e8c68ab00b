"""Checksums of the pages of an SQLite database: the main file and its write-ahead log.

SQLite protects the log with checksums, but not the main file. So the marker has a checksum of every page.
A commit appends the pages that it changed to the log, where `LogScanner` finds them
(https://www.sqlite.org/fileformat2.html#the_write_ahead_log). Nothing here locks or writes.
"""

import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from zlib import crc32

UNKNOWN = 0
"""The checksum of a page that was never written, for example allocated and freed again."""

_LOG_HEADER = struct.Struct(">8I")
_FRAME_HEADER = struct.Struct(">6I")
_CHUNK = 1 << 20
"""Bytes of one read."""
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
        """The database has this number of pages now."""
        del self.sums[pages:]

    def differing(self, actual: "PageSums") -> list[int]:
        """The numbers of the pages that are known here and differ or are missing in `actual`."""
        if self.sums == actual.sums:
            return []
        found = []
        for index, expected in enumerate(self.sums):
            is_missing = index >= len(actual.sums)
            if expected != UNKNOWN and (is_missing or actual.sums[index] != expected):
                found.append(index + 1)
        return found

    def __len__(self) -> int:
        return len(self.sums)


_VOLATILE = ((18, 20), (24, 28), (40, 44), (92, 100))
"""Parts of the first page that differ between a database and its backup: the journal mode, the
change counter, the schema cookie, the version of SQLite.
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
    chunk_size = max(1, _CHUNK // size) * size
    offset = 0
    number = 1
    while chunk := os.pread(descriptor, chunk_size, offset):
        view = memoryview(chunk)
        for start in range(0, len(chunk) - size + 1, size):
            found.sums.append(checksum(number, view[start : start + size]))
            number += 1
        offset += len(chunk)
    return found


def page_size(descriptor: int) -> int:
    """The page size in the header of a main file, 0 if it is not a possible one."""
    header = os.pread(descriptor, 2, _PAGE_SIZE_OFFSET)
    if len(header) < 2:
        return 0
    size = int.from_bytes(header, "big")
    if size == 1:  # two bytes cannot hold 65,536
        return 65536
    is_power_of_two = not size & (size - 1)
    return size if size >= 512 and is_power_of_two else 0


class LogScanner:
    """Finds the pages that were appended to the write-ahead log since the last call.

    SQLite starts the log again, with other salts, after all of it was written back.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None
        self._salts: tuple[int, int] | None = None
        self._offset = _LOG_HEADER.size

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def new_pages(self) -> tuple[dict[int, int], int | None]:
        """The checksums of the pages that were committed since the last call, by page number, and
        the number of pages of the database, None if nothing was committed.
        """
        header = self._header()
        if header is None or self._file is None:
            return {}, None
        _, _, page_size, _, first_salt, second_salt, _, _ = header
        salts = (first_salt, second_salt)
        if self._salts != salts:
            self._salts = salts
            self._offset = _LOG_HEADER.size
        committed: dict[int, int] = {}
        pending: dict[int, int] = {}
        pages: int | None = None
        offset = self._offset
        for frame in _frames(self._file, offset, _FRAME_HEADER.size + page_size):
            page, pages_after, first_salt, second_salt, _, _ = _FRAME_HEADER.unpack_from(frame)
            if (first_salt, second_salt) != salts:
                break  # left over from before the log was started again
            offset += len(frame)
            pending[page] = checksum(page, frame[_FRAME_HEADER.size :])
            if pages_after:  # only the last frame of a commit has it
                committed |= pending
                pending = {}
                pages = pages_after
                self._offset = offset
        return committed, pages

    def skip(self) -> None:
        """Ignore what is in the log now."""
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
    """Yield the whole frames of a log from an offset on."""
    count = 8  # most commits are small
    while chunk := os.pread(file, count * size, offset):
        view = memoryview(chunk)
        for start in range(0, len(chunk) - size + 1, size):
            yield view[start : start + size]
        if len(chunk) < count * size:
            return
        offset += len(chunk)
        count = max(8, _CHUNK // size)
